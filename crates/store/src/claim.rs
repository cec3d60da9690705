//! Who processes an event: one row a partner and event id, made after validation and before anything is sent.
//!
//! Reads and writes `claims`. The dispatcher's fan-out calls it, on a connection with `synchronous_commit = off`:
//! what a crash of Postgres forgets here, [`crate::record`] inserts again.

mod look_up;
mod trim;

use std::borrow::Borrow;
use std::collections::HashMap;

use diesel::sql_types::{Array, BigInt, Binary, Bool, Double, Text, Uuid as SqlUuid};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::content_hash::ContentHash;
use domain::id::{EventId, EventKey, PartnerId};
use uuid::Uuid;

use crate::StoreError;
use crate::prepared::Prepare as _;

pub use look_up::{Known, look_up};
pub use trim::trim;

/// One event that wants to be processed.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    pub partner_id: PartnerId,
    pub event_id: EventId,
    pub content_hash: ContentHash,
    /// Whether this is a redelivered copy, or one that an operator sent again: it takes over a claim that is not
    /// recorded within [`TAKEOVER_S`]. A fresh copy takes over only one older than [`FRESH_TAKEOVER_S`].
    pub takeover: bool,
    /// By this a claim is known again as the request's own, also when the request is made twice because the first answer
    /// was lost. Otherwise it would find itself in progress, and nobody would go on with it.
    pub seed: ClaimSeed,
}

/// The random part of the key that a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimSeed(Uuid);

impl ClaimSeed {
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(0, &rand::random()).into_uuid())
    }

    fn is_of(self, key: Uuid) -> bool {
        random_part(self.0) == random_part(key)
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The event is the caller's to process, under this key.
    Held(EventKey),
    /// The same event is recorded already.
    Duplicate,
    /// Another copy of the same event is being processed, and its message not yet acknowledged; or whoever processed it
    /// is gone, and its claim not old enough to be taken over.
    InProgress,
    /// The id was used for an event of another type or with other data.
    Conflict,
}

/// Age in seconds from which a redelivered copy takes over a claim. A broker that restarts hands out a redelivered
/// copy and one that its publisher sent again side by side. Whichever comes first is nearly always recorded within this
/// time, unless its holder is gone; one that waits longer, for a slot or for Postgres, is sent twice.
pub const TAKEOVER_S: f64 = 1.0;

/// Age in seconds from which a fresh copy takes over a claim that was never recorded.
pub const FRESH_TAKEOVER_S: f64 = 60.0;

/// How often a batch is looked at again because a claim was trimmed between two of its statements.
const ROUNDS_MAX: usize = 3;

/// How many low bits of a UUIDv7 are random, but for version and variant.
const RANDOM_BITS: u32 = 80;

/// A key whose random part is made here and whose milliseconds are the database's: `gen_random_uuid()` and the
/// arithmetic on its bytes cost as much as the rest of a claim.
macro_rules! key_of {
    ($seed:literal) => {
        concat!(
            "((SELECT uuid_v7_millis()) || right(",
            $seed,
            "::text, 23))::uuid"
        )
    };
}

/// A request without an answer yet.
struct Open<'a> {
    request: &'a ClaimRequest,
    /// Where its answer goes.
    place: usize,
}

#[derive(QueryableByName)]
struct HeldRow {
    #[diesel(sql_type = SqlUuid)]
    event_key: Uuid,
}

#[derive(QueryableByName)]
struct FoundRow {
    #[diesel(sql_type = BigInt)]
    partner_id: i64,
    #[diesel(sql_type = Text)]
    event_id: String,
    #[diesel(sql_type = SqlUuid)]
    event_key: Uuid,
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
    let mut open: Vec<Open<'_>> = requests.iter().enumerate().map(Open::new).collect();
    // In the order of the index, so that two dispatchers with the same events can't wait for each other.
    open.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
    let mut settled: HashMap<usize, Claim> = HashMap::with_capacity(requests.len());
    for _ in 0..ROUNDS_MAX {
        settle(connection, &open, &mut settled).await?;
        open.retain(|o| !settled.contains_key(&o.place));
        if open.is_empty() {
            break;
        }
    }
    (0..requests.len())
        .map(|place| {
            settled.get(&place).copied().ok_or(StoreError::Transient(
                "claims were trimmed meanwhile".into(),
            ))
        })
        .collect()
}

