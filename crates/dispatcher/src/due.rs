//! Later attempts: takes announcements that are due, and begins only those that Postgres says are.
//!
//! Reads the queue `due`; writes the start of an attempt through [`Starter`] and its end through [`Recorder`]. An
//! announcement is acknowledged once the row says who has the attempt: from then on the lease watches over it.

use std::sync::Arc;
use std::time::Duration;

use broker::announcement::Announcement;
use broker::dead_letter::DeadLetter;
use broker::trace::Trace;
use broker::{Delivery, Link};
use chrono::Utc;
use domain::id::DeliveryId;
use store::delivery::{StartRequest, Started, Starting};
use store::keyring::Keyring;
use store::record::{EndedAttempt, ParkedDelivery};
use store::{Store, StoreError};
use tracing::Instrument as _;

use crate::announce::Announcer;
use crate::attempt::{Attempts, Outgoing, Progress, PutOff, Verdict};
use crate::batch::{Answer, BatchQueue, Batcher, batches};
use crate::consume::Handle;
use crate::graveyard::Graveyard;
use crate::isolation::{Lane, Permit, Target};
use crate::metrics::Metrics;
use crate::record::Recorder;
use crate::subscriptions::Subscriptions;

/// Attempts begun by one statement.
pub const START_MAX: usize = 200;

pub type Starts = Batcher<StartRequest, Starting>;

/// Begins attempts, all that were asked for during one statement with the next.
pub struct Starter {
    queue: BatchQueue<StartRequest, Starting>,
    statements: Statements,
}

struct Statements {
    store: Store,
    keyring: Arc<Keyring>,
    lease: Duration,
}

/// Makes both ends. An attempt that has not ended within `lease` may be begun by another.
#[must_use]
pub fn starts(store: Store, keyring: Arc<Keyring>, lease: Duration) -> (Starts, Starter) {
    let (starts, queue) = batches(START_MAX);
    (
        starts,
        Starter {
            queue,
            statements: Statements {
                store,
                keyring,
                lease,
            },
        },
    )
}

impl Starter {
    pub async fn run(self) {
        self.queue.run(self.statements).await;
    }
}

impl Answer<StartRequest, Starting> for Statements {
    const WHAT: &'static str = "start attempts";

    async fn answer(&self, requests: &[StartRequest]) -> Result<Vec<Starting>, StoreError> {
        let mut connection = self.store.get().await?;
        store::delivery::start(&mut connection, &self.keyring, requests, self.lease).await
    }
}

/// Handles announcements.
pub struct Due {
    pub attempts: Arc<Attempts>,
    pub starts: Starts,
    pub subscriptions: Subscriptions,
    pub recorder: Recorder,
    pub announcer: Announcer,
    pub graveyard: Graveyard,
    pub metrics: Metrics,
}

impl Handle for Due {
    async fn handle(self: Arc<Self>, message: Delivery, link: Arc<Link>, _beside: usize) {
        let trace = Trace::read(message.headers());
        let result = match Announcement::read(&message) {
            Ok(announcement) => {
                let span = tracing::info_span!("retry", delivery_id = %announcement.delivery_id, turn = announcement.turn);
                trace.adopt(&span);
                self.take(announcement, &trace, message, &link)
                    .instrument(span)
                    .await
            }
            Err(error) => self.bury(message, &link, "malformed", &error.line()).await,
        };
        self.metrics
            .announcements
            .taken
            .with_label_values(&[result])
            .inc();
    }
}

