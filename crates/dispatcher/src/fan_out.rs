//! From a message to a row for every matched webhook.
//!
//! Reads the shards of `vellocity.events`; claims the event, makes the first attempts, and has everything recorded in
//! one transaction. The message is acknowledged when, and only when, that transaction is committed. Next come
//! [`crate::record`] and, for what failed, the retry service.

use std::sync::Arc;
use std::time::Duration;

use broker::trace::Trace;
use broker::{Delivery, Link};
use domain::event::Event;
use domain::id::{DeliveryId, EventKey};
use domain::rejection::{Rejection, RejectionCode};
use store::claim::{Claim, ClaimRequest};
use store::record::{Marking, NewDelivery, RecordedEvent, Step};
use tokio::sync::RwLock;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::attempt::{Attempts, PutOff};
use crate::catalogue::Catalogue;
use crate::claims::Claims;
use crate::consume::Handle;
use crate::first_attempts::{FirstAttempts, State, Target};
use crate::metrics::Metrics;
use crate::record::Recorder;
use crate::reject::Rejecter;
use crate::subscriptions::{Partner, Subscriptions};

/// A message that came back this often is handled alone: it may be what kills its process.
const ALONE_AFTER: u32 = 3;
/// How long a message waits whose claim somebody else holds, before it goes back.
const TAKEN_OVER_WAIT: Duration = Duration::from_secs(1);
/// Set on events that a person sends again.
pub const SENT_AGAIN: &str = "x-vellocity-requeued";

/// Handles events.
pub struct FanOut {
    pub catalogue: Catalogue,
    pub subscriptions: Subscriptions,
    pub claims: Claims,
    pub attempts: Arc<Attempts>,
    pub recorder: Recorder,
    pub rejecter: Rejecter,
    pub metrics: Metrics,
    /// Attempts that outlive their event's message.
    pub stragglers: TaskTracker,
    /// How long an event is held for an answer; what takes longer is recorded as in flight.
    pub hold: Duration,
    pub lease: Duration,
    /// Held by every event, and alone by one that came back too often.
    pub alone: RwLock<()>,
}

/// What becomes of the message.
enum Fate {
    Done(&'static str),
    Rejected(Rejection),
    /// It goes back to its queue.
    Back,
}

impl Handle for FanOut {
    async fn handle(self: Arc<Self>, message: Delivery, link: Arc<Link>) {
        let span = tracing::info_span!("event", routing_key = message.routing_key);
        Trace::read(message.headers()).adopt(&span);
        self.settle(message, link).instrument(span).await;
    }
}

impl FanOut {
    async fn settle(&self, message: Delivery, link: Arc<Link>) {
        let fate = if message.delivery_count() >= ALONE_AFTER {
            let _alone = self.alone.write().await;
            self.decide(&message, &link).await
        } else {
            let _together = self.alone.read().await;
            self.decide(&message, &link).await
        };
        let result = match fate {
            Fate::Done(result) => {
                message.receipt.ack();
                result
            }
            Fate::Rejected(rejection) => {
                self.rejecter.reject(message, &rejection).await;
                "rejected"
            }
            Fate::Back => {
                message.receipt.requeue();
                "put_back"
            }
        };
        self.metrics.events.with_label_values(&[result]).inc();
    }

    async fn decide(&self, message: &Delivery, link: &Arc<Link>) -> Fate {
        let event = match broker::envelope::decode(message) {
            Ok(event) => event,
            Err(rejection) => return Fate::Rejected(rejection),
        };
        if let Err(rejection) = self.catalogue.check(&event).await {
            return Fate::Rejected(rejection);
        }
        let Some(partner) = self.subscriptions.of(event.partner_id).await else {
            return Fate::Rejected(unknown_partner(&event));
        };
        if !self.attempts.pulse.may_send(link) || self.attempts.draining.is_cancelled() {
            return Fate::Back;
        }
        let request = ClaimRequest {
            partner_id: event.partner_id,
            event_id: event.id.clone(),
            content_hash: event.content_hash,
            takeover: message.redelivered || message.headers().contains(SENT_AGAIN),
        };
        match self.claims.ask(request).await {
            Some(Claim::Held(key)) => self.deliver(key, event, &partner, message, link).await,
            Some(Claim::Duplicate) => Fate::Done("duplicate"),
            Some(Claim::InProgress) => Fate::Done("in_progress"),
            Some(Claim::Conflict) => Fate::Rejected(id_conflict(&event)),
            None => Fate::Back,
        }
    }

