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

pub(super) struct Markings {
    new: HashSet<EventKey>,
    all: HashMap<EventKey, Marking>,
}

impl Markings {
    /// Whether this very batch marked the event, so that its rows are this batch's to write.
    pub fn is_new(&self, key: EventKey) -> bool {
        self.new.contains(&key)
    }

    pub fn into_all(self) -> HashMap<EventKey, Marking> {
        self.all
    }
}

/// Marks the unrecorded claims that still hold the batch's keys; a claim that a crash of Postgres lost is made again.
pub(super) async fn mark(
    connection: &mut AsyncPgConnection,
    events: &[RecordedEvent],
) -> Result<Markings, StoreError> {
    let mut ordered: Vec<&RecordedEvent> = events.iter().collect();
    ordered.sort_unstable_by(|a, b| (a.partner_id, &a.event_id).cmp(&(b.partner_id, &b.event_id)));
    let new = mark_held(connection, &ordered).await?;
    ordered.retain(|event| !new.contains(&event.key));
    let recorded = find_recorded(connection, &ordered).await?;
    let mut all: HashMap<_, _> = new.iter().map(|&key| (key, Marking::Recorded)).collect();
    all.extend(ordered.iter().map(|event| {
        let id = (event.partner_id.0, event.event_id.as_str().to_owned());
        let marking = match recorded.get(&id) {
            Some(hash) if *hash == event.content_hash => Marking::Recorded,
            Some(_) => Marking::Conflict,
            None => Marking::TakenOver,
        };
        (event.key, marking)
    }));
    Ok(Markings { new, all })
}

async fn mark_held(
    connection: &mut AsyncPgConnection,
    events: &[&RecordedEvent],
) -> Result<HashSet<EventKey>, StoreError> {
    if events.is_empty() {
        return Ok(HashSet::new());
    }
    let rows: Vec<KeyRow> = sql_query(
        "INSERT INTO claims (partner_id, event_id, event_key, content_hash, recorded_at) \
         SELECT i.partner_id, i.event_id, i.event_key, i.content_hash, now() \
         FROM unnest($1, $2, $3, $4) AS i(partner_id, event_id, event_key, content_hash) \
         ON CONFLICT (partner_id, event_id) DO UPDATE SET recorded_at = excluded.recorded_at \
             WHERE claims.event_key = excluded.event_key AND claims.recorded_at IS NULL \
         RETURNING event_key",
    )
    .bind::<Array<BigInt>, _>(events.iter().map(|e| e.partner_id.0).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(
        events
            .iter()
            .map(|e| e.event_id.as_str())
            .collect::<Vec<_>>(),
    )
    .bind::<Array<SqlUuid>, _>(events.iter().map(|e| e.key.0).collect::<Vec<_>>())
    .bind::<Array<Binary>, _>(
        events
            .iter()
            .map(|e| e.content_hash.as_slice())
            .collect::<Vec<_>>(),
    )
    .load(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| EventKey(row.event_key))
        .collect())
}

async fn find_recorded(
    connection: &mut AsyncPgConnection,
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
    .bind::<Array<BigInt>, _>(events.iter().map(|e| e.partner_id.0).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(events.iter().map(|e| e.event_id.as_str()).collect::<Vec<_>>())
    .load(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ((row.partner_id, row.event_id), row.content_hash))
        .collect())
}

pub(super) async fn insert(
    connection: &mut AsyncPgConnection,
    events: &[&RecordedEvent],
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    sql_query(
        "INSERT INTO events (key, partner_id, event_id, event_type, occurred_at, body, app_id) \
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind::<Array<SqlUuid>, _>(events.iter().map(|e| e.key.0).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(events.iter().map(|e| e.partner_id.0).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(
        events
            .iter()
            .map(|e| e.event_id.as_str())
            .collect::<Vec<_>>(),
    )
    .bind::<Array<Text>, _>(
        events
            .iter()
            .map(|e| e.event_type.as_str())
            .collect::<Vec<_>>(),
    )
    .bind::<Array<Timestamptz>, _>(events.iter().map(|e| e.occurred_at).collect::<Vec<_>>())
    .bind::<Array<Binary>, _>(
        events
            .iter()
            .map(|e| e.body.as_ref())
            .collect::<Vec<&[u8]>>(),
    )
    .bind::<Array<Nullable<Text>>, _>(
        events
            .iter()
            .map(|e| e.app_id.as_deref().map(without_nul))
            .collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}
