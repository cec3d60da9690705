//! Begins attempts: the conditional update that an announcement must pass.
//!
//! Reads `webhooks`, `partners` and `events`; writes `deliveries`. The dispatcher calls it for announcements that
//! are due, for all at once that came during the previous call.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use diesel::sql_types::{
    Array, BigInt, Binary, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::delivery::DeliveryStatus;
use domain::id::{DeliveryId, PartnerId};
use domain::webhook::Subscription;
use uuid::Uuid;

use crate::StoreError;
use crate::keyring::Keyring;
use crate::prepared::Prepare as _;
use crate::record::Trace;
use crate::subscription;

/// An announcement that asks for its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartRequest {
    pub delivery_id: DeliveryId,
    pub turn: i32,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub enum Starting {
    /// The attempt is the caller's to make.
    Started(Box<Started>),
    /// It was cancelled or had expired, and is written so now.
    Ended(DeliveryStatus),
    /// It is not due before this time, by the database's clock.
    Early(DateTime<Utc>),
    /// Its turn is another one: somebody else went on with it, or it is final.
    Stale,
    /// The attempt can't be made, because a stored value can't be read. It is the caller's to put off.
    Unreadable {
        turn: i32,
        parkings: i32,
        reason: String,
    },
    /// There is no such row.
    Missing,
}

/// All that is needed to send.
#[derive(Clone, Debug)]
pub struct Started {
    pub delivery_id: DeliveryId,
    /// The turn under which the attempt is in flight now.
    pub turn: i32,
    /// The number of this attempt, from 1.
    pub number: i32,
    pub parkings: i32,
    pub partner_id: PartnerId,
    pub event_id: String,
    pub event_type: String,
    /// The subscription as it is now: a changed URL or a rotated secret counts at once.
    pub subscription: Subscription,
    pub body: Bytes,
    pub trace: Trace,
}

#[derive(QueryableByName)]
struct StartedRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Integer)]
    turn: i32,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Integer)]
    parkings: i32,
    #[diesel(sql_type = SqlUuid)]
    event_key: Uuid,
    #[diesel(sql_type = Text)]
    event_id: String,
    #[diesel(sql_type = Text)]
    event_type: String,
    #[diesel(sql_type = Nullable<Text>)]
    traceparent: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    tracestate: Option<String>,
    #[diesel(sql_type = BigInt)]
    partner_id: i64,
    #[diesel(sql_type = BigInt)]
    webhook_id: i64,
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = Integer)]
    health_version: i32,
    #[diesel(sql_type = Text)]
    url: String,
    #[diesel(sql_type = Array<Text>)]
    events: Vec<String>,
    #[diesel(sql_type = Nullable<Binary>)]
    secret: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Text>)]
    sealing_key_id: Option<String>,
    #[diesel(sql_type = Nullable<Binary>)]
    body: Option<Vec<u8>>,
}

#[derive(QueryableByName)]
struct StateRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Integer)]
    turn: i32,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    next_attempt_at: Option<DateTime<Utc>>,
}

/// Begins the attempts of a batch, each under a lease after whose end another may begin. The answers stand in the
/// order of the requests.
///
/// # Errors
/// When Postgres fails.
pub async fn start(
    connection: &mut AsyncPgConnection,
    keyring: &Keyring,
    requests: &[StartRequest],
    lease: Duration,
) -> Result<Vec<Starting>, StoreError> {
    let rows = begin(connection, requests, lease).await?;
    // Deliveries of one event share its body.
    let mut bodies: HashMap<Uuid, Bytes> = HashMap::new();
    // By id and turn: two announcements of one delivery may stand in one batch.
    let mut begun: HashMap<(Uuid, i32), Starting> = HashMap::with_capacity(requests.len());
    let mut ids = HashSet::with_capacity(requests.len());
    for mut row in rows {
        let body = row.body.take().map(|body| {
            let shared = bodies.entry(row.event_key);
            shared.or_insert_with(|| body.into()).clone()
        });
        ids.insert(row.id);
        let announced_turn = row.turn.saturating_sub(1);
        begun.insert((row.id, announced_turn), starting(keyring, row, body));
    }
    let others: Vec<_> = requests
        .iter()
        .map(|r| r.delivery_id.0)
        .filter(|id| !ids.contains(id))
        .collect();
    let states = states(connection, others).await?;
    Ok(requests
        .iter()
        .map(|request| {
            let id = request.delivery_id.0;
            if let Some(starting) = begun.remove(&(id, request.turn)) {
                return starting;
            }
            match states.get(&id) {
                None if ids.contains(&id) => Starting::Stale,
                None => Starting::Missing,
                Some(state) if state.turn == request.turn => state
                    .next_attempt_at
                    .map_or(Starting::Stale, Starting::Early),
                Some(_) => Starting::Stale,
            }
        })
        .collect())
}

