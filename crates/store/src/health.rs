//! What happened at each webhook lately: the figures that its partner sees.
//!
//! Written at the end of [`crate::record`]: a batch's results are folded here, a row a webhook, and merged with what is
//! stored by one upsert, which takes its rows in the order of their ids (in the order of arrival four writers deadlock).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::id::WebhookId;
use domain::webhook::HealthVersion;

use crate::StoreError;
use crate::prepared::Prepare as _;

/// One attempt's result.
#[derive(Clone, Copy, Debug)]
pub struct AttemptResult {
    pub webhook_id: WebhookId,
    /// [`domain::webhook::Subscription::health_version`] when it was sent.
    pub health_version: HealthVersion,
    pub started_at: DateTime<Utc>,
    pub delivered: bool,
    pub response_code: Option<i32>,
}

/// What a batch knows of one webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    webhook_id: i64,
    /// The version since which results count.
    since_version: HealthVersion,
    last_triggered_at: DateTime<Utc>,
    last_response_code: Option<i32>,
    last_success_at: Option<DateTime<Utc>>,
    /// Failed attempts since the last success.
    failure_count: i32,
    failing_since: Option<DateTime<Utc>>,
}

impl Health {
    fn new(first: &AttemptResult) -> Self {
        let at = first.started_at;
        Self {
            webhook_id: first.webhook_id.0,
            since_version: first.health_version,
            last_triggered_at: at,
            last_response_code: first.response_code,
            last_success_at: first.delivered.then_some(at),
            failure_count: i32::from(!first.delivered),
            failing_since: (!first.delivered).then_some(at),
        }
    }

    /// A result that is not older than those before it.
    fn apply(&mut self, result: &AttemptResult) {
        let at = result.started_at;
        (self.last_triggered_at, self.last_response_code) = (at, result.response_code);
        if result.delivered {
            self.last_success_at = Some(at);
            self.failure_count = 0;
            self.failing_since = None;
        } else {
            self.failure_count = self.failure_count.saturating_add(1);
            self.failing_since = self.failing_since.or(Some(at));
        }
    }
}

/// Folds results, in whatever order they come, into one row a webhook, in the order of their ids. What was sent before
/// its health began anew does not count beside what was sent since.
pub(crate) fn fold(mut results: Vec<AttemptResult>) -> Vec<Health> {
    results.sort_by_key(|result| (result.started_at, result.delivered));
    let mut folded = BTreeMap::<i64, Health>::new();
    for result in &results {
        folded
            .entry(result.webhook_id.0)
            .and_modify(
                |health| match result.health_version.cmp(&health.since_version) {
                    Ordering::Less => {}
                    Ordering::Equal => health.apply(result),
                    Ordering::Greater => *health = Health::new(result),
                },
            )
            .or_insert_with(|| Health::new(result));
    }
    folded.into_values().collect()
}

/// Merges what a batch knows with what is stored: an older result never overwrites a newer one, in whatever order
/// they arrive, and what was sent before a webhook's health began anew does not count. A webhook's row is made when the
/// webhook is, so that this only ever changes rows. They are locked in the order in which they are given.
///
/// # Errors
/// When Postgres fails.
pub(crate) async fn merge(
    mut connection: &AsyncPgConnection,
    rows: &[Health],
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let (stored_count, stored_since) = failures_after_success("h", "excluded");
    let (new_count, new_since) = failures_after_success("excluded", "h");
    sql_query(format!(
        "INSERT INTO webhook_health AS h (webhook_id, since_version, last_triggered_at, last_response_code, \
                last_success_at, failure_count, failing_since) \
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (webhook_id) DO UPDATE SET \
                last_triggered_at = greatest(h.last_triggered_at, excluded.last_triggered_at), \
                last_response_code = CASE WHEN h.last_triggered_at > excluded.last_triggered_at \
                     THEN h.last_response_code ELSE excluded.last_response_code END, \
                last_success_at = greatest(h.last_success_at, excluded.last_success_at), \
                failure_count = least(2147483647, {stored_count}::bigint + {new_count}), \
                failing_since = least({stored_since}, {new_since}) \
         WHERE h.since_version <= excluded.since_version",
    ))
    .bind::<Array<BigInt>, _>(column(rows, |r| r.webhook_id))
    .bind::<Array<Integer>, _>(column(rows, |r| r.since_version.0))
    .bind::<Array<Timestamptz>, _>(column(rows, |r| r.last_triggered_at))
    .bind::<Array<Nullable<Integer>>, _>(column(rows, |r| r.last_response_code))
    .bind::<Array<Nullable<Timestamptz>>, _>(column(rows, |r| r.last_success_at))
    .bind::<Array<Integer>, _>(column(rows, |r| r.failure_count))
    .bind::<Array<Nullable<Timestamptz>>, _>(column(rows, |r| r.failing_since))
    .prepared()
    .execute(&mut connection)
    .await?;
    Ok(())
}

