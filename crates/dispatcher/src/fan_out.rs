//! From a message to a row for every matched webhook.
//!
//! Reads the shards of `vellocity.events`; claims the event, makes the first attempts, and has everything recorded in
//! one transaction. The message is acknowledged when, and only when, that transaction is committed. Next come
//! [`crate::record`] and, for what failed, the retry service.

mod claimed;
mod holder;

use std::sync::Arc;
use std::time::Duration;

use broker::dead_letter::{DeadLetter, SENT_AGAIN};
use broker::trace::Trace;
use broker::{Delivery, Link};
use domain::event::Event;
use domain::rejection::{Rejection, RejectionCode};
use store::claim::{Claim, ClaimRequest, ClaimSeed};
use store::record::Marking;
use tokio::sync::RwLock;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::attempt::Attempts;
use crate::catalogue::Catalogue;
use crate::claims::{ClaimLane, Claims};
use crate::consume::Handle;
use crate::first_attempts::{FirstAttempts, Origin};
use crate::graveyard::Graveyard;
use crate::metrics::Metrics;
use crate::record::Recorder;
use crate::subscriptions::{LoaderGone, Subscriptions};
use claimed::Claimed;

/// A message that came back this often is handled alone: it may be what kills its process.
const ALONE_AFTER: u32 = 3;
/// From so many events of a shard under way on, also those that wait for receivers, the next one is claimed with the crowd.
const CROWD: usize = 64;
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
    /// Held by every event until its claim is answered, and alone by one that came back too often.
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
        let preparing = self
            .attempts
            .while_patient(self.prepare(&message, &link, lane));
        // A message of a lost link is somebody else's: what waits for Postgres gives it up.
        let prepared = tokio::select! {
            prepared = preparing => prepared.unwrap_or(Err(Fate::Back)),
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
        self.metrics.events.taken.with_label_values(&[result]).inc();
    }

    async fn reject(&self, message: Delivery, link: &Link, rejection: &Rejection) -> &'static str {
        let (code, reason) = (rejection.code.as_str(), &rejection.reason);
        tracing::info!(code, reason, "event rejected");
        let letter = DeadLetter::rejected(&message, rejection);
        let result = self.bury(message, link, &letter, "rejected").await;
        if result != PUT_BACK {
            self.metrics
                .events
                .rejected
                .with_label_values(&[code])
                .inc();
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

    /// A message that came back too often goes through this alone, the first time: once it has, it is not what kills us.
    async fn prepare_first(
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
