//! What happened at each webhook lately: the figures that its partner sees.
//!
//! Written at the end of [`crate::record`]: the rows are locked in the order of their ids (in the order of arrival four
//! writers deadlock), folded here, and written back.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::id::WebhookId;

use crate::StoreError;
use crate::prepared::Prepare as _;

/// One attempt's result.
#[derive(Clone, Copy, Debug)]
pub struct AttemptResult {
    pub webhook_id: WebhookId,
    pub sent_version: i32,
    pub started_at: DateTime<Utc>,
    pub delivered: bool,
    pub response_code: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub(crate) struct Health {
    #[diesel(sql_type = BigInt)]
    webhook_id: i64,
    #[diesel(sql_type = Integer)]
    since_version: i32,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    last_triggered_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Integer>)]
    last_response_code: Option<i32>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    last_success_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Integer)]
    failure_count: i32,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    failing_since: Option<DateTime<Utc>>,
}

impl Health {
    /// An older result never overwrites a newer one, in whatever order they arrive.
    fn apply(&mut self, result: &AttemptResult) {
        if result.sent_version < self.since_version {
            return;
        }
        let at = result.started_at;
        if result.delivered {
            self.apply_success(at);
        } else if self.last_success_at.is_none_or(|success| success < at) {
            self.failure_count = self.failure_count.saturating_add(1);
            self.failing_since = Some(self.failing_since.map_or(at, |since| since.min(at)));
        }
        if self.last_triggered_at.is_none_or(|last| last <= at) {
            self.last_triggered_at = Some(at);
            self.last_response_code = result.response_code;
        }
    }

    fn apply_success(&mut self, at: DateTime<Utc>) {
        if self.last_success_at.is_some_and(|success| success >= at) {
            return;
        }
        self.last_success_at = Some(at);
        match self.last_triggered_at {
            // All failures known are newer than this success.
            _ if self.failing_since.is_some_and(|since| since > at) => {}
            // Only the newest attempt is known to be newer, and it failed.
            Some(last) if last > at && self.failure_count > 0 => {
                self.failure_count = 1;
                self.failing_since = Some(last);
            }
            _ => {
                self.failure_count = 0;
                self.failing_since = None;
            }
        }
    }
}

/// Locks the rows of these webhooks, in the order of their ids.
///
/// # Errors
/// When Postgres fails.
pub(crate) async fn lock(
    mut connection: &AsyncPgConnection,
    webhooks: &BTreeSet<i64>,
) -> Result<Vec<Health>, StoreError> {
    if webhooks.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sql_query(
        "SELECT webhook_id, since_version, last_triggered_at, last_response_code, last_success_at, failure_count, \
                failing_since \
         FROM webhook_health WHERE webhook_id = ANY((SELECT $1)::bigint[]) ORDER BY webhook_id FOR UPDATE",
    )
    .bind::<Array<BigInt>, _>(webhooks.iter().copied().collect::<Vec<_>>())
    .prepared()
    .load(&mut connection)
    .await?;
    Ok(rows)
}

/// Folds results into locked rows, in their order, and returns the rows that changed.
pub(crate) fn fold(rows: &[Health], results: &[AttemptResult]) -> Vec<Health> {
    let places = rows.iter().enumerate().map(|(i, row)| (row.webhook_id, i));
    let places: HashMap<i64, usize> = places.collect();
    let mut folded = rows.to_vec();
    for result in results {
        let place = places.get(&result.webhook_id.0);
        if let Some(row) = place.and_then(|&place| folded.get_mut(place)) {
            row.apply(result);
        }
    }
    let changed = folded
        .into_iter()
        .zip(rows)
        .filter(|(new, old)| new != *old);
    changed.map(|(new, _)| new).collect()
}

/// Writes locked rows back.
///
/// # Errors
/// When Postgres fails.
pub(crate) async fn write(
    mut connection: &AsyncPgConnection,
    rows: &[Health],
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    // The rows are there. An upsert has but one plan, where an update that joins them would be planned each time.
    sql_query(
        "INSERT INTO webhook_health AS h (webhook_id, since_version, last_triggered_at, last_response_code, \
                last_success_at, failure_count, failing_since) \
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (webhook_id) DO UPDATE SET last_triggered_at = excluded.last_triggered_at, \
                last_response_code = excluded.last_response_code, last_success_at = excluded.last_success_at, \
                failure_count = excluded.failure_count, failing_since = excluded.failing_since",
    )
    .bind::<Array<BigInt>, _>(column(rows, |r| r.webhook_id))
    .bind::<Array<Integer>, _>(column(rows, |r| r.since_version))
    .bind::<Array<Nullable<Timestamptz>>, _>(column(rows, |r| r.last_triggered_at))
    .bind::<Array<Nullable<Integer>>, _>(column(rows, |r| r.last_response_code))
    .bind::<Array<Nullable<Timestamptz>>, _>(column(rows, |r| r.last_success_at))
    .bind::<Array<Integer>, _>(column(rows, |r| r.failure_count))
    .bind::<Array<Nullable<Timestamptz>>, _>(column(rows, |r| r.failing_since))
    .prepared()
    .execute(&mut connection)
    .await?;
    Ok(())
}

