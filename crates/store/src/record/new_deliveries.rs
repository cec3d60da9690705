//! Inserts the deliveries of newly recorded events, each with its first attempt as far as it has come.

use diesel::sql_query;
use diesel::sql_types::{
    Array, BigInt, Binary, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::delivery::DeliveryStatus;
use futures_util::future::try_join;

use super::attempt_columns::{AttemptColumns, Column, attempt_columns, bind_attempts, without_nul};
use super::scheduled_row::{ScheduledRow, scheduled_columns};
use super::{NewDelivery, RecordedEvent, Scheduled};
use crate::StoreError;
use crate::prepared::Prepare as _;

/// The turn of every new row.
pub const FIRST_TURN: i32 = 1;

type Row<'a> = (&'a RecordedEvent, &'a NewDelivery);

pub(super) async fn insert(
    connection: &AsyncPgConnection,
    events: &[&RecordedEvent],
) -> Result<Vec<Scheduled>, StoreError> {
    let rows: Vec<Row<'_>> = events
        .iter()
        .flat_map(|&e| e.deliveries.iter().map(move |d| (e, d)))
        .collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let (scheduled, ()) = try_join(
        insert_deliveries(connection, &rows),
        insert_failures(connection, &rows),
    )
    .await?;
    Ok(scheduled
        .into_iter()
        .filter_map(ScheduledRow::into_scheduled)
        .collect())
}

fn column<'a, T>(rows: &[Row<'a>], value: impl Fn(Row<'a>) -> T) -> Vec<T> {
    rows.iter().copied().map(value).collect()
}

fn nullable<'a, T>(rows: &[Row<'a>], value: impl Fn(Row<'a>) -> Option<T>) -> Vec<Option<T>> {
    let column: Column<T> = rows.iter().copied().map(value).collect();
    column.into_values()
}

macro_rules! insert_deliveries {
    ($returning:expr) => {
        concat!(
            "INSERT INTO deliveries AS d (turn, id, event_key, event_id, event_type, partner_id, traceparent, \
                 tracestate, webhook_id, webhook_version, status, attempts, parkings, park_reason, next_attempt_at, \
                 expires_at, finished_at, ",
            attempt_columns!(),
            ") SELECT $1, i.id, i.event_key, i.event_id, i.event_type, i.partner_id, i.traceparent, i.tracestate, \
                 i.webhook_id, i.webhook_version, i.status, (i.started_at IS NOT NULL)::integer, \
                 coalesce((i.park_reason <> 'handed_over')::integer, 0), i.park_reason, \
                 now() + make_interval(secs => i.wait_s), now() + make_interval(secs => i.expire_s), \
                 CASE WHEN i.wait_s IS NULL THEN now() END, ",
            attempt_columns!(),
            " FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, \
                 $21, $22, $23, $24, $25, $26, $27) AS i(id, event_key, event_id, event_type, partner_id, \
                 traceparent, tracestate, webhook_id, webhook_version, status, park_reason, wait_s, expire_s, ",
            attempt_columns!(),
            ")",
            $returning,
        )
    };
}

/// Returns what waits. A batch in which nothing does, the usual one, is not asked for its rows at all.
async fn insert_deliveries(
    mut connection: &AsyncPgConnection,
    rows: &[Row<'_>],
) -> Result<Vec<ScheduledRow>, StoreError> {
    let mut attempts = AttemptColumns::default();
    for (_, delivery) in rows {
        attempts.push(delivery.attempt.as_ref(), delivery.webhook_version);
    }
    let statement = if rows
        .iter()
        .any(|(_, d)| d.step.status() == DeliveryStatus::Pending)
    {
        insert_deliveries!(concat!(" RETURNING ", scheduled_columns!("d")))
    } else {
        insert_deliveries!("")
    };
    let query = sql_query(statement)
        .bind::<Integer, _>(FIRST_TURN)
        .bind::<Array<SqlUuid>, _>(column(rows, |(_, d)| d.id.0))
        .bind::<Array<SqlUuid>, _>(column(rows, |(e, _)| e.key.0))
        .bind::<Array<Text>, _>(column(rows, |(e, _)| e.event_id.as_str()))
        .bind::<Array<Text>, _>(column(rows, |(e, _)| e.event_type.as_str()))
        .bind::<Array<BigInt>, _>(column(rows, |(e, _)| e.partner_id.0))
        .bind::<Array<Nullable<Text>>, _>(nullable(rows, |(e, _)| {
            e.trace.traceparent.as_deref().map(without_nul)
        }))
        .bind::<Array<Nullable<Text>>, _>(nullable(rows, |(e, _)| {
            e.trace.tracestate.as_deref().map(without_nul)
        }))
        .bind::<Array<BigInt>, _>(column(rows, |(_, d)| d.webhook_id.0))
        .bind::<Array<Integer>, _>(column(rows, |(_, d)| d.webhook_version))
        .bind::<Array<Text>, _>(column(rows, |(_, d)| d.step.status().as_str()))
        .bind::<Array<Nullable<Text>>, _>(nullable(rows, |(_, d)| d.step.park_reason()))
        .bind::<Array<Nullable<Double>>, _>(nullable(rows, |(_, d)| d.step.wait_s()))
        .bind::<Array<Double>, _>(column(rows, |(_, d)| {
            d.expire_after.as_secs_f64() + d.step.extension_s()
        }));
    Ok(bind_attempts!(query, attempts)
        .prepared()
        .load(&mut connection)
        .await?)
}

/// A first attempt that succeeded stands on its delivery alone.
async fn insert_failures(
    mut connection: &AsyncPgConnection,
    rows: &[Row<'_>],
) -> Result<(), StoreError> {
    let mut ids = Vec::new();
    let mut attempts = AttemptColumns::default();
    for (_, delivery) in rows {
        if let Some(attempt) = delivery.attempt.as_ref().filter(|a| !a.is_delivered()) {
            ids.push(delivery.id.0);
            attempts.push(Some(attempt), delivery.webhook_version);
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    let query = sql_query(concat!(
        "INSERT INTO attempts (number, delivery_id, ",
        attempt_columns!(),
        ") SELECT 1, i.* FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) AS i",
    ))
    .bind::<Array<SqlUuid>, _>(ids);
    bind_attempts!(query, attempts)
        .prepared()
        .execute(&mut connection)
        .await?;
    Ok(())
}
