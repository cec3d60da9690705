//! Who processes an event: one row a partner and event id, made after validation and before anything is sent.
//!
//! Reads and writes `claims`. The dispatcher's fan-out calls it, on a connection with `synchronous_commit = off`:
//! what a crash of Postgres forgets here, [`crate::record`] inserts again.

use std::collections::HashMap;

use diesel::sql_types::{Array, BigInt, Binary, Bool, Text, Uuid as SqlUuid};
use diesel::{OptionalExtension as _, QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::content_hash::ContentHash;
use domain::id::{EventId, EventKey, PartnerId};
use uuid::Uuid;

use crate::StoreError;

/// One event that wants to be processed.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    pub partner_id: PartnerId,
    pub event_id: EventId,
    pub content_hash: ContentHash,
    /// Whether this is a redelivered copy, or one that an operator sent again: it takes over a claim that is not
    /// recorded. A fresh copy takes over only one older than [`FRESH_TAKEOVER_S`].
    pub takeover: bool,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The event is the caller's to process, under this key.
    Held(EventKey),
    /// The same event is recorded already.
    Duplicate,
    /// Another copy of the same event is being processed, and its message not yet acknowledged.
    InProgress,
    /// The id was used for an event of another type or with other data.
    Conflict,
}

/// Age in seconds from which a fresh copy takes over a claim that was never recorded.
pub const FRESH_TAKEOVER_S: i32 = 60;

/// How often a batch is looked at again because a claim was trimmed between two of its statements.
const ROUNDS_MAX: usize = 3;

type Key = (i64, String);

#[derive(QueryableByName)]
struct HeldRow {
    #[diesel(sql_type = BigInt)]
    partner_id: i64,
    #[diesel(sql_type = Text)]
    event_id: String,
    #[diesel(sql_type = SqlUuid)]
    event_key: Uuid,
}

#[derive(QueryableByName)]
struct FoundRow {
    #[diesel(sql_type = BigInt)]
    partner_id: i64,
    #[diesel(sql_type = Text)]
    event_id: String,
    #[diesel(sql_type = Binary)]
    content_hash: Vec<u8>,
    #[diesel(sql_type = Bool)]
    recorded: bool,
}

/// Claims a batch of events, no two of which may have the same partner and id. The answers stand in the order of
/// the requests.
///
/// # Errors
/// When Postgres fails, or claims vanish again and again while they are looked at.
pub async fn claim(
    connection: &mut AsyncPgConnection,
    requests: &[ClaimRequest],
) -> Result<Vec<Claim>, StoreError> {
    // In the order of the index, so that two dispatchers with the same events can't wait for each other.
    let mut open: Vec<&ClaimRequest> = requests.iter().collect();
    open.sort_unstable_by(|a, b| (a.partner_id, &a.event_id).cmp(&(b.partner_id, &b.event_id)));
    let mut settled: HashMap<Key, Claim> = HashMap::with_capacity(requests.len());
    for _ in 0..ROUNDS_MAX {
        settle(connection, &open, &mut settled).await?;
        open.retain(|request| !settled.contains_key(&key(request)));
        if open.is_empty() {
            break;
        }
    }
    requests
        .iter()
        .map(|request| {
            settled
                .get(&key(request))
                .copied()
                .ok_or(StoreError::Transient(
                    "claims were trimmed meanwhile".into(),
                ))
        })
        .collect()
}

fn key(request: &ClaimRequest) -> Key {
    (request.partner_id.0, request.event_id.as_str().to_owned())
}

async fn settle(
    connection: &mut AsyncPgConnection,
    open: &[&ClaimRequest],
    settled: &mut HashMap<Key, Claim>,
) -> Result<(), StoreError> {
    let held = insert(connection, open).await?;
    settled.extend(held.into_iter().map(as_held));
    let met: Vec<_> = open
        .iter()
        .copied()
        .filter(|r| !settled.contains_key(&key(r)))
        .collect();
    if met.is_empty() {
        return Ok(());
    }
    let taken = take_over(connection, &met).await?;
    settled.extend(taken.into_iter().map(as_held));
    for row in find(connection, &met).await? {
        let found = (row.partner_id, row.event_id);
        if settled.contains_key(&found) {
            continue;
        }
        let Some(request) = met.iter().find(|r| key(r) == found) else {
            continue;
        };
        let claim = if row.content_hash != request.content_hash {
            Claim::Conflict
        } else if row.recorded {
            Claim::Duplicate
        } else {
            Claim::InProgress
        };
        settled.insert(found, claim);
    }
    Ok(())
}

