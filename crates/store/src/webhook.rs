//! Webhooks, as their partners make, read and change them.
//!
//! Each change raises the version, and writes its row of `webhook_versions` and its entry of `outbox` in the same
//! transaction. Called by the management API; `disable` also by the dispatcher and the retry service. What became of
//! attempts stands in `webhook_health` beside it, and is no change of a webhook.

pub mod change;
mod create;
mod delete;
mod disable;
mod history;
mod update;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz};
use diesel::{OptionalExtension as _, QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::event::EventType;
use domain::id::{PartnerId, WebhookId};
use domain::webhook::DisabledReason;

use crate::error::StoreError;

pub use create::{Creation, NewWebhook, create};
pub use delete::delete;
pub use disable::{Failing, disable, failing};
pub use history::{Version, history};
pub use update::{Update, update};

/// A webhook that is not deleted, with what happened at it lately. Without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub id: WebhookId,
    pub partner_id: PartnerId,
    pub url: String,
    pub events: Vec<EventType>,
    pub description: Option<String>,
    pub active: bool,
    pub version: i32,
    /// Why we switched it off, if we did and it still is.
    pub disabled_reason: Option<DisabledReason>,
    pub disabled_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// Start of the last attempt.
    pub last_triggered_at: Option<DateTime<Utc>>,
    pub last_response_code: Option<i32>,
    /// Failed attempts in a row since the last success.
    pub failure_count: i32,
}

/// One page of a partner's webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub webhooks: Vec<Webhook>,
    /// How many there are on all pages.
    pub total: u64,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    partner_id: i64,
    #[diesel(sql_type = Text)]
    url: String,
    #[diesel(sql_type = Array<Text>)]
    events: Vec<String>,
    #[diesel(sql_type = Nullable<Text>)]
    description: Option<String>,
    #[diesel(sql_type = Bool)]
    active: bool,
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = Nullable<Text>)]
    disabled_reason: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    disabled_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    updated_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    last_triggered_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Integer>)]
    last_response_code: Option<i32>,
    #[diesel(sql_type = Integer)]
    failure_count: i32,
}

/// `SELECT` and `FROM` of every query for [`Row`]s. A webhook without a row of health was never tried.
macro_rules! select_webhooks {
    () => {
        "SELECT w.id, w.partner_id, w.url, w.events, w.description, w.active, w.version, w.disabled_reason, \
             w.disabled_at, w.created_at, w.updated_at, h.last_triggered_at, h.last_response_code, \
             coalesce(h.failure_count, 0) AS failure_count \
         FROM webhooks w LEFT JOIN webhook_health h ON h.webhook_id = w.id "
    };
}

impl TryFrom<Row> for Webhook {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |what: String| StoreError::Corrupt(format!("webhook {}: {what}", row.id));
        let disabled_reason = row
            .disabled_reason
            .map(|text| {
                [DisabledReason::Gone, DisabledReason::Failing]
                    .into_iter()
                    .find(|reason| reason.as_str() == text)
                    .ok_or_else(|| corrupt(format!("{text:?} is no reason for disabling")))
            })
            .transpose()?;
        let events = row
            .events
            .into_iter()
            .map(EventType::try_from)
            .collect::<Result<_, _>>()
            .map_err(|error| corrupt(error.to_string()))?;
        Ok(Self {
            id: WebhookId(row.id),
            partner_id: PartnerId(row.partner_id),
            url: row.url,
            events,
            description: row.description,
            active: row.active,
            version: row.version,
            disabled_reason,
            disabled_at: row.disabled_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
            last_triggered_at: row.last_triggered_at,
            last_response_code: row.last_response_code,
            failure_count: row.failure_count,
        })
    }
}

/// One webhook of the partner; `None` where the partner has no such webhook, or had.
///
/// # Errors
/// Those of any query.
pub async fn get(
    conn: &mut AsyncPgConnection,
    partner: PartnerId,
    id: WebhookId,
) -> Result<Option<Webhook>, StoreError> {
    sql_query(concat!(
        select_webhooks!(),
        "WHERE w.id = $1 AND w.partner_id = $2 AND w.deleted_at IS NULL"
    ))
    .bind::<BigInt, _>(id.0)
    .bind::<BigInt, _>(partner.0)
    .get_result::<Row>(conn)
    .await
    .optional()?
    .map(TryInto::try_into)
    .transpose()
}

#[derive(QueryableByName)]
struct Total {
    #[diesel(sql_type = BigInt)]
    total: i64,
}

/// A page of the partner's webhooks, newest first; `page` counts from 1, and one beyond the last is empty.
///
/// # Errors
/// Those of any query.
pub async fn list(
    conn: &mut AsyncPgConnection,
    partner: PartnerId,
    page: u64,
    per_page: u32,
) -> Result<Page, StoreError> {
    let offset = page.saturating_sub(1).saturating_mul(per_page.into());
    let rows = sql_query(concat!(
        select_webhooks!(),
        "WHERE w.partner_id = $1 AND w.deleted_at IS NULL ORDER BY w.id DESC LIMIT $2 OFFSET $3"
    ))
    .bind::<BigInt, _>(partner.0)
    .bind::<BigInt, _>(i64::from(per_page))
    .bind::<BigInt, _>(i64::try_from(offset).unwrap_or(i64::MAX))
    .load::<Row>(conn)
    .await?;
    let count: Total = sql_query(
        "SELECT count(*) AS total FROM webhooks WHERE partner_id = $1 AND deleted_at IS NULL",
    )
    .bind::<BigInt, _>(partner.0)
    .get_result(conn)
    .await?;
    Ok(Page {
        webhooks: rows
            .into_iter()
            .map(TryInto::try_into)
            .collect::<Result<_, _>>()?,
        total: u64::try_from(count.total).unwrap_or(0),
    })
}
