//! What the dispatcher has to record, in its own words: events with their deliveries, ends of attempts, parkings.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::attempt::Attempt;
use domain::content_hash::ContentHash;
use domain::delivery::{DeliveryStatus, ParkReason};
use domain::event::EventType;
use domain::id::{DeliveryId, EventId, EventKey, PartnerId, WebhookId};
use domain::webhook::HealthVersion;

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
    /// [`domain::webhook::Subscription::health_version`] at that version.
    pub health_version: HealthVersion,
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
    /// [`domain::webhook::Subscription::health_version`] at that version.
    pub health_version: HealthVersion,
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

    pub(crate) fn park_reason(self) -> Option<&'static str> {
        match self {
            Self::Parked { reason, .. } => Some(reason.as_str()),
            _ => None,
        }
    }
}
