//! Writes the end of attempts whose deliveries have rows: first ones that took long, and all later ones.

use diesel::sql_query;
use diesel::sql_types::{
    Array, BigInt, Binary, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::EndedAttempt;
use super::attempt_columns::{AttemptColumns, attempt_columns, bind_attempts};
use super::scheduled_row::{ScheduledRow, scheduled_columns};
use crate::StoreError;
use crate::prepared::Prepare as _;

/// Changes only deliveries that are in flight under the turn given. One that would be tried again after it has
/// expired is exhausted instead.
pub(super) async fn update(
    mut connection: &AsyncPgConnection,
    ended: &[EndedAttempt],
) -> Result<Vec<ScheduledRow>, StoreError> {
    if ended.is_empty() {
        return Ok(Vec::new());
    }
    // In the order of their ids, so that two batches can't wait for each other's rows.
    let mut ended: Vec<&EndedAttempt> = ended.iter().collect();
    ended.sort_unstable_by_key(|end| end.delivery_id);
    let mut attempts = AttemptColumns::default();
    for end in &ended {
        attempts.push(Some(&end.attempt), end.sent_version);
    }
    let query = sql_query(concat!(
        "WITH input AS (SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, \
             $17, $18, $19) AS i(id, turn, number, status, wait_s, extension_s, ",
        attempt_columns!(),
        ")), updated AS ( \
           UPDATE deliveries AS d SET \
             status = CASE WHEN e.expired THEN 'exhausted' ELSE i.status END, \
             next_attempt_at = CASE WHEN NOT e.expired THEN now() + make_interval(secs => i.wait_s) END, \
             finished_at = CASE WHEN e.expired OR i.wait_s IS NULL THEN now() END, \
             expires_at = d.expires_at + make_interval(secs => i.extension_s), \
             turn = d.turn + 1, attempts = i.number, announce_again_at = NULL, announcements = 0, park_reason = NULL, \
             started_at = i.started_at, sent_version = i.sent_version, response_code = i.response_code, \
             error_kind = i.error_kind, error = i.error, response_headers = i.response_headers, \
             response_body = i.response_body, dns_us = i.dns_us, connect_us = i.connect_us, tls_us = i.tls_us, \
             first_byte_us = i.first_byte_us, total_us = i.total_us, reused_connection = i.reused_connection \
           FROM input AS i JOIN deliveries AS o ON o.id = i.id, \
             LATERAL (SELECT i.wait_s IS NOT NULL AND o.expires_at + make_interval(secs => i.extension_s) \
                             < now() + make_interval(secs => i.wait_s) AS expired OFFSET 0) AS e \
           WHERE d.id = i.id AND d.turn = i.turn AND d.status = 'in_flight' \
             AND d.id = ANY($1) AND o.id = ANY($1) \
           RETURNING ",
        scheduled_columns!("d"),
        "), history AS ( \
           INSERT INTO attempts (delivery_id, number, ",
        attempt_columns!(),
        ") SELECT i.id, i.number, ",
        attempt_columns!(),
        " FROM input AS i JOIN updated AS u ON u.id = i.id AND u.turn = i.turn + 1 \
             WHERE i.number > 1 OR i.error_kind IS NOT NULL) \
         SELECT * FROM updated",
    ))
    .bind::<Array<SqlUuid>, _>(ended.iter().map(|e| e.delivery_id.0).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(ended.iter().map(|e| e.turn).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(ended.iter().map(|e| e.number).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(ended.iter().map(|e| e.step.status().as_str()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Double>>, _>(ended.iter().map(|e| e.step.wait_s()).collect::<Vec<_>>())
    .bind::<Array<Double>, _>(ended.iter().map(|e| e.step.extension_s()).collect::<Vec<_>>());
    Ok(bind_attempts!(query, attempts)
        .prepared()
        .load(&mut connection)
        .await?)
}