fn column<T>(rows: &[Health], value: impl Fn(&Health) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// A breaker's state as one dispatcher sees it.
#[derive(Clone, Debug)]
pub struct BreakerRow {
    pub webhook_id: WebhookId,
    /// `open` or `half_open`; `None` when it closed.
    pub state: Option<&'static str>,
    pub reason: String,
    pub until: DateTime<Utc>,
}

/// Writes a breaker's change; a closed breaker has no row.
///
/// # Errors
/// When Postgres fails.
pub async fn write_breaker(
    connection: &mut AsyncPgConnection,
    instance: &str,
    row: &BreakerRow,
) -> Result<(), StoreError> {
    let Some(state) = row.state else {
        sql_query("DELETE FROM webhook_breakers WHERE webhook_id = $1 AND instance = $2")
            .bind::<BigInt, _>(row.webhook_id.0)
            .bind::<Text, _>(instance)
            .execute(connection)
            .await?;
        return Ok(());
    };
    sql_query(
        "INSERT INTO webhook_breakers (webhook_id, instance, state, reason, until) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (webhook_id, instance) DO UPDATE \
         SET state = excluded.state, reason = excluded.reason, until = excluded.until, updated_at = now()",
    )
    .bind::<BigInt, _>(row.webhook_id.0)
    .bind::<Text, _>(instance)
    .bind::<Text, _>(state)
    .bind::<Text, _>(&row.reason)
    .bind::<Timestamptz, _>(row.until)
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets the breakers of dispatchers that are no more.
///
/// # Errors
/// When Postgres fails.
pub async fn trim_breakers(connection: &mut AsyncPgConnection) -> Result<usize, StoreError> {
    let trimmed = sql_query(
        "DELETE FROM webhook_breakers AS b WHERE b.updated_at < now() - interval '1 hour' \
         AND NOT EXISTS (SELECT 1 FROM service_instances AS s WHERE s.instance = b.instance \
                         AND s.heartbeat_at > now() - interval '1 minute')",
    )
    .execute(connection)
    .await?;
    Ok(trimmed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn fresh() -> Health {
        Health {
            webhook_id: 1,
            since_version: 2,
            last_triggered_at: None,
            last_response_code: None,
            last_success_at: None,
            failure_count: 0,
            failing_since: None,
        }
    }

    fn result(second: i64, code: i32) -> AttemptResult {
        AttemptResult {
            webhook_id: WebhookId(1),
            sent_version: 2,
            started_at: at(second),
            delivered: code == 200,
            response_code: Some(code),
        }
    }

    fn fold(results: &[(i64, i32)]) -> Health {
        results.iter().fold(fresh(), |mut health, &(second, code)| {
            health.apply(&result(second, code));
            health
        })
    }

    #[test]
    fn failures_in_a_row_are_counted_and_a_success_ends_the_count() {
        let failing = fold(&[(1, 200), (2, 500), (3, 503)]);
        assert_eq!(
            (failing.failure_count, failing.failing_since),
            (2, Some(at(2)))
        );
        assert_eq!(
            (failing.last_triggered_at, failing.last_response_code),
            (Some(at(3)), Some(503))
        );
        let healed = fold(&[(1, 200), (2, 500), (3, 503), (4, 200)]);
        assert_eq!(
            (
                healed.failure_count,
                healed.failing_since,
                healed.last_success_at
            ),
            (0, None, Some(at(4)))
        );
    }

    #[test]
    fn an_older_result_never_overwrites_a_newer_one() {
        let late_failure = fold(&[(5, 200), (3, 500)]);
        assert_eq!(
            (late_failure.failure_count, late_failure.last_response_code),
            (0, Some(200))
        );
        let late_success = fold(&[(5, 500), (3, 200)]);
        assert_eq!(
            (late_success.failure_count, late_success.last_response_code),
            (1, Some(500))
        );
        let in_between = fold(&[(1, 500), (2, 500), (5, 500), (4, 200)]);
        assert_eq!(
            (in_between.failure_count, in_between.failing_since),
            (1, Some(at(5)))
        );
    }

    #[test]
    fn results_of_an_older_version_do_not_count() {
        let mut health = fresh();
        health.apply(&AttemptResult {
            sent_version: 1,
            ..result(1, 500)
        });
        assert_eq!(health, fresh());
    }
}