impl<'a> Open<'a> {
    fn new((place, request): (usize, &'a ClaimRequest)) -> Self {
        Self { request, place }
    }

    fn key(&self) -> (i64, &'a str) {
        (self.request.partner_id.0, self.request.event_id.as_str())
    }
}

async fn settle(
    connection: &mut AsyncPgConnection,
    open: &[Open<'_>],
    settled: &mut HashMap<usize, Claim>,
) -> Result<(), StoreError> {
    let places = open
        .iter()
        .map(|o| (random_part(o.request.seed.0), o.place));
    let places: HashMap<u128, usize> = places.collect();
    let held = insert(connection, open).await?;
    settled.extend(as_held(&held, &places));
    let met: Vec<_> = open
        .iter()
        .filter(|o| !settled.contains_key(&o.place))
        .collect();
    if met.is_empty() {
        return Ok(());
    }
    let taken = take_over(connection, &met).await?;
    settled.extend(as_held(&taken, &places));
    let found = find(connection, &met).await?;
    let found: HashMap<_, _> = found
        .iter()
        .map(|row| ((row.partner_id, row.event_id.as_str()), row))
        .collect();
    for o in met {
        if let Some(row) = found.get(&o.key()) {
            settled.entry(o.place).or_insert_with(|| met_row(o, row));
        }
    }
    Ok(())
}

fn random_part(key: Uuid) -> u128 {
    key.as_u128() & ((1 << RANDOM_BITS) - 1)
}

fn as_held(
    rows: &[HeldRow],
    places: &HashMap<u128, usize>,
) -> impl Iterator<Item = (usize, Claim)> {
    rows.iter().filter_map(|row| {
        let place = places.get(&random_part(row.event_key))?;
        Some((*place, Claim::Held(EventKey(row.event_key))))
    })
}

fn met_row(open: &Open<'_>, row: &FoundRow) -> Claim {
    if open.request.seed.is_of(row.event_key) && !row.recorded {
        Claim::Held(EventKey(row.event_key))
    } else if row.content_hash != open.request.content_hash {
        Claim::Conflict
    } else if row.recorded {
        Claim::Duplicate
    } else {
        Claim::InProgress
    }
}

async fn insert(
    connection: &mut AsyncPgConnection,
    open: &[Open<'_>],
) -> Result<Vec<HeldRow>, StoreError> {
    let rows = sql_query(concat!(
        "INSERT INTO claims (partner_id, event_id, event_key, content_hash) SELECT i.partner_id, i.event_id, ",
        key_of!("i.seed"),
        ", i.content_hash FROM unnest($1, $2, $3, $4) AS i(partner_id, event_id, content_hash, seed) \
         ON CONFLICT (partner_id, event_id) DO NOTHING RETURNING event_key",
    ))
    .bind::<Array<BigInt>, _>(column(open, |o| o.request.partner_id.0))
    .bind::<Array<Text>, _>(column(open, |o| o.request.event_id.as_str()))
    .bind::<Array<Binary>, _>(column(open, |o| o.request.content_hash.as_slice()))
    .bind::<Array<SqlUuid>, _>(column(open, |o| o.request.seed.0))
    .prepared()
    .load(connection)
    .await?;
    Ok(rows)
}

/// A new key fences the former holder: `record` marks only claims that still hold its own.
async fn take_over(
    connection: &mut AsyncPgConnection,
    met: &[&Open<'_>],
) -> Result<Vec<HeldRow>, StoreError> {
    let rows = sql_query(concat!(
        "UPDATE claims AS c SET event_key = ",
        key_of!("i.seed"),
        ", claimed_at = clock_timestamp() \
         FROM unnest($1, $2, $3, $4, $5) AS i(partner_id, event_id, content_hash, seed, takeover) \
         WHERE c.partner_id = i.partner_id AND c.event_id = i.event_id \
           AND c.recorded_at IS NULL AND c.content_hash = i.content_hash \
           AND c.claimed_at < clock_timestamp() - make_interval(secs => CASE WHEN i.takeover THEN $6 ELSE $7 END) \
         RETURNING c.event_key",
    ))
    .bind::<Array<BigInt>, _>(column(met, |o| o.request.partner_id.0))
    .bind::<Array<Text>, _>(column(met, |o| o.request.event_id.as_str()))
    .bind::<Array<Binary>, _>(column(met, |o| o.request.content_hash.as_slice()))
    .bind::<Array<SqlUuid>, _>(column(met, |o| o.request.seed.0))
    .bind::<Array<Bool>, _>(column(met, |o| o.request.takeover))
    .bind::<Double, _>(TAKEOVER_S)
    .bind::<Double, _>(FRESH_TAKEOVER_S)
    .prepared()
    .load(connection)
    .await?;
    Ok(rows)
}

async fn find(
    connection: &mut AsyncPgConnection,
    met: &[&Open<'_>],
) -> Result<Vec<FoundRow>, StoreError> {
    let rows = sql_query(
        "SELECT c.partner_id, c.event_id, c.event_key, c.content_hash, c.recorded_at IS NOT NULL AS recorded \
         FROM claims AS c JOIN unnest($1, $2) AS i(partner_id, event_id) \
           ON c.partner_id = i.partner_id AND c.event_id = i.event_id",
    )
    .bind::<Array<BigInt>, _>(column(met, |o| o.request.partner_id.0))
    .bind::<Array<Text>, _>(column(met, |o| o.request.event_id.as_str()))
    .prepared()
    .load(connection)
    .await?;
    Ok(rows)
}

fn column<'a, O: Borrow<Open<'a>>, T>(open: &[O], value: impl Fn(&Open<'a>) -> T) -> Vec<T> {
    open.iter().map(|o| value(o.borrow())).collect()
}
