//! Requests of each partner, and of each address without a valid key, in a window of 60 s that the first one opens.
//!
//! Writes `rate_limits`, which is unlogged. The management API calls it for every request, so that all of its
//! processes share one count.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Double, Integer, Text, Timestamptz};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::id::PartnerId;

use crate::error::StoreError;
use crate::prepared::Prepare as _;

/// The subject of a partner's requests.
#[must_use]
pub fn partner_subject(partner: PartnerId) -> String {
    format!("partner:{partner}")
}

/// A request that was counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    pub limit: u32,
    /// Requests that the window has left after this one.
    pub remaining: u32,
    /// Whether this one is within the limit.
    pub allowed: bool,
    /// When the window ends, by the database's clock.
    pub reset_at: DateTime<Utc>,
    /// How long until then, at least 1 s.
    pub reset_in: Duration,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Integer)]
    requests: i32,
    #[diesel(sql_type = Timestamptz)]
    reset_at: DateTime<Utc>,
    #[diesel(sql_type = Double)]
    reset_in_s: f64,
}

/// Counts a request of `subject`.
///
/// # Errors
/// Those of any query.
pub async fn hit(
    conn: &mut AsyncPgConnection,
    subject: &str,
    limit: u32,
) -> Result<Hit, StoreError> {
    // Beyond the limit counting stops, so that the number can't grow without end.
    let row: Row = sql_query(
        "INSERT INTO rate_limits AS r (subject, window_started_at, requests)
         VALUES ($1, clock_timestamp(), 1)
         ON CONFLICT (subject) DO UPDATE SET
             requests = CASE
                 WHEN r.window_started_at <= excluded.window_started_at - interval '60 s' THEN 1
                 ELSE least(r.requests, $2) + 1 END,
             window_started_at = CASE
                 WHEN r.window_started_at <= excluded.window_started_at - interval '60 s'
                 THEN excluded.window_started_at
                 ELSE r.window_started_at END
         RETURNING requests,
             window_started_at + interval '60 s' AS reset_at,
             extract(epoch FROM window_started_at + interval '60 s' - clock_timestamp())::double precision
                 AS reset_in_s",
    )
    .bind::<Text, _>(subject)
    .bind::<Integer, _>(i32::try_from(limit).unwrap_or(i32::MAX - 1))
    .prepared().get_result(conn)
    .await?;
    let requests = u32::try_from(row.requests).unwrap_or(0);
    Ok(Hit {
        limit,
        remaining: limit.saturating_sub(requests),
        allowed: requests <= limit,
        reset_at: row.reset_at,
        reset_in: Duration::try_from_secs_f64(row.reset_in_s)
            .unwrap_or_default()
            .max(Duration::from_secs(1)),
    })
}

/// Deletes up to `limit` windows that are over, and returns how many it were.
///
/// # Errors
/// Those of any query.
pub async fn trim(conn: &mut AsyncPgConnection, limit: u32) -> Result<usize, StoreError> {
    let trimmed = sql_query(
        "DELETE FROM rate_limits
         WHERE subject IN (
             SELECT subject FROM rate_limits
             WHERE window_started_at < now() - interval '2 minutes'
             LIMIT $1
             FOR UPDATE SKIP LOCKED
         )",
    )
    .bind::<BigInt, _>(i64::from(limit))
    .execute(conn)
    .await?;
    Ok(trimmed)
}