async fn begin(
    connection: &mut AsyncPgConnection,
    requests: &[StartRequest],
    lease: Duration,
) -> Result<Vec<StartedRow>, StoreError> {
    // In the order of their ids, so that two batches can't wait for each other's rows.
    let mut ordered: Vec<_> = requests.iter().map(|r| (r.delivery_id.0, r.turn)).collect();
    ordered.sort_unstable();
    let (ids, turns): (Vec<_>, Vec<_>) = ordered.into_iter().unzip();
    let rows = sql_query(
        "UPDATE deliveries AS d SET status = n.status, turn = d.turn + 1, announce_again_at = NULL, announcements = 0, \
             park_reason = NULL, \
             next_attempt_at = CASE WHEN n.status = 'in_flight' THEN now() + make_interval(secs => $3) END, \
             finished_at = CASE WHEN n.status <> 'in_flight' THEN now() END \
         FROM unnest($1, $2) AS i(id, turn) \
         JOIN deliveries AS o ON o.id = i.id \
         JOIN webhooks AS w ON w.id = o.webhook_id \
         JOIN partners AS p ON p.id = o.partner_id, \
         LATERAL (SELECT (SELECT e.body FROM events AS e WHERE e.key = o.event_key) AS body OFFSET 0) AS b, \
         LATERAL (SELECT CASE \
             WHEN NOT w.active OR w.deleted_at IS NOT NULL OR p.suspended_at IS NOT NULL \
                  OR o.webhook_version < w.deactivated_version THEN 'cancelled' \
             WHEN o.expires_at < now() OR b.body IS NULL THEN 'exhausted' \
             ELSE 'in_flight' END AS status OFFSET 0) AS n \
         WHERE d.id = i.id AND d.turn = i.turn AND d.status IN ('pending', 'in_flight') \
           AND d.next_attempt_at <= clock_timestamp() \
           AND d.id = ANY($1) AND o.id = ANY($1) \
         RETURNING d.id, d.status, d.turn, d.attempts, d.parkings, d.event_key, d.event_id, d.event_type, \
             d.traceparent, d.tracestate, d.partner_id, d.webhook_id, w.version, w.url, w.events, w.secret, \
             w.sealing_key_id, CASE WHEN n.status = 'in_flight' THEN b.body END AS body, \
             coalesce((SELECT h.since_version FROM webhook_health AS h WHERE h.webhook_id = w.id), 1) AS health_version",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Array<Integer>, _>(turns)
    .bind::<Double, _>(lease.as_secs_f64())
    .prepared().load(connection)
    .await?;
    Ok(rows)
}

async fn states(
    connection: &mut AsyncPgConnection,
    ids: Vec<Uuid>,
) -> Result<HashMap<Uuid, StateRow>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<StateRow> =
        sql_query("SELECT id, turn, next_attempt_at FROM deliveries WHERE id = ANY($1)")
            .bind::<Array<SqlUuid>, _>(ids)
            .prepared()
            .load(connection)
            .await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

fn starting(keyring: &Keyring, row: StartedRow, body: Option<Bytes>) -> Starting {
    let (turn, parkings) = (row.turn, row.parkings);
    read(keyring, row, body).unwrap_or_else(|error| Starting::Unreadable {
        turn,
        parkings,
        reason: error.to_string(),
    })
}

fn read(keyring: &Keyring, row: StartedRow, body: Option<Bytes>) -> Result<Starting, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("{what} of delivery {}", row.id));
    let status: DeliveryStatus = row.status.parse().map_err(|_| corrupt("the status"))?;
    if status.is_final() {
        return Ok(Starting::Ended(status));
    }
    let body = body.ok_or_else(|| corrupt("the event's body"))?;
    let subscription = subscription::read(
        keyring,
        subscription::Stored {
            webhook_id: row.webhook_id,
            partner_id: row.partner_id,
            version: row.version,
            health_version: row.health_version,
            url: row.url,
            events: row.events,
            secret: row.secret,
            sealing_key_id: row.sealing_key_id,
        },
    )?;
    Ok(Starting::Started(Box::new(Started {
        delivery_id: DeliveryId(row.id),
        turn: row.turn,
        number: row.attempts.saturating_add(1),
        parkings: row.parkings,
        partner_id: PartnerId(row.partner_id),
        event_id: row.event_id,
        event_type: row.event_type,
        subscription,
        body,
        trace: Trace {
            traceparent: row.traceparent,
            tracestate: row.tracestate,
        },
    })))
}
