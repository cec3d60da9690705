//! What was decided and what happened, in one transaction a batch.
//!
//! Reads and writes `claims`, `events`, `deliveries`, `attempts` and `webhook_health`. The dispatcher calls it with
//! all that has gathered since its last batch, acknowledges the events that are recorded, and then announces what is
//! scheduled. A batch that is recorded again, because the answer to its COMMIT was lost, changes nothing twice.

mod attempt_columns;
mod ended;
mod events;
mod new_deliveries;
mod parked;
mod scheduled_row;

pub use new_deliveries::FIRST_TURN;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use domain::attempt::Attempt;
use domain::content_hash::ContentHash;
use domain::delivery::{DeliveryStatus, ParkReason};
use domain::event::EventType;
use domain::id::{DeliveryId, EventId, EventKey, PartnerId, WebhookId};

use crate::StoreError;
use crate::health::{self, AttemptResult};

/// All that one transaction records.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// No two with the same partner and event id.
    pub events: Vec<RecordedEvent>,
    pub ended: Vec<EndedAttempt>,
    pub parked: Vec<ParkedDelivery>,
}

/// An event with a row for every matched webhook.
#[derive(Clone, Debug)]
pub struct RecordedEvent {
    /// The key by which this process holds the claim.
    pub key: EventKey,
    pub partner_id: PartnerId,
    pub event_id: EventId,
    pub event_type: EventType,
    pub content_hash: ContentHash,
    pub occurred_at: DateTime<Utc>,
    /// The rendered body.
    pub body: Bytes,
    pub app_id: Option<String>,
    pub trace: Trace,
    pub deliveries: Vec<NewDelivery>,
}

/// The publisher's trace, in the words of its W3C headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub traceparent: Option<String>,
    pub tracestate: Option<String>,
}

/// A delivery with what became of it so far.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    pub id: DeliveryId,
    pub webhook_id: WebhookId,
    pub webhook_version: i32,
    pub expire_after: Duration,
    pub step: Step,
    /// The first attempt, when it has ended.
    pub attempt: Option<Attempt>,
}

/// What comes next for a delivery.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    Delivered,
    Exhausted,
    Retry {
        after: Duration,
        extend_expiry_by: Duration,
    },
    /// The first attempt is still under way; whoever finds the lease over may try again.
    InFlight {
        lease: Duration,
    },
    Parked {
        wait: Duration,
        reason: ParkReason,
    },
}

/// The end of an attempt whose delivery has a row already.
#[derive(Clone, Debug)]
pub struct EndedAttempt {
    pub delivery_id: DeliveryId,
    /// The turn under which it was in flight.
    pub turn: i32,
    /// From 1.
    pub number: i32,
    pub webhook_id: WebhookId,
    /// The webhook's version that was used for sending.
    pub sent_version: i32,
    /// Delivered, exhausted or retry.
    pub step: Step,
    pub attempt: Attempt,
}

/// A delivery put off without an attempt.
#[derive(Clone, Copy, Debug)]
pub struct ParkedDelivery {
    pub delivery_id: DeliveryId,
    pub turn: i32,
    pub wait: Duration,
    pub reason: ParkReason,
}

/// What became of an event of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marking {
    /// Recorded, by this batch or before: its message can be acknowledged.
    Recorded,
    /// Somebody else took the claim over and has not recorded it: nothing was written.
    TakenOver,
    /// The id is recorded for other content: a crash of Postgres had lost the claim, and another event came first.
    /// Nothing was written.
    Conflict,
}

/// A delivery that waits, to be announced after the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    pub delivery_id: DeliveryId,
    pub webhook_id: WebhookId,
    pub partner_id: PartnerId,
    pub turn: i32,
    pub next_attempt_at: DateTime<Utc>,
    pub attempts: i32,
    pub parkings: i32,
    /// Whether it was put off rather than tried.
    pub parked: bool,
    pub trace: Trace,
}

