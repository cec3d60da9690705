//! From a message to a row for every matched webhook.
//!
//! Reads the shards of `vellocity.events`; claims the event, makes the first attempts, and has everything recorded in
//! one transaction. The message is acknowledged when, and only when, that transaction is committed. Next come
//! [`crate::record`] and, for what failed, the retry service.

use std::sync::Arc;
use std::time::Duration;

use broker::dead_letter::{DeadLetter, SENT_AGAIN};
use broker::trace::Trace;
use broker::{Delivery, Link};
use bytes::Bytes;
use domain::event::Event;
use domain::id::{DeliveryId, EventKey};
use domain::rejection::{Rejection, RejectionCode};
use runtime::Backoff;
use store::claim::{Claim, ClaimRequest, ClaimSeed};
use store::record::{Marking, NewDelivery, RecordedEvent, Step};
use tokio::sync::RwLock;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::attempt::{Attempts, Progress, PutOff};
use crate::catalogue::Catalogue;
use crate::claims::{ClaimLane, Claims};
use crate::consume::Handle;
use crate::first_attempts::{FirstAttempts, Origin, State, Target};
use crate::graveyard::Graveyard;
use crate::metrics::Metrics;
use crate::record::{Coming, Recorder};
use crate::subscriptions::{LoaderGone, Partner, Subscriptions};

/// A message that came back this often is handled alone: it may be what kills its process.
const ALONE_AFTER: u32 = 3;
/// From so many events of a shard under way on, also those that wait for receivers, the next one is claimed with the crowd.
const CROWD: usize = 64;
/// How often a copy that may take a claim over looks whether its holder has recorded it.
const HOLDER_ASKED_EVERY: Duration = Duration::from_millis(200);
/// What became of a message that goes back.
const PUT_BACK: &str = "put_back";

/// Handles events.
pub struct FanOut {
    pub catalogue: Catalogue,
    pub subscriptions: Subscriptions,
    pub claims: Claims,
    pub attempts: Arc<Attempts>,
    pub recorder: Recorder,
    pub graveyard: Graveyard,
    pub metrics: Metrics,
    /// Attempts that outlive their event's message.
    pub stragglers: TaskTracker,
    /// How long an event is held for an answer; what takes longer is recorded as in flight.
    pub hold: Duration,
    pub lease: Duration,
    /// Held by every event until its claim is made, and alone by one that came back too often.
    pub alone: RwLock<()>,
}

/// What becomes of the message.
enum Fate {
    Done(&'static str),
    /// It may take over the claim that another copy holds, and not yet.
    HolderIsYoung,
    Rejected(Rejection),
    /// Nobody can do anything about it; the sentence says why.
    Dead(String),
    /// It goes back to its queue.
    Back,
}

/// An event that this process holds the claim of.
struct Claimed {
    coming: Coming,
    key: EventKey,
    event: Event,
    partner: Arc<Partner>,
    body: Bytes,
}

impl Handle for FanOut {
    async fn handle(self: Arc<Self>, message: Delivery, link: Arc<Link>, beside: usize) {
        let span = tracing::info_span!(
            "process event",
            otel.kind = "consumer",
            messaging.system = "rabbitmq",
            "messaging.operation.type" = "process",
            messaging.rabbitmq.destination.routing_key = message.routing_key,
        );
        Trace::read(message.headers()).adopt(&span);
        let lane = if beside < CROWD {
            ClaimLane::Express
        } else {
            ClaimLane::Crowd
        };
        self.settle(message, link, lane).instrument(span).await;
    }
}

impl FanOut {
    async fn settle(&self, message: Delivery, link: Arc<Link>, lane: ClaimLane) {
        // A message of a lost link is somebody else's: what waits for Postgres gives it up.
        let prepared = tokio::select! {
            prepared = self.prepare(&message, &link, lane) => prepared,
            () = link.lost() => Err(Fate::Back),
        };
        let fate = match prepared {
            Ok(claimed) => self.deliver(claimed, &message, &link).await,
            Err(fate) => fate,
        };
        let result = match fate {
            Fate::Done(result) => {
                message.receipt.ack();
                result
            }
            Fate::Rejected(rejection) => self.reject(message, &link, &rejection).await,
            Fate::Dead(reason) => {
                let letter = DeadLetter::dead(&message, "not_recorded", &reason);
                self.bury(message, &link, &letter, "dead").await
            }
            Fate::HolderIsYoung | Fate::Back => {
                message.receipt.requeue();
                PUT_BACK
            }
        };
        self.metrics.events.with_label_values(&[result]).inc();
    }

