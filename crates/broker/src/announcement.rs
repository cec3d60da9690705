//! "This delivery is due, or will be": a reference to a row in Postgres, which is the truth. An announcement may be
//! lost, late or repeated without harm.
//!
//! The dispatcher and the sweep publish, the retry service places into delay buckets, the dispatcher takes what is due.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::id::{DeliveryId, PartnerId, WebhookId};
use serde::{Deserialize, Serialize};

use crate::delay::{Bucket, bucket};
use crate::delivery::Delivery;
use crate::error::BrokerError;
use crate::message::Message;
use crate::topology::{DUE_KEY, Exchange, FAILED_KEY};
use crate::trace::Trace;

/// What is announced. Unknown members are ignored, so that versions can run side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    pub delivery_id: DeliveryId,
    pub webhook_id: WebhookId,
    pub partner_id: PartnerId,
    /// The delivery's turn that this announcement is about; it counts for no other.
    pub turn: i32,
    /// Not to be tried before, in milliseconds since 1970.
    pub not_before_ms: i64,
    /// How often the delivery was attempted.
    #[serde(default)]
    pub attempts: i32,
    /// How often the delivery was parked.
    #[serde(default)]
    pub parkings: i32,
    #[serde(default)]
    pub reason: Reason,
    /// Delay buckets that this announcement has been through since it was made.
    #[serde(default)]
    pub hops: u32,
}

/// Why the delivery is announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// An attempt failed.
    Retry,
    /// It might not be tried when it was due.
    Parked,
    /// The sweep found it overdue.
    Sweep,
    /// A person asked for it.
    Manual,
    /// One that this version does not know.
    #[default]
    #[serde(other)]
    Other,
}

impl Announcement {
    /// Reads a delivery's body.
    ///
    /// # Errors
    /// [`BrokerError::Malformed`].
    pub fn read(delivery: &Delivery) -> Result<Self, BrokerError> {
        serde_json::from_slice(&delivery.body).map_err(|source| BrokerError::Malformed {
            what: "announcement",
            source,
        })
    }

    #[must_use]
    pub fn not_before(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.not_before_ms).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// How long there is still to wait.
    #[must_use]
    pub fn remaining(&self, now: DateTime<Utc>) -> Duration {
        let ms = self.not_before_ms.saturating_sub(now.timestamp_millis());
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }

    /// To the retry service: failed, parked, or taken too early.
    #[must_use]
    pub fn to_failed(&self, trace: &Trace) -> Message {
        self.message(Exchange::Deliveries, FAILED_KEY, trace)
    }

    /// To any dispatcher, at once.
    #[must_use]
    pub fn to_due(&self, trace: &Trace) -> Message {
        self.message(Exchange::Deliveries, DUE_KEY, trace)
    }

    /// Into the delay bucket for what remains to be waited, or straight to the dispatchers if nothing does. Both count
    /// as a hop. One that has made a hop before goes through a bucket in any case: by this clock its time has come, by
    /// that of whoever gave it back it has not, and it would go round between the two without a pause.
    #[must_use]
    pub fn to_delay(&self, now: DateTime<Utc>, trace: &Trace) -> (Message, Option<Bucket>) {
        let remaining = self.remaining(now);
        let next = Self {
            hops: self.hops.saturating_add(1),
            ..self.clone()
        };
        if remaining.is_zero() && self.hops == 0 {
            return (next.to_due(trace), None);
        }
        let bucket = bucket(remaining, self.hops);
        let message = next.message(Exchange::Delays, &bucket.routing_key(), trace);
        (message, Some(bucket))
    }

    /// Mandatory, so that a queue that is missing is noticed and left to the sweep.
    fn message(&self, exchange: Exchange, key: &str, trace: &Trace) -> Message {
        Message::json(exchange, key, self)
            .message_id(format!("{}.{}", self.delivery_id, self.turn))
            .trace(trace)
            .mandatory()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::topology::DUE_QUEUE;

    fn announcement() -> Announcement {
        Announcement {
            delivery_id: DeliveryId(Uuid::from_u128(7)),
            webhook_id: WebhookId(2),
            partner_id: PartnerId(3),
            turn: 4,
            not_before_ms: 10_000,
            attempts: 0,
            parkings: 0,
            reason: Reason::Retry,
            hops: 0,
        }
    }

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(ms).unwrap()
    }

    #[test]
    fn an_announcement_survives_the_broker_with_its_trace() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = Trace::new(Some(parent), None);
        let message = announcement().to_failed(&trace);
        assert_eq!(
            (message.exchange, message.routing_key.as_str()),
            (Exchange::Deliveries, "failed")
        );
        let delivery = Delivery::detached(DUE_QUEUE, message).unwrap();
        assert_eq!(Announcement::read(&delivery).unwrap(), announcement());
        assert_eq!(Trace::read(delivery.headers()), trace);
        delivery.receipt.ack();
    }

    #[test]
    fn a_wait_is_placed_into_a_bucket_and_counts_a_hop() {
        let (message, bucket) = announcement().to_delay(at(5_000), &Trace::default());
        assert_eq!(bucket.unwrap().delay(), Duration::from_secs(5));
        assert_eq!(
            (message.exchange, message.routing_key.as_str()),
            (Exchange::Delays, "5000")
        );
        let placed: Announcement = serde_json::from_slice(&message.body).unwrap();
        assert_eq!(placed.hops, 1);

        let (message, bucket) = announcement().to_delay(at(10_000), &Trace::default());
        assert_eq!(bucket, None);
        assert_eq!(message.routing_key, "due");
    }

    #[test]
    fn one_that_was_given_back_though_its_time_has_come_pauses_in_the_smallest_bucket() {
        let given_back = Announcement {
            hops: 1,
            ..announcement()
        };
        let (_, bucket) = given_back.to_delay(at(20_000), &Trace::default());
        assert_eq!(bucket.unwrap().delay(), Duration::from_secs(1));
    }

    #[test]
    fn later_versions_may_add_members_and_reasons() {
        let json =
            br#"{"delivery_id":"dlv_00000000000000000000000007","webhook_id":2,"partner_id":3,
            "turn":4,"not_before_ms":1,"reason":"tomorrow","more":[1]}"#;
        let read: Announcement = serde_json::from_slice(json).unwrap();
        assert_eq!(read.reason, Reason::Other);
        assert_eq!((read.hops, read.parkings), (0, 0));
    }

    #[test]
    fn a_time_in_the_past_leaves_nothing_to_wait() {
        assert_eq!(announcement().remaining(at(10_001)), Duration::ZERO);
        assert_eq!(
            announcement().remaining(at(9_999)),
            Duration::from_millis(1)
        );
    }
}