/// How many of the failures in a row that one side counts came after the other side's last success, and when the first
/// of them began, in SQL. A side that knows of a later success itself has counted from there only. Where the success lies
/// among the failures, only the newest is known to be newer.
fn failures_after_success(failures: &str, success: &str) -> (String, String) {
    let all_are_newer = format!(
        "({success}.last_success_at IS NULL OR {success}.last_success_at <= {failures}.last_success_at \
          OR {success}.last_success_at < {failures}.failing_since)"
    );
    let newest_is_newer = format!(
        "({failures}.failure_count > 0 AND {success}.last_success_at < {failures}.last_triggered_at)"
    );
    let count = format!(
        "(CASE WHEN {all_are_newer} THEN {failures}.failure_count WHEN {newest_is_newer} THEN 1 ELSE 0 END)"
    );
    let since = format!(
        "(CASE WHEN {all_are_newer} THEN {failures}.failing_since \
               WHEN {newest_is_newer} THEN {failures}.last_triggered_at END)"
    );
    (count, since)
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

    fn result(webhook_id: i64, second: i64, code: i32) -> AttemptResult {
        AttemptResult {
            webhook_id: WebhookId(webhook_id),
            health_version: HealthVersion(2),
            started_at: at(second),
            delivered: code == 200,
            response_code: Some(code),
        }
    }

    fn folded(results: &[(i64, i32)]) -> Health {
        let results = results
            .iter()
            .map(|&(second, code)| result(1, second, code));
        fold(results.collect()).remove(0)
    }

    #[test]
    fn failures_in_a_row_are_counted_and_a_success_ends_the_count() {
        let failing = folded(&[(1, 200), (2, 500), (3, 503)]);
        assert_eq!(
            (failing.failure_count, failing.failing_since),
            (2, Some(at(2)))
        );
        assert_eq!(
            (failing.last_triggered_at, failing.last_response_code),
            (at(3), Some(503))
        );
        let healed = folded(&[(1, 200), (2, 500), (3, 503), (4, 200)]);
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
    fn the_order_in_which_results_come_does_not_matter() {
        let in_order = folded(&[(1, 500), (2, 200), (3, 500), (4, 500)]);
        assert_eq!(in_order, folded(&[(4, 500), (2, 200), (1, 500), (3, 500)]));
    }

    #[test]
    fn what_was_sent_before_health_began_anew_does_not_count() {
        let older = AttemptResult {
            health_version: HealthVersion(1),
            ..result(1, 9, 500)
        };
        let newer = result(1, 5, 200);
        for results in [vec![older, newer], vec![newer, older]] {
            assert_eq!(fold(results), [Health::new(&newer)]);
        }
    }

    #[test]
    fn each_webhook_has_a_row_and_they_stand_in_the_order_of_their_ids() {
        let rows = fold(vec![
            result(3, 1, 200),
            result(1, 2, 500),
            result(3, 3, 200),
        ]);
        assert_eq!(
            rows.iter().map(|r| r.webhook_id).collect::<Vec<_>>(),
            [1, 3]
        );
    }
}
