//! Puts deliveries off that may not be tried now. Uses up no attempt.

use diesel::sql_query;
use diesel::sql_types::{Array, Double, Integer, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::ParkedDelivery;
use super::scheduled_row::{ScheduledRow, scheduled_columns};
use crate::StoreError;
use crate::prepared::Prepare as _;

/// Changes only deliveries that still have the turn given. It reads the webhook too: what its partner switched off
/// is cancelled here, since a delivery that is parked again and again never begins an attempt that would find out.
pub(super) async fn update(
    mut connection: &AsyncPgConnection,
    parked: &[ParkedDelivery],
) -> Result<Vec<ScheduledRow>, StoreError> {
    if parked.is_empty() {
        return Ok(Vec::new());
    }
    // In the order of their ids, so that two batches can't wait for each other's rows.
    let mut parked: Vec<&ParkedDelivery> = parked.iter().collect();
    parked.sort_unstable_by_key(|p| p.delivery_id);
    let rows = sql_query(concat!(
        "UPDATE deliveries AS d SET \
             status = n.status, turn = d.turn + 1, parkings = d.parkings + (i.reason <> 'handed_over')::integer, park_reason = i.reason, \
             next_attempt_at = CASE WHEN n.status = 'pending' THEN now() + make_interval(secs => i.wait_s) END, \
             finished_at = CASE WHEN n.status <> 'pending' THEN now() END, \
             announce_again_at = NULL, announcements = 0 \
         FROM unnest($1, $2, $3, $4) AS i(id, turn, wait_s, reason) \
         JOIN deliveries AS o ON o.id = i.id \
         JOIN webhooks AS w ON w.id = o.webhook_id \
         JOIN partners AS p ON p.id = o.partner_id, \
         LATERAL (SELECT CASE \
             WHEN NOT w.active OR w.deleted_at IS NOT NULL OR p.suspended_at IS NOT NULL \
                  OR o.webhook_version < w.deactivated_version THEN 'cancelled' \
             WHEN o.expires_at < now() + make_interval(secs => i.wait_s) THEN 'exhausted' \
             ELSE 'pending' END AS status OFFSET 0) AS n \
         WHERE d.id = i.id AND d.turn = i.turn AND d.status IN ('pending', 'in_flight') \
           AND d.id = ANY($1) AND o.id = ANY($1) \
         RETURNING ",
        scheduled_columns!("d"),
    ))
    .bind::<Array<SqlUuid>, _>(parked.iter().map(|p| p.delivery_id.0).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(parked.iter().map(|p| p.turn).collect::<Vec<_>>())
    .bind::<Array<Double>, _>(parked.iter().map(|p| p.wait.as_secs_f64()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(parked.iter().map(|p| p.reason.as_str()).collect::<Vec<_>>())
    .prepared().load(&mut connection)
    .await?;
    Ok(rows)
}