    /// Makes the first attempts and records the event with what became of them.
    async fn deliver(
        &self,
        key: EventKey,
        event: Event,
        partner: &Partner,
        message: &Delivery,
        link: &Arc<Link>,
    ) -> Fate {
        let body = event.render();
        let targets: Vec<Target> = partner
            .matching(&event.event_type)
            .iter()
            .map(|subscription| Target {
                delivery_id: new_id(key),
                subscription: subscription.clone(),
            })
            .collect();
        if !targets.is_empty() {
            self.metrics
                .first_attempt_delay_seconds
                .observe(message.received_at.elapsed().as_secs_f64());
        }
        let mut first = FirstAttempts::start(&self.attempts, &event, &body, targets, link);
        first.run(self.hold).await;
        if first.nothing_was_sent() && link.is_lost() {
            return Fate::Back;
        }
        let mut deliveries: Vec<_> = first
            .states()
            .map(|(target, state)| self.row(target, state))
            .collect();
        deliveries.extend(partner.unreadable(&event.event_type).map(|unreadable| {
            NewDelivery {
                id: new_id(key),
                webhook_id: unreadable.webhook_id,
                webhook_version: unreadable.version,
                expire_after: self.attempts.policy.expire_after,
                step: self
                    .attempts
                    .park_unreadable(crate::attempt::Progress::default())
                    .into(),
                attempt: None,
            }
        }));
        let recorded = self
            .recorder
            .event(recorded_event(key, &event, body, message, deliveries));
        // Attempts still under way go on meanwhile, and end in rows of their own once the event is recorded.
        let marking = match first.into_stragglers() {
            None => recorded.await,
            Some(stragglers) => {
                stragglers
                    .follow(recorded, self.recorder.clone(), &self.stragglers)
                    .await
            }
        };
        match marking {
            Some(Marking::Recorded) => Fate::Done("recorded"),
            Some(Marking::TakenOver) => {
                tokio::time::sleep(TAKEN_OVER_WAIT).await;
                Fate::Back
            }
            None => Fate::Back,
        }
    }

    fn row(&self, target: &Target, state: &State) -> NewDelivery {
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
            expire_after: self.attempts.policy.expire_after,
            step,
            attempt,
        }
    }
}

fn new_id(key: EventKey) -> DeliveryId {
    DeliveryId::for_event(key, rand::random())
}

fn recorded_event(
    key: EventKey,
    event: &Event,
    body: bytes::Bytes,
    message: &Delivery,
    deliveries: Vec<NewDelivery>,
) -> RecordedEvent {
    // The span's own context where traces are exported, so that a retry hangs below the event.
    let trace = Trace::current().or(Trace::read(message.headers()));
    RecordedEvent {
        key,
        partner_id: event.partner_id,
        event_id: event.id.clone(),
        event_type: event.event_type.clone(),
        content_hash: event.content_hash,
        occurred_at: event.timestamp,
        body,
        app_id: message.properties.app_id().map(str::to_owned),
        trace: store::record::Trace {
            traceparent: trace.traceparent().map(str::to_owned),
            tracestate: trace.tracestate().map(str::to_owned),
        },
        deliveries,
    }
}

fn unknown_partner(event: &Event) -> Rejection {
    let reason = format!("There is no partner {}.", event.partner_id);
    Rejection::new(RejectionCode::UnknownPartner, reason)
}

fn id_conflict(event: &Event) -> Rejection {
    let reason = format!(
        "The id {} was used for another event of partner {} in the last 24 hours: with another type, or other data.",
        event.id, event.partner_id
    );
    Rejection::new(RejectionCode::IdConflict, reason)
}
