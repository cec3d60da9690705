//! Subscription changes on their way to the broker.
//!
//! [`crate::webhook`] and [`crate::partner`] write `outbox` in the transaction of the change. The relay of the management
//! API takes entries under a lease, publishes them outside of any transaction, and deletes what the broker confirmed;
//! what a crash leaves is taken again when its lease is over. An entry may so be published twice, and entries in any
//! order: each carries the version that it tells of.

use std::time::Duration;

use diesel::sql_types::{Array, BigInt, Double, Nullable, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use crate::error::StoreError;
use crate::prepared::Prepare as _;

/// A change to be published.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct Entry {
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    #[diesel(sql_type = Text)]
    pub routing_key: String,
    /// A JSON object: `type`, `partner_id`, `webhook_id`, `version`, `at`.
    #[diesel(sql_type = Text)]
    pub payload: String,
}

/// Takes up to `limit` entries, the oldest first, for as long as `lease`. Several relays share the work.
///
/// # Errors
/// Those of any query.
pub async fn lease(
    conn: &mut AsyncPgConnection,
    limit: u32,
    lease: Duration,
) -> Result<Vec<Entry>, StoreError> {
    let mut entries: Vec<Entry> = sql_query(
        "UPDATE outbox
         SET leased_until = now() + make_interval(secs => $2)
         WHERE id IN (
             SELECT id FROM outbox
             WHERE leased_until IS NULL OR leased_until < now()
             ORDER BY id
             LIMIT $1
             FOR UPDATE SKIP LOCKED
         )
         RETURNING id, routing_key, payload::text AS payload",
    )
    .bind::<BigInt, _>(i64::from(limit))
    .bind::<Double, _>(lease.as_secs_f64())
    .prepared()
    .load(conn)
    .await?;
    entries.sort_by_key(|entry| entry.id);
    Ok(entries)
}

/// Deletes what the broker has confirmed, and returns how many entries that were.
///
/// # Errors
/// Those of any query.
pub async fn confirm(conn: &mut AsyncPgConnection, ids: &[i64]) -> Result<usize, StoreError> {
    let deleted = sql_query("DELETE FROM outbox WHERE id = ANY($1)")
        .bind::<Array<BigInt>, _>(ids)
        .prepared()
        .execute(conn)
        .await?;
    Ok(deleted)
}

/// Gives back what could not be published, for anyone to take at once.
///
/// # Errors
/// Those of any query.
pub async fn release(conn: &mut AsyncPgConnection, ids: &[i64]) -> Result<usize, StoreError> {
    let released = sql_query("UPDATE outbox SET leased_until = NULL WHERE id = ANY($1)")
        .bind::<Array<BigInt>, _>(ids)
        .execute(conn)
        .await?;
    Ok(released)
}

/// How much waits.
#[derive(Clone, Copy, Debug, PartialEq, QueryableByName)]
pub struct Backlog {
    #[diesel(sql_type = BigInt)]
    pub entries: i64,
    /// Age of the oldest entry in seconds.
    #[diesel(sql_type = Nullable<Double>)]
    pub oldest_s: Option<f64>,
}

/// # Errors
/// Those of any query.
pub async fn backlog(conn: &mut AsyncPgConnection) -> Result<Backlog, StoreError> {
    let backlog = sql_query(
        "SELECT count(*) AS entries,
                extract(epoch FROM clock_timestamp() - min(created_at))::double precision AS oldest_s
         FROM outbox",
    )
    .get_result(conn)
    .await?;
    Ok(backlog)
}
