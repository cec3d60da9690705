//! Tells the retry service of deliveries that were scheduled by a commit.
//!
//! Publishes references to `vellocity.deliveries` with the key `failed`. An announcement that is refused, or not
//! confirmed in time, is counted and left to the sweep: it never holds an event.

use broker::announcement::{Announcement, Reason};
use broker::trace::Trace;
use broker::{Message, Publisher};
use futures_util::{StreamExt as _, stream};
use store::record::Scheduled;
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// Announcements that wait to be published; what comes beyond is left to the sweep.
const WAITING_MAX: usize = 20_000;
/// Announcements whose confirms are awaited at a time.
const UNCONFIRMED_MAX: usize = 512;

/// The handle; cheap to clone, never waits.
#[derive(Clone, Debug)]
pub struct Announcer {
    sender: mpsc::Sender<Message>,
    metrics: Metrics,
}

/// Publishes what was handed over.
pub struct Announcements {
    receiver: mpsc::Receiver<Message>,
    publisher: Publisher,
    metrics: Metrics,
}

/// Makes both ends.
#[must_use]
pub fn announcer(publisher: Publisher, metrics: Metrics) -> (Announcer, Announcements) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (
        Announcer {
            sender,
            metrics: metrics.clone(),
        },
        Announcements {
            receiver,
            publisher,
            metrics,
        },
    )
}

impl Announcer {
    /// Announces what a commit scheduled.
    pub fn announce(&self, scheduled: Vec<Scheduled>) {
        for delivery in scheduled {
            let trace = Trace::new(
                delivery.trace.traceparent.as_deref(),
                delivery.trace.tracestate.as_deref(),
            );
            self.hand_over(reference(&delivery).to_failed(&trace));
        }
    }

    /// Gives an announcement that came too early back to the retry service.
    pub fn give_back(&self, announcement: &Announcement, trace: &Trace) {
        self.hand_over(announcement.to_failed(trace));
    }

    fn hand_over(&self, message: Message) {
        if self.sender.try_send(message).is_err() {
            self.metrics
                .announcements
                .sent
                .with_label_values(&["left_to_sweep"])
                .inc();
        }
    }
}

fn reference(delivery: &Scheduled) -> Announcement {
    Announcement {
        delivery_id: delivery.delivery_id,
        webhook_id: delivery.webhook_id,
        partner_id: delivery.partner_id,
        turn: delivery.turn,
        // Rounded up: a millisecond early is early.
        not_before_ms: delivery
            .next_attempt_at
            .timestamp_millis()
            .saturating_add(1),
        attempts: delivery.attempts,
        parkings: delivery.parkings,
        reason: if delivery.parked {
            Reason::Parked
        } else {
            Reason::Retry
        },
        hops: 0,
    }
}

impl Announcements {
    /// Publishes until nobody announces any more.
    pub async fn run(self) {
        let Self {
            mut receiver,
            publisher,
            metrics,
        } = self;
        stream::poll_fn(|context| receiver.poll_recv(context))
            .for_each_concurrent(UNCONFIRMED_MAX, async |message| {
                runtime::fail_point!("announce.publish");
                let result = match publisher.publish(message).await {
                    Ok(()) => "confirmed",
                    Err(error) => {
                        tracing::debug!(%error, "an announcement is left to the sweep");
                        "left_to_sweep"
                    }
                };
                metrics
                    .announcements
                    .sent
                    .with_label_values(&[result])
                    .inc();
            })
            .await;
    }
}
