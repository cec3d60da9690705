//! Tells the retry service of deliveries that were scheduled by a commit.
//!
//! Publishes references to `vellocity.deliveries` with the key `failed`. An announcement that is refused, or not
//! confirmed in time, is counted and left to the sweep: it never holds an event.

use std::time::Duration;

use broker::announcement::{Announcement, Reason};
use broker::trace::Trace;
use broker::{Message, Publisher};
use futures_util::{StreamExt as _, stream};
use store::record::Scheduled;
use tokio::sync::mpsc::{self, Receiver};

use crate::metrics::Metrics;

/// Announcements that wait to be published; what comes beyond is left to the sweep.
const WAITING_MAX: usize = 20_000;
/// How long announcements wait for each other. What is published together stays together on its whole way, through the
/// retry service, a delay bucket and back, and costs the broker half as much; the shortest wait for a retry is a second.
const GATHER: Duration = Duration::from_millis(20);
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
    receiver: Receiver<Message>,
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

/// All that comes within [`GATHER`] of the first, but no more than may be unconfirmed.
async fn burst<T>(mut receiver: Receiver<T>) -> Option<(Vec<T>, Receiver<T>)> {
    let mut burst = Vec::new();
    if receiver.recv_many(&mut burst, UNCONFIRMED_MAX).await == 0 {
        return None;
    }
    if burst.len() < UNCONFIRMED_MAX {
        tokio::time::sleep(GATHER).await;
        while burst.len() < UNCONFIRMED_MAX
            && let Ok(message) = receiver.try_recv()
        {
            burst.push(message);
        }
    }
    Some((burst, receiver))
}

impl Announcements {
    /// Publishes until nobody announces any more.
    pub async fn run(self) {
        let Self {
            receiver,
            publisher,
            metrics,
        } = self;
        stream::unfold(receiver, burst)
            .flat_map(stream::iter)
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

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_within_a_moment_goes_together() {
        let (sender, receiver) = mpsc::channel(8);
        sender.send(1).await.unwrap();
        let started = Instant::now();
        let arrive = async {
            sleep(GATHER / 2).await;
            sender.send(2).await.unwrap();
        };
        let (first, ()) = tokio::join!(burst(receiver), arrive);
        let (messages, receiver) = first.unwrap();
        assert_eq!((messages, started.elapsed()), (vec![1, 2], GATHER));
        drop(sender);
        assert!(burst(receiver).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_burst_waits_for_nothing() {
        let (sender, receiver) = mpsc::channel(2 * UNCONFIRMED_MAX);
        for number in 0..=UNCONFIRMED_MAX {
            sender.send(number).await.unwrap();
        }
        let started = Instant::now();
        let (messages, _receiver) = burst(receiver).await.unwrap();
        assert_eq!(messages.len(), UNCONFIRMED_MAX);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
