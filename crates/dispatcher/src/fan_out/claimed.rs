//! An event whose claim is held: whom it goes to, and the rows that it is recorded with.

use std::sync::Arc;

use broker::Delivery;
use broker::trace::Trace;
use bytes::Bytes;
use domain::event::Event;
use domain::id::{DeliveryId, EventKey};
use store::claim::{ClaimRequest, ClaimSeed};
use store::record::{NewDelivery, RecordedEvent, Step};

use super::FanOut;
use crate::attempt::{Progress, PutOff};
use crate::first_attempts::{State, Target};
use crate::record::Coming;
use crate::subscriptions::Partner;

/// An event that this process holds the claim of.
pub struct Claimed {
    pub coming: Coming,
    pub key: EventKey,
    pub event: Event,
    pub partner: Arc<Partner>,
    pub body: Bytes,
}

impl Claimed {
    pub fn targets(&self) -> Vec<Target> {
        self.partner
            .matching(&self.event.event_type)
            .iter()
            .map(|subscription| Target {
                delivery_id: new_id(self.key),
                subscription: subscription.clone(),
            })
            .collect()
    }

    /// The question of a copy that takes over only what was given up.
    pub fn as_fresh_copy(&self) -> ClaimRequest {
        ClaimRequest {
            partner_id: self.event.partner_id,
            event_id: self.event.id.clone(),
            content_hash: self.event.content_hash,
            takeover: false,
            seed: ClaimSeed::random(),
        }
    }

    pub fn recorded(
        self,
        message: &Delivery,
        deliveries: Vec<NewDelivery>,
    ) -> (Coming, RecordedEvent) {
        // The span's own context where traces are exported, so that a retry hangs below the event.
        let trace = Trace::current().or(Trace::read(message.headers()));
        let event = RecordedEvent {
            key: self.key,
            partner_id: self.event.partner_id,
            event_id: self.event.id,
            event_type: self.event.event_type,
            content_hash: self.event.content_hash,
            occurred_at: self.event.timestamp,
            body: self.body,
            app_id: message.properties.app_id().map(str::to_owned),
            trace: store::record::Trace {
                traceparent: trace.traceparent().map(str::to_owned),
                tracestate: trace.tracestate().map(str::to_owned),
            },
            deliveries,
        };
        (self.coming, event)
    }
}

impl FanOut {
    /// Rows for webhooks that match but can't be used now.
    pub(super) fn unreadable(&self, claimed: &Claimed) -> impl Iterator<Item = NewDelivery> {
        let unreadable = claimed.partner.unreadable(&claimed.event.event_type);
        unreadable.map(|webhook| NewDelivery {
            id: new_id(claimed.key),
            webhook_id: webhook.webhook_id,
            webhook_version: webhook.version,
            health_version: webhook.health_version,
            expire_after: self.attempts.policy.expire_after,
            step: self.attempts.park_unreadable(Progress::default()).into(),
            attempt: None,
        })
    }

    pub(super) fn row(&self, target: &Target, state: &State) -> NewDelivery {
        let (step, attempt) = match state {
            State::Running => (Step::InFlight { lease: self.lease }, None),
            State::Ended { step, attempt } => (*step, Some((**attempt).clone())),
            State::PutOff(PutOff { wait, reason }) => (
                Step::Parked {
                    wait: *wait,
                    reason: *reason,
                },
                None,
            ),
        };
        NewDelivery {
            id: target.delivery_id,
            webhook_id: target.subscription.webhook_id,
            webhook_version: target.subscription.version,
            health_version: target.subscription.health_version,
            expire_after: self.attempts.policy.expire_after,
            step,
            attempt,
        }
    }
}

fn new_id(key: EventKey) -> DeliveryId {
    DeliveryId::for_event(key, rand::random())
}
