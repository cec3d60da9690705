//! Marks claims as recorded, and inserts the events that were marked.

use std::collections::{HashMap, HashSet};

use diesel::sql_types::{Array, BigInt, Binary, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::id::EventKey;
use uuid::Uuid;

use super::attempt_columns::without_nul;
use super::{Marking, RecordedEvent};
use crate::StoreError;
use crate::prepared::Prepare as _;

#[derive(QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = SqlUuid)]
    event_key: Uuid,
}

#[derive(QueryableByName)]
struct RecordedRow {
    #[diesel(sql_type = BigInt)]
    partner_id: i64,
    #[diesel(sql_type = Text)]
    event_id: String,
    #[diesel(sql_type = Binary)]
    content_hash: Vec<u8>,
}

/// What became of each event of a batch, looked at one after the other.
pub(super) async fn markings(
    connection: &AsyncPgConnection,
    events: &[RecordedEvent],
) -> Result<(HashSet<EventKey>, HashMap<EventKey, Marking>), StoreError> {
    let marked = mark(connection, events).await?;
    let others = events.iter().filter(|event| !marked.contains(&event.key));
    let others: Vec<_> = others.collect();
    let recorded = find_recorded(connection, &others).await?;
    let mut markings: HashMap<_, _> = marked.iter().map(|&k| (k, Marking::Recorded)).collect();
    markings.extend(others.iter().map(|event| {
        let id = (event.partner_id.0, event.event_id.as_str().to_owned());
        let marking = match recorded.get(&id) {
            Some(hash) if *hash == event.content_hash => Marking::Recorded,
            Some(_) => Marking::Conflict,
            None => Marking::TakenOver,
        };
        (event.key, marking)
    }));
    Ok((marked, markings))
}

/// Marks the unrecorded claims that still hold the batch's keys, and returns those keys: their rows are this batch's
/// to write. A claim that a crash of Postgres lost is made again.
pub(super) async fn mark(
    mut connection: &AsyncPgConnection,
    events: &[RecordedEvent],
) -> Result<HashSet<EventKey>, StoreError> {
    if events.is_empty() {
        return Ok(HashSet::new());
    }
    let mut events: Vec<&RecordedEvent> = events.iter().collect();
    events.sort_unstable_by(|a, b| (a.partner_id, &a.event_id).cmp(&(b.partner_id, &b.event_id)));
    let rows: Vec<KeyRow> = sql_query(
        "INSERT INTO claims (partner_id, event_id, event_key, content_hash, recorded_at) \
         SELECT i.partner_id, i.event_id, i.event_key, i.content_hash, now() \
         FROM unnest($1, $2, $3, $4) AS i(partner_id, event_id, event_key, content_hash) \
         ON CONFLICT (partner_id, event_id) DO UPDATE SET recorded_at = excluded.recorded_at \
             WHERE claims.event_key = excluded.event_key AND claims.recorded_at IS NULL \
         RETURNING event_key",
    )
    .bind::<Array<BigInt>, _>(column(&events, |e| e.partner_id.0))
    .bind::<Array<Text>, _>(column(&events, |e| e.event_id.as_str()))
    .bind::<Array<SqlUuid>, _>(column(&events, |e| e.key.0))
    .bind::<Array<Binary>, _>(column(&events, |e| e.content_hash.as_slice()))
    .prepared()
    .load(&mut connection)
    .await?;
    Ok(rows.iter().map(|row| EventKey(row.event_key)).collect())
}

fn column<'a, T>(events: &[&'a RecordedEvent], value: impl Fn(&'a RecordedEvent) -> T) -> Vec<T> {
    events.iter().copied().map(value).collect()
}

async fn find_recorded(
    mut connection: &AsyncPgConnection,
    events: &[&RecordedEvent],
) -> Result<HashMap<(i64, String), Vec<u8>>, StoreError> {
    if events.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<RecordedRow> = sql_query(
        "SELECT c.partner_id, c.event_id, c.content_hash FROM claims AS c JOIN unnest($1, $2) AS i(partner_id, event_id) \
           ON c.partner_id = i.partner_id AND c.event_id = i.event_id \
         WHERE c.recorded_at IS NOT NULL",
    )
    .bind::<Array<BigInt>, _>(column(events, |e| e.partner_id.0))
    .bind::<Array<Text>, _>(column(events, |e| e.event_id.as_str()))
    .prepared()
    .load(&mut connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ((row.partner_id, row.event_id), row.content_hash))
        .collect())
}

pub(super) async fn insert(
    mut connection: &AsyncPgConnection,
    events: &[&RecordedEvent],
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    sql_query(
        "INSERT INTO events (key, partner_id, event_id, event_type, occurred_at, body, app_id) \
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind::<Array<SqlUuid>, _>(column(events, |e| e.key.0))
    .bind::<Array<BigInt>, _>(column(events, |e| e.partner_id.0))
    .bind::<Array<Text>, _>(column(events, |e| e.event_id.as_str()))
    .bind::<Array<Text>, _>(column(events, |e| e.event_type.as_str()))
    .bind::<Array<Timestamptz>, _>(column(events, |e| e.occurred_at))
    .bind::<Array<Binary>, _>(column(events, |e| e.body.as_ref()))
    .bind::<Array<Nullable<Text>>, _>(column(events, |e| e.app_id.as_deref().map(without_nul)))
    .prepared()
    .execute(&mut connection)
    .await?;
    Ok(())
}
