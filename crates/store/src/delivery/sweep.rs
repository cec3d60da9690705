//! Finds deliveries that are overdue because their announcement was lost, or whoever had them is gone.
//!
//! Writes `announce_again_at` and `announcements`. Any number of retry services may sweep at once: rows that another one
//! holds are skipped.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::id::{DeliveryId, PartnerId, WebhookId};
use uuid::Uuid;

use crate::StoreError;
use crate::prepared::Prepare as _;
use crate::record::Trace;

/// A delivery to be announced again.
#[derive(Clone, Debug)]
pub struct Overdue {
    pub delivery_id: DeliveryId,
    pub webhook_id: WebhookId,
    pub partner_id: PartnerId,
    pub turn: i32,
    pub next_attempt_at: DateTime<Utc>,
    pub attempts: i32,
    pub parkings: i32,
    /// How often it was announced by a sweep since its last attempt, this time included.
    pub announcements: i32,
    pub trace: Trace,
}

#[derive(QueryableByName)]
struct OverdueRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = BigInt)]
    webhook_id: i64,
    #[diesel(sql_type = BigInt)]
    partner_id: i64,
    #[diesel(sql_type = Integer)]
    turn: i32,
    #[diesel(sql_type = Timestamptz)]
    next_attempt_at: DateTime<Utc>,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Integer)]
    parkings: i32,
    #[diesel(sql_type = Integer)]
    announcements: i32,
    #[diesel(sql_type = Nullable<Text>)]
    traceparent: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    tracestate: Option<String>,
}

/// Stamps and returns up to `limit` deliveries overdue by more than `overdue`, the oldest first. One that was
/// announced before comes again after `overdue`, then twice that, and so on up to an hour; it is overdue from then.
///
/// # Errors
/// When Postgres fails.
pub async fn sweep(
    connection: &mut AsyncPgConnection,
    overdue: Duration,
    limit: i64,
) -> Result<Vec<Overdue>, StoreError> {
    let rows: Vec<OverdueRow> = sql_query(
        "UPDATE deliveries AS d SET announcements = d.announcements + 1, \
             announce_again_at = now() - make_interval(secs => $1) \
                 + least(make_interval(secs => $1 * power(2, least(d.announcements, 20))), interval '1 hour') \
         FROM (SELECT id FROM deliveries \
               WHERE next_attempt_at IS NOT NULL \
                 AND coalesce(announce_again_at, next_attempt_at) < now() - make_interval(secs => $1) \
               ORDER BY coalesce(announce_again_at, next_attempt_at) LIMIT $2 FOR UPDATE SKIP LOCKED) AS o \
         WHERE d.id = o.id \
         RETURNING d.id, d.webhook_id, d.partner_id, d.turn, d.next_attempt_at, d.attempts, d.parkings, d.announcements, \
             d.traceparent, d.tracestate",
    )
    .bind::<Double, _>(overdue.as_secs_f64())
    .bind::<BigInt, _>(limit)
    .prepared().load(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Overdue {
            delivery_id: DeliveryId(row.id),
            webhook_id: WebhookId(row.webhook_id),
            partner_id: PartnerId(row.partner_id),
            turn: row.turn,
            next_attempt_at: row.next_attempt_at,
            attempts: row.attempts,
            parkings: row.parkings,
            announcements: row.announcements,
            trace: Trace {
                traceparent: row.traceparent,
                tracestate: row.tracestate,
            },
        })
        .collect())
}

#[derive(QueryableByName)]
struct OldestRow {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    oldest: Option<DateTime<Utc>>,
}

/// The time at which the most overdue delivery should have been tried; `None` when nothing is overdue. It looks at all
/// that wait: 400,000 take 0.1 s.
///
/// # Errors
/// When Postgres fails.
pub async fn oldest_waiting(
    connection: &mut AsyncPgConnection,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    let row: OldestRow = sql_query(
        "SELECT min(next_attempt_at) AS oldest FROM deliveries WHERE next_attempt_at < clock_timestamp()",
    )
    .get_result(connection)
    .await?;
    Ok(row.oldest)
}
