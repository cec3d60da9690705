//! A new webhook, within its partner's plan.

use diesel::sql_types::{Array, BigInt, Binary, Bool, Nullable, Text};
use diesel::{OptionalExtension as _, QueryableByName, sql_query};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use domain::event::EventType;
use domain::id::{PartnerId, WebhookId};
use domain::secret::Secret;
use domain::webhook::Description;
use domain::webhook_url::WebhookUrl;

use super::change::{self, Change, ChangeKind, snapshot};
use super::{Webhook, get};
use crate::error::StoreError;
use crate::keyring::Keyring;
use crate::partner::read_plan;

/// What a partner asked for, checked.
#[derive(Clone, Copy, Debug)]
pub struct NewWebhook<'a> {
    pub partner_id: PartnerId,
    pub url: &'a WebhookUrl,
    pub events: &'a [EventType],
    pub description: Option<&'a Description>,
    pub active: bool,
    pub secret: &'a Secret,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    Created(Box<Webhook>),
    /// The partner has as many as its plan allows.
    LimitReached {
        webhooks_max: u32,
    },
    /// The partner is suspended, or there is none.
    Forbidden,
}

#[derive(QueryableByName)]
struct PartnerRow {
    #[diesel(sql_type = Text)]
    plan: String,
    #[diesel(sql_type = Bool)]
    suspended: bool,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Makes a webhook. The partner's row is locked until the transaction ends, so that requests at the same time can't
/// pass the plan's limit together.
///
/// # Errors
/// Those of any query, and [`StoreError::Unavailable`] when the secret can't be sealed.
pub async fn create(
    conn: &mut AsyncPgConnection,
    keyring: &Keyring,
    new: &NewWebhook<'_>,
    actor: &str,
) -> Result<Creation, StoreError> {
    let sealed = keyring.seal_secret(new.partner_id, new.secret)?;
    conn.transaction(async |conn| {
        let Some(partner) = lock_partner(conn, new.partner_id).await? else {
            return Ok(Creation::Forbidden);
        };
        if partner.suspended {
            return Ok(Creation::Forbidden);
        }
        let webhooks_max = read_plan(new.partner_id.0, &partner.plan)?.webhooks_max();
        if count(conn, new.partner_id).await? >= i64::from(webhooks_max) {
            return Ok(Creation::LimitReached { webhooks_max });
        }
        let change = insert(conn, new, &sealed.bytes, &sealed.key_id).await?;
        let id = WebhookId(change.webhook_id);
        change::record(conn, ChangeKind::Created, &[change], actor).await?;
        sql_query("INSERT INTO webhook_health (webhook_id) VALUES ($1)")
            .bind::<BigInt, _>(id.0)
            .execute(conn)
            .await?;
        let created = get(conn, new.partner_id, id).await?;
        let created = created.ok_or(diesel::result::Error::NotFound)?;
        Ok(Creation::Created(Box::new(created)))
    })
    .await
}

async fn lock_partner(
    conn: &mut AsyncPgConnection,
    id: PartnerId,
) -> Result<Option<PartnerRow>, StoreError> {
    let row = sql_query(
        "SELECT plan, suspended_at IS NOT NULL AS suspended FROM partners WHERE id = $1 FOR UPDATE",
    )
    .bind::<BigInt, _>(id.0)
    .get_result(conn)
    .await
    .optional()?;
    Ok(row)
}

/// Deactivated webhooks count, deleted ones don't.
async fn count(conn: &mut AsyncPgConnection, partner: PartnerId) -> Result<i64, StoreError> {
    let row: Count = sql_query(
        "SELECT count(*) AS count FROM webhooks WHERE partner_id = $1 AND deleted_at IS NULL",
    )
    .bind::<BigInt, _>(partner.0)
    .get_result(conn)
    .await?;
    Ok(row.count)
}

async fn insert(
    conn: &mut AsyncPgConnection,
    new: &NewWebhook<'_>,
    secret: &[u8],
    sealing_key_id: &str,
) -> Result<Change, StoreError> {
    let events: Vec<_> = new.events.iter().map(EventType::as_str).collect();
    let change = sql_query(concat!(
        "INSERT INTO webhooks AS w (partner_id, url, events, description, active, secret, sealing_key_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         RETURNING w.id AS webhook_id, w.partner_id, w.version, NULL::text AS before, ",
        snapshot!(),
        "::text AS after"
    ))
    .bind::<BigInt, _>(new.partner_id.0)
    .bind::<Text, _>(new.url.as_str())
    .bind::<Array<Text>, _>(events)
    .bind::<Nullable<Text>, _>(new.description.map(Description::as_str))
    .bind::<Bool, _>(new.active)
    .bind::<Binary, _>(secret)
    .bind::<Text, _>(sealing_key_id)
    .get_result(conn)
    .await?;
    Ok(change)
}
