//! Forgets claims that no copy of their event will ask for any more. The retry service calls it.

use diesel::sql_query;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use crate::StoreError;

/// Forgets claims of events that were recorded more than 24 h ago, and claims that nobody recorded in 7 days.
/// Returns how many were trimmed, at most `limit`.
///
/// # Errors
/// When Postgres fails.
pub async fn trim(connection: &mut AsyncPgConnection, limit: i64) -> Result<usize, StoreError> {
    let trimmed = sql_query(
        "DELETE FROM claims WHERE ctid IN ( \
             SELECT ctid FROM claims \
             WHERE claimed_at < now() - interval '24 hours' \
               AND (recorded_at < now() - interval '24 hours' \
                    OR (recorded_at IS NULL AND claimed_at < now() - interval '7 days')) \
             LIMIT $1 FOR UPDATE SKIP LOCKED)",
    )
    .bind::<BigInt, _>(limit)
    .execute(connection)
    .await?;
    Ok(trimmed)
}