/// What a batch changed.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    pub markings: HashMap<EventKey, Marking>,
    pub scheduled: Vec<Scheduled>,
    /// Ended and parked deliveries whose turn was still the one given; the others were left alone.
    pub applied: HashSet<DeliveryId>,
}

/// Records a batch.
///
/// # Errors
/// [`StoreError::Data`] when a row is at fault: the batch is then to be split until that row stands alone. Otherwise
/// Postgres failed, and the same batch can be given again.
pub async fn record(
    connection: &mut AsyncPgConnection,
    batch: &Batch,
) -> Result<Recorded, StoreError> {
    connection
        .transaction(async |connection| write(connection, batch).await)
        .await
}

async fn write(connection: &mut AsyncPgConnection, batch: &Batch) -> Result<Recorded, StoreError> {
    let markings = events::mark(connection, &batch.events).await?;
    let new: Vec<&RecordedEvent> = batch
        .events
        .iter()
        .filter(|event| markings.is_new(event.key))
        .collect();
    events::insert(connection, &new).await?;
    let mut scheduled = new_deliveries::insert(connection, &new).await?;
    let mut applied = HashSet::new();
    for row in ended::update(connection, &batch.ended)
        .await?
        .into_iter()
        .chain(parked::update(connection, &batch.parked).await?)
    {
        applied.insert(row.delivery_id());
        scheduled.extend(row.into_scheduled());
    }
    health::apply(connection, &results(&new, &batch.ended, &applied)).await?;
    Ok(Recorded {
        markings: markings.into_all(),
        scheduled,
        applied,
    })
}

/// The attempts that this batch really added, in the order in which they are given.
fn results(
    new: &[&RecordedEvent],
    ended: &[EndedAttempt],
    applied: &HashSet<DeliveryId>,
) -> Vec<AttemptResult> {
    let first = new
        .iter()
        .flat_map(|event| &event.deliveries)
        .filter_map(|delivery| {
            let attempt = delivery.attempt.as_ref()?;
            Some(result(
                delivery.webhook_id,
                delivery.webhook_version,
                attempt,
            ))
        });
    let later = ended
        .iter()
        .filter(|end| applied.contains(&end.delivery_id))
        .map(|end| result(end.webhook_id, end.sent_version, &end.attempt));
    first.chain(later).collect()
}

fn result(webhook_id: WebhookId, sent_version: i32, attempt: &Attempt) -> AttemptResult {
    AttemptResult {
        webhook_id,
        sent_version,
        started_at: attempt.started_at,
        delivered: attempt.is_delivered(),
        response_code: attempt.status().map(i32::from),
    }
}

impl Step {
    pub(crate) fn status(self) -> DeliveryStatus {
        match self {
            Self::Delivered => DeliveryStatus::Delivered,
            Self::Exhausted => DeliveryStatus::Exhausted,
            Self::InFlight { .. } => DeliveryStatus::InFlight,
            Self::Retry { .. } | Self::Parked { .. } => DeliveryStatus::Pending,
        }
    }

    /// Seconds until the next attempt may begin, or until the lease of this one ends.
    pub(crate) fn wait_s(self) -> Option<f64> {
        match self {
            Self::Delivered | Self::Exhausted => None,
            Self::Retry { after: wait, .. }
            | Self::InFlight { lease: wait }
            | Self::Parked { wait, .. } => Some(wait.as_secs_f64()),
        }
    }

    pub(crate) fn extension_s(self) -> f64 {
        match self {
            Self::Retry {
                extend_expiry_by, ..
            } => extend_expiry_by.as_secs_f64(),
            _ => 0.0,
        }
    }

    /// 1 where the webhook or its partner is what the delivery waits for: that moves it up its schedule.
    pub(crate) fn parkings(self) -> i32 {
        match self {
            Self::Parked { reason, .. } => i32::from(reason != ParkReason::HandedOver),
            _ => 0,
        }
    }

    pub(crate) fn park_reason(self) -> Option<&'static str> {
        match self {
            Self::Parked { reason, .. } => Some(reason.as_str()),
            _ => None,
        }
    }
}