fn as_held(row: HeldRow) -> (Key, Claim) {
    (
        (row.partner_id, row.event_id),
        Claim::Held(EventKey(row.event_key)),
    )
}

async fn insert(
    connection: &mut AsyncPgConnection,
    requests: &[&ClaimRequest],
) -> Result<Vec<HeldRow>, StoreError> {
    let rows = sql_query(
        "INSERT INTO claims (partner_id, event_id, event_key, content_hash) \
         SELECT i.partner_id, i.event_id, uuid_v7(), i.content_hash \
         FROM unnest($1, $2, $3) AS i(partner_id, event_id, content_hash) \
         ON CONFLICT (partner_id, event_id) DO NOTHING \
         RETURNING partner_id, event_id, event_key",
    )
    .bind::<Array<BigInt>, _>(partners(requests))
    .bind::<Array<Text>, _>(event_ids(requests))
    .bind::<Array<Binary>, _>(hashes(requests))
    .load(connection)
    .await?;
    Ok(rows)
}

/// A new key fences the former holder: `record` marks only claims that still hold its own.
async fn take_over(
    connection: &mut AsyncPgConnection,
    requests: &[&ClaimRequest],
) -> Result<Vec<HeldRow>, StoreError> {
    let rows = sql_query(
        "UPDATE claims AS c SET event_key = uuid_v7(), claimed_at = clock_timestamp() \
         FROM unnest($1, $2, $3, $4) AS i(partner_id, event_id, content_hash, takeover) \
         WHERE c.partner_id = i.partner_id AND c.event_id = i.event_id \
           AND c.recorded_at IS NULL AND c.content_hash = i.content_hash \
           AND (i.takeover OR c.claimed_at < clock_timestamp() - make_interval(secs => $5)) \
         RETURNING c.partner_id, c.event_id, c.event_key",
    )
    .bind::<Array<BigInt>, _>(partners(requests))
    .bind::<Array<Text>, _>(event_ids(requests))
    .bind::<Array<Binary>, _>(hashes(requests))
    .bind::<Array<Bool>, _>(requests.iter().map(|r| r.takeover).collect::<Vec<_>>())
    .bind::<diesel::sql_types::Double, _>(f64::from(FRESH_TAKEOVER_S))
    .load(connection)
    .await?;
    Ok(rows)
}

async fn find(
    connection: &mut AsyncPgConnection,
    requests: &[&ClaimRequest],
) -> Result<Vec<FoundRow>, StoreError> {
    let rows = sql_query(
        "SELECT c.partner_id, c.event_id, c.content_hash, c.recorded_at IS NOT NULL AS recorded \
         FROM claims AS c JOIN unnest($1, $2) AS i(partner_id, event_id) \
           ON c.partner_id = i.partner_id AND c.event_id = i.event_id",
    )
    .bind::<Array<BigInt>, _>(partners(requests))
    .bind::<Array<Text>, _>(event_ids(requests))
    .load(connection)
    .await?;
    Ok(rows)
}

fn partners(requests: &[&ClaimRequest]) -> Vec<i64> {
    requests.iter().map(|r| r.partner_id.0).collect()
}

fn event_ids<'a>(requests: &[&'a ClaimRequest]) -> Vec<&'a str> {
    requests.iter().map(|r| r.event_id.as_str()).collect()
}

fn hashes<'a>(requests: &[&'a ClaimRequest]) -> Vec<&'a [u8]> {
    requests.iter().map(|r| r.content_hash.as_slice()).collect()
}

/// A claim as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub event_key: EventKey,
    pub content_hash: Vec<u8>,
    pub recorded: bool,
}

#[derive(QueryableByName)]
struct KnownRow {
    #[diesel(sql_type = SqlUuid)]
    event_key: Uuid,
    #[diesel(sql_type = Binary)]
    content_hash: Vec<u8>,
    #[diesel(sql_type = Bool)]
    recorded: bool,
}

/// The claim of one event, for people who ask what became of it.
///
/// # Errors
/// When Postgres fails.
pub async fn look_up(
    connection: &mut AsyncPgConnection,
    partner_id: PartnerId,
    event_id: &EventId,
) -> Result<Option<Known>, StoreError> {
    let row: Option<KnownRow> = sql_query(
        "SELECT event_key, content_hash, recorded_at IS NOT NULL AS recorded FROM claims \
         WHERE partner_id = $1 AND event_id = $2",
    )
    .bind::<BigInt, _>(partner_id.0)
    .bind::<Text, _>(event_id.as_str())
    .get_result(connection)
    .await
    .optional()?;
    Ok(row.map(|row| Known {
        event_key: EventKey(row.event_key),
        content_hash: row.content_hash,
        recorded: row.recorded,
    }))
}

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