impl Due {
    /// Returns what became of the announcement.
    async fn take(
        &self,
        announcement: Announcement,
        trace: &Trace,
        message: Delivery,
        link: &Link,
    ) -> &'static str {
        if announcement.not_before() > Utc::now() {
            return self.give_back(&announcement, trace, message);
        }
        let progress = progress(announcement.attempts, announcement.parkings);
        let target = self.attempts.while_patient(self.target(&announcement));
        let Some(target) = target.await else {
            return "put_back";
        };
        match self.attempts.admit(Lane::Due, target, progress, link).await {
            Ok(permit) => self.start(announcement, trace, message, link, permit).await,
            // The announcement goes back as it came: its row has not changed.
            Err(put_off) if put_off.is_handed_over() => "put_back",
            Err(put_off) => {
                self.park(announcement.delivery_id, announcement.turn, put_off)
                    .await;
                message.receipt.ack();
                "parked"
            }
        }
    }

    /// Whom the gate is asked for. What is known of a webhook that has no subscription now still counts.
    async fn target(&self, announcement: &Announcement) -> Target {
        let partner = self.subscriptions.of(announcement.partner_id).await;
        let epoch = partner
            .ok()
            .flatten()
            .and_then(|partner| partner.health_version(announcement.webhook_id));
        Target {
            webhook_id: announcement.webhook_id,
            partner_id: announcement.partner_id,
            epoch: epoch.map_or(0, |version| version.0.into()),
        }
    }

    async fn start(
        &self,
        announcement: Announcement,
        trace: &Trace,
        message: Delivery,
        link: &Link,
        permit: Permit,
    ) -> &'static str {
        runtime::fail_point!("due.taken");
        let request = StartRequest {
            delivery_id: announcement.delivery_id,
            turn: announcement.turn,
        };
        let starting = self.attempts.while_patient(self.starts.ask(request));
        let Some(starting) = starting.await.flatten() else {
            return "put_back";
        };
        match starting {
            Starting::Started(started) => {
                runtime::fail_point!("due.started");
                message.receipt.ack();
                self.attempt(*started, link, permit).await;
                "started"
            }
            Starting::Unreadable {
                turn,
                parkings,
                reason,
            } => {
                tracing::error!(reason, "a webhook can't be used: its delivery waits");
                let progress = progress(announcement.attempts, parkings);
                self.park(
                    announcement.delivery_id,
                    turn,
                    self.attempts.park_unreadable(progress),
                )
                .await;
                message.receipt.ack();
                "unreadable"
            }
            Starting::Early(at) => {
                let later = Announcement {
                    not_before_ms: at.timestamp_millis().saturating_add(1),
                    ..announcement
                };
                self.give_back(&later, trace, message)
            }
            Starting::Ended(_) => {
                message.receipt.ack();
                "ended"
            }
            Starting::Stale => {
                message.receipt.ack();
                "stale"
            }
            Starting::Missing => {
                self.bury(message, link, "missing", "there is no delivery of this id")
                    .await
            }
        }
    }

    async fn attempt(&self, started: Started, link: &Link, permit: Permit) {
        let progress = progress(started.number.saturating_sub(1), started.parkings);
        let (delivery_id, turn, number) = (started.delivery_id, started.turn, started.number);
        let subscription = Arc::new(started.subscription);
        let outgoing = Outgoing {
            subscription: Arc::clone(&subscription),
            event_id: started.event_id.into(),
            event_type: started.event_type.into(),
            body: started.body,
        };
        let verdict = self
            .attempts
            .send(Lane::Due, permit, &outgoing, link, progress)
            .await;
        match verdict {
            Verdict::Ended { step, attempt } => {
                let ended = EndedAttempt {
                    delivery_id,
                    turn,
                    number,
                    webhook_id: subscription.webhook_id,
                    sent_version: subscription.version,
                    health_version: subscription.health_version,
                    step,
                    attempt: *attempt,
                };
                self.recorder.ended(ended).await;
            }
            Verdict::PutOff(put_off) => self.park(delivery_id, turn, put_off).await,
        }
    }

    async fn park(&self, delivery_id: DeliveryId, turn: i32, PutOff { wait, reason }: PutOff) {
        self.recorder
            .parked(ParkedDelivery {
                delivery_id,
                turn,
                wait,
                reason,
            })
            .await;
    }

    fn give_back(
        &self,
        announcement: &Announcement,
        trace: &Trace,
        message: Delivery,
    ) -> &'static str {
        self.announcer.give_back(announcement, trace);
        message.receipt.ack();
        "early"
    }

    /// A reference that leads nowhere goes to the dead ones.
    async fn bury(
        &self,
        message: Delivery,
        link: &Link,
        result: &'static str,
        reason: &str,
    ) -> &'static str {
        let letter = DeadLetter::dead(&message, result, reason);
        if self.graveyard.keep(&letter, link).await {
            message.receipt.ack();
        }
        result
    }
}

fn progress(attempts: i32, parkings: i32) -> Progress {
    Progress {
        attempts: u32::try_from(attempts).unwrap_or(0),
        parkings: u32::try_from(parkings).unwrap_or(0),
    }
}
