//! Switching a webhook off because of what its receiver did: gone, or failing for days.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Double, Integer, Text, Timestamptz};
use diesel::{OptionalExtension as _, QueryableByName, sql_query};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use domain::id::{PartnerId, WebhookId};
use domain::webhook::DisabledReason;

use super::change::{self, Before, Change, ChangeKind, snapshot};
use crate::error::StoreError;

/// Disables a webhook if it is active and still has the version that was used for sending, and says whether it did.
/// What is pending is cancelled.
///
/// # Errors
/// Those of any query.
pub async fn disable(
    conn: &mut AsyncPgConnection,
    id: WebhookId,
    version: i32,
    reason: DisabledReason,
    actor: &str,
) -> Result<bool, StoreError> {
    conn.transaction(async |conn| {
        let locked: Option<Before> = sql_query(concat!(
            "SELECT ",
            snapshot!(),
            "::text AS before
             FROM webhooks w
             WHERE w.id = $1 AND w.version = $2 AND w.active AND w.deleted_at IS NULL
             FOR UPDATE"
        ))
        .bind::<BigInt, _>(id.0)
        .bind::<Integer, _>(version)
        .get_result(conn)
        .await
        .optional()?;
        let Some(Before { before }) = locked else {
            return Ok(false);
        };
        let change: Change = sql_query(concat!(
            "UPDATE webhooks AS w
             SET active = false, version = w.version + 1, deactivated_version = w.version + 1,
                 disabled_reason = $2, disabled_at = now(), updated_at = now()
             WHERE w.id = $1
             RETURNING w.id AS webhook_id, w.partner_id, w.version, $3 AS before, ",
            snapshot!(),
            "::text AS after"
        ))
        .bind::<BigInt, _>(id.0)
        .bind::<Text, _>(reason.as_str())
        .bind::<Text, _>(before)
        .get_result(conn)
        .await?;
        change::record(conn, ChangeKind::Disabled, &[change], actor).await?;
        Ok(true)
    })
    .await
}

/// An active webhook at which nothing but failures happened for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    pub id: WebhookId,
    pub partner_id: PartnerId,
    /// To be given to [`disable`].
    pub version: i32,
    pub failing_since: DateTime<Utc>,
    pub failure_count: i32,
}

#[derive(QueryableByName)]
struct FailingRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    partner_id: i64,
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = Timestamptz)]
    failing_since: DateTime<Utc>,
    #[diesel(sql_type = Integer)]
    failure_count: i32,
}

/// Up to `limit` webhooks whose failed attempts since the last success are `at_least` many and span `lasting` or
/// longer, the worst first. Time in which nothing was tried after the last failure does not count, nor do the days before
/// the end of the partner's last suspension; the failures before it do.
///
/// # Errors
/// Those of any query.
pub async fn failing(
    conn: &mut AsyncPgConnection,
    lasting: Duration,
    at_least: u32,
    limit: u32,
) -> Result<Vec<Failing>, StoreError> {
    let rows: Vec<FailingRow> = sql_query(
        "SELECT w.id, w.partner_id, w.version, h.failing_since, h.failure_count
         FROM webhook_health h
         JOIN webhooks w ON w.id = h.webhook_id
         JOIN partners p ON p.id = w.partner_id
         WHERE h.failing_since <= now() - make_interval(secs => $1)
           AND h.last_triggered_at - greatest(h.failing_since, p.resumed_at) >= make_interval(secs => $1)
           AND h.failure_count >= $2
           AND w.active AND w.deleted_at IS NULL AND p.suspended_at IS NULL
         ORDER BY h.failing_since
         LIMIT $3",
    )
    .bind::<Double, _>(lasting.as_secs_f64())
    .bind::<Integer, _>(i32::try_from(at_least).unwrap_or(i32::MAX))
    .bind::<BigInt, _>(i64::from(limit))
    .load(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Failing {
            id: WebhookId(row.id),
            partner_id: PartnerId(row.partner_id),
            version: row.version,
            failing_since: row.failing_since,
            failure_count: row.failure_count,
        })
        .collect())
}