    async fn reject(&self, message: Delivery, link: &Link, rejection: &Rejection) -> &'static str {
        let (code, reason) = (rejection.code.as_str(), &rejection.reason);
        tracing::info!(code, reason, "event rejected");
        let letter = DeadLetter::rejected(&message, rejection);
        let result = self.bury(message, link, &letter, "rejected").await;
        if result != PUT_BACK {
            self.metrics.rejections.with_label_values(&[code]).inc();
        }
        result
    }

    async fn bury(
        &self,
        message: Delivery,
        link: &Link,
        letter: &DeadLetter,
        result: &'static str,
    ) -> &'static str {
        if self.graveyard.keep(letter, link).await {
            message.receipt.ack();
            result
        } else {
            message.receipt.requeue();
            PUT_BACK
        }
    }

    /// All that comes before anything is sent. A copy that may take the claim over waits for its holder first.
    async fn prepare(
        &self,
        message: &Delivery,
        link: &Link,
        lane: ClaimLane,
    ) -> Result<Claimed, Fate> {
        loop {
            match self.prepare_now(message, link, lane).await {
                Err(Fate::HolderIsYoung) => tokio::select! {
                    () = tokio::time::sleep(HOLDER_ASKED_EVERY) => {}
                    () = self.attempts.draining.cancelled() => return Err(Fate::Back),
                },
                prepared => return prepared,
            }
        }
    }

    /// A message that came back too often goes through this alone.
    async fn prepare_now(
        &self,
        message: &Delivery,
        link: &Link,
        lane: ClaimLane,
    ) -> Result<Claimed, Fate> {
        if message.delivery_count() >= ALONE_AFTER {
            let _alone = self.alone.write().await;
            self.claim(message, link, ClaimLane::Express).await
        } else {
            let _together = self.alone.read().await;
            self.claim(message, link, lane).await
        }
    }

    async fn claim(
        &self,
        message: &Delivery,
        link: &Link,
        lane: ClaimLane,
    ) -> Result<Claimed, Fate> {
        let event = broker::envelope::decode(message).map_err(Fate::Rejected)?;
        self.catalogue.check(&event).await.map_err(Fate::Rejected)?;
        let partner = match self.subscriptions.of(event.partner_id).await {
            Ok(Some(partner)) => partner,
            Ok(None) => return Err(Fate::Rejected(unknown_partner(&event))),
            Err(LoaderGone) => return Err(Fate::Back),
        };
        if !self.attempts.pulse.may_send(link) || self.attempts.draining.is_cancelled() {
            return Err(Fate::Back);
        }
        let takeover = message.came_back() || message.headers().contains(SENT_AGAIN);
        let request = ClaimRequest {
            partner_id: event.partner_id,
            event_id: event.id.clone(),
            content_hash: event.content_hash,
            takeover,
            seed: ClaimSeed::random(),
        };
        let coming = self.recorder.expect_event();
        match self.claims.ask(lane, request).await {
            Some(Claim::Held(key)) => {
                let body = event.render();
                Ok(Claimed {
                    coming,
                    key,
                    event,
                    partner,
                    body,
                })
            }
            Some(Claim::Duplicate) => Err(Fate::Done("duplicate")),
            Some(Claim::InProgress) if takeover => Err(Fate::HolderIsYoung),
            Some(Claim::InProgress) => Err(Fate::Done("in_progress")),
            Some(Claim::Conflict) => Err(Fate::Rejected(id_conflict(&event))),
            None => Err(Fate::Back),
        }
    }

    /// Makes the first attempts and records the event with what became of them.
    async fn deliver(&self, claimed: Claimed, message: &Delivery, link: &Arc<Link>) -> Fate {
        runtime::fail_point!("fan_out.claimed");
        let from = Origin {
            link: link.clone(),
            taken_at: message.received_at,
        };
        let targets = claimed.targets();
        let mut first = FirstAttempts::start(
            &self.attempts,
            &claimed.event,
            &claimed.body,
            targets,
            &from,
        );
        first.run(self.hold).await;
        runtime::fail_point!("fan_out.attempted");
        if first.can_go_back() {
            return Fate::Back;
        }
        let mut deliveries: Vec<_> = first
            .states()
            .map(|(target, state)| self.row(target, state))
            .collect();
        deliveries.extend(self.unreadable(&claimed));
        let claim = claimed.as_fresh_copy();
        let conflict = id_conflict(&claimed.event);
        let (coming, event) = claimed.recorded(message, deliveries);
        let recorded = self.recorder.event(coming, event);
        // Attempts still under way go on meanwhile, and end in rows of their own once the event is recorded.
        let recording = match first.into_stragglers() {
            None => recorded.await,
            Some(stragglers) => {
                stragglers
                    .follow(recorded, self.recorder.clone(), &self.stragglers)
                    .await
            }
        };
        match recording {
            Some(Ok(Marking::Recorded)) => Fate::Done("recorded"),
            Some(Ok(Marking::Conflict)) => Fate::Rejected(conflict),
            Some(Ok(Marking::TakenOver)) => tokio::select! {
                fate = self.await_holder(claim, conflict) => fate,
                () = link.lost() => Fate::Back,
                () = self.attempts.draining.cancelled() => Fate::Back,
            },
            // Never back: it would be sent again, and refused again.
            Some(Err(reason)) => Fate::Dead(reason),
            None => Fate::Back,
        }
    }

    /// Waits for whoever took the claim over, as a fresh copy would. To go back at once would be to take it over in turn,
    /// and two that record slowly would send the event again and again.
    async fn await_holder(&self, claim: ClaimRequest, conflict: Rejection) -> Fate {
        let mut backoff = Backoff::default();
        loop {
            tokio::time::sleep(backoff.next_delay()).await;
            match self.claims.ask(ClaimLane::Express, claim.clone()).await {
                Some(Claim::InProgress) => {}
                Some(Claim::Duplicate) => return Fate::Done("duplicate"),
                Some(Claim::Conflict) => return Fate::Rejected(conflict),
                // Whoever had it has given it up: it is this message's turn again.
                Some(Claim::Held(_)) | None => return Fate::Back,
            }
        }
    }

    /// Rows for webhooks that match but can't be used now.
    fn unreadable(&self, claimed: &Claimed) -> impl Iterator<Item = NewDelivery> {
        let unreadable = claimed.partner.unreadable(&claimed.event.event_type);
        unreadable.map(|webhook| NewDelivery {
            id: new_id(claimed.key),
            webhook_id: webhook.webhook_id,
            webhook_version: webhook.version,
            expire_after: self.attempts.policy.expire_after,
            step: self.attempts.park_unreadable(Progress::default()).into(),
            attempt: None,
        })
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

impl Claimed {
    fn targets(&self) -> Vec<Target> {
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
    fn as_fresh_copy(&self) -> ClaimRequest {
        ClaimRequest {
            partner_id: self.event.partner_id,
            event_id: self.event.id.clone(),
            content_hash: self.event.content_hash,
            takeover: false,
            seed: ClaimSeed::random(),
        }
    }

    fn recorded(self, message: &Delivery, deliveries: Vec<NewDelivery>) -> (Coming, RecordedEvent) {
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
