//! Deliveries and their attempts as people read them.
//!
//! Reads `deliveries`, `attempts`, `webhooks` and `partners`. What its partner switched off reads as cancelled at
//! once, even while the row waits for its turn to be written so.

use chrono::{DateTime, Utc};
use diesel::sql_types::{
    BigInt, Binary, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel::{OptionalExtension as _, QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::delivery::DeliveryStatus;
use domain::id::{DeliveryId, EventKey, WebhookId};
use uuid::Uuid;

use crate::StoreError;

/// Which deliveries to list, newest first. What is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    pub webhook_id: Option<WebhookId>,
    pub event_id: Option<String>,
    pub partner_id: Option<i64>,
    pub status: Option<DeliveryStatus>,
    pub limit: i64,
}

/// A delivery, with its last attempt.
#[derive(Clone, Debug, QueryableByName)]
pub struct DeliveryView {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = Text)]
    pub event_id: String,
    #[diesel(sql_type = Text)]
    pub event_type: String,
    #[diesel(sql_type = BigInt)]
    pub partner_id: i64,
    #[diesel(sql_type = BigInt)]
    pub webhook_id: i64,
    #[diesel(sql_type = Integer)]
    pub webhook_version: i32,
    /// The webhook as it is now: `active`, `deleted`, `disabled` by its partner, by us because it is `gone` or `failing`,
    /// or `suspended` with its partner.
    #[diesel(sql_type = Text)]
    pub webhook_state: String,
    #[diesel(sql_type = Text)]
    pub status: String,
    #[diesel(sql_type = Integer)]
    pub turn: i32,
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
    #[diesel(sql_type = Integer)]
    pub parkings: i32,
    #[diesel(sql_type = Nullable<Text>)]
    pub park_reason: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub next_attempt_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Timestamptz)]
    pub expires_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub origin: Option<Uuid>,
    #[diesel(sql_type = Nullable<Text>)]
    pub traceparent: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub finished_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub response_code: Option<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    pub error_kind: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub error: Option<String>,
}

/// One attempt as it was recorded. Times in microseconds; bytes as the receiver sent them, cut to what is kept.
#[derive(Clone, Debug, QueryableByName)]
pub struct AttemptView {
    #[diesel(sql_type = Integer)]
    pub number: i32,
    #[diesel(sql_type = Timestamptz)]
    pub started_at: DateTime<Utc>,
    #[diesel(sql_type = Integer)]
    pub sent_version: i32,
    #[diesel(sql_type = Nullable<Integer>)]
    pub response_code: Option<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    pub error_kind: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub error: Option<String>,
    #[diesel(sql_type = Nullable<Binary>)]
    pub response_headers: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    pub response_body: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub dns_us: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub connect_us: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub tls_us: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub first_byte_us: Option<i64>,
    #[diesel(sql_type = BigInt)]
    pub total_us: i64,
    #[diesel(sql_type = Bool)]
    pub reused_connection: bool,
}

/// All columns of a view, with the status as it reads now.
const VIEW: &str = "SELECT * FROM (SELECT d.id, d.event_key, d.event_id, d.event_type, d.partner_id, d.webhook_id, \
    d.webhook_version, d.turn, d.attempts, d.parkings, d.park_reason, d.expires_at, d.origin, d.traceparent, \
    d.created_at, d.finished_at, d.response_code, d.error_kind, d.error, \
    CASE WHEN w.deleted_at IS NOT NULL THEN 'deleted' WHEN NOT w.active THEN coalesce(w.disabled_reason, 'disabled') \
        WHEN p.suspended_at IS NOT NULL THEN 'suspended' ELSE 'active' END AS webhook_state, \
    CASE WHEN c.cancelled THEN 'cancelled' ELSE d.status END AS status, \
    CASE WHEN NOT c.cancelled THEN d.next_attempt_at END AS next_attempt_at \
    FROM deliveries AS d JOIN webhooks AS w ON w.id = d.webhook_id JOIN partners AS p ON p.id = d.partner_id, \
    LATERAL (SELECT d.status IN ('pending', 'in_flight') AND (NOT w.active OR w.deleted_at IS NOT NULL \
        OR p.suspended_at IS NOT NULL OR d.webhook_version < w.deactivated_version) AS cancelled) AS c) AS v";

/// Lists deliveries, newest first.
///
/// # Errors
/// When Postgres fails.
pub async fn list(
    connection: &mut AsyncPgConnection,
    filter: &DeliveryFilter,
) -> Result<Vec<DeliveryView>, StoreError> {
    let rows = sql_query(format!(
        "{VIEW} WHERE ($1 IS NULL OR webhook_id = $1) AND ($2 IS NULL OR event_id = $2) \
         AND ($3 IS NULL OR partner_id = $3) AND ($4 IS NULL OR status = $4) ORDER BY id DESC LIMIT $5"
    ))
    .bind::<Nullable<BigInt>, _>(filter.webhook_id.map(|id| id.0))
    .bind::<Nullable<Text>, _>(filter.event_id.as_deref())
    .bind::<Nullable<BigInt>, _>(filter.partner_id)
    .bind::<Nullable<Text>, _>(filter.status.map(DeliveryStatus::as_str))
    .bind::<BigInt, _>(filter.limit)
    .load(connection)
    .await?;
    Ok(rows)
}

/// One delivery.
///
/// # Errors
/// When Postgres fails.
pub async fn find(
    connection: &mut AsyncPgConnection,
    id: DeliveryId,
) -> Result<Option<DeliveryView>, StoreError> {
    let row = sql_query(format!("{VIEW} WHERE id = $1"))
        .bind::<SqlUuid, _>(id.0)
        .get_result(connection)
        .await
        .optional()?;
    Ok(row)
}

/// Its attempts in order. The only attempt of a delivery that succeeded at once stands on the delivery itself.
///
/// # Errors
/// When Postgres fails.
pub async fn attempts(
    connection: &mut AsyncPgConnection,
    id: DeliveryId,
) -> Result<Vec<AttemptView>, StoreError> {
    let rows = sql_query(
        "SELECT number, started_at, sent_version, response_code, error_kind, error, response_headers, \
             response_body, dns_us, connect_us, tls_us, first_byte_us, total_us, reused_connection \
         FROM attempts WHERE delivery_id = $1 \
         UNION ALL \
         SELECT 1, started_at, sent_version, response_code, error_kind, error, response_headers, response_body, \
             dns_us, connect_us, tls_us, first_byte_us, total_us, reused_connection \
         FROM deliveries WHERE id = $1 AND attempts = 1 AND started_at IS NOT NULL AND error_kind IS NULL \
         ORDER BY number",
    )
    .bind::<SqlUuid, _>(id.0)
    .load(connection)
    .await?;
    Ok(rows)
}

/// All deliveries of one event but those that repeat others, by webhook. They lie in the millisecond of its key.
///
/// # Errors
/// When Postgres fails.
pub async fn of_event(
    connection: &mut AsyncPgConnection,
    event: EventKey,
) -> Result<Vec<DeliveryView>, StoreError> {
    const MILLISECOND: u128 = 1 << 80;
    let first = event.0.as_u128() / MILLISECOND * MILLISECOND;
    let rows = sql_query(format!(
        "{VIEW} WHERE id >= $1 AND id < $2 AND event_key = $3 AND origin IS NULL ORDER BY webhook_id"
    ))
    .bind::<SqlUuid, _>(Uuid::from_u128(first))
    .bind::<SqlUuid, _>(Uuid::from_u128(first.saturating_add(MILLISECOND)))
    .bind::<SqlUuid, _>(event.0)
    .load(connection)
    .await?;
    Ok(rows)
}
