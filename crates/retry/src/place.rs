//! Puts what failed, or was parked, or was taken too early, into the delay bucket for the time that it has to wait.
//!
//! Reads `vellocity.deliveries.failed.v1`, which dispatchers fill; publishes to `vellocity.delays`, whose queues let
//! each message go to `vellocity.deliveries.due.v1` after their time. Postgres is not asked: all of an announcement
//! stands on the delivery's row too, so that one which gets nowhere is left to [`crate::sweep`].

use broker::announcement::Announcement;
use broker::topology::FAILED_QUEUE;
use broker::trace::Trace;
use broker::{Broker, BrokerError, Consumer, DeadLetter, Delivery, Publisher};
use chrono::Utc;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use runtime::Shutdown;

use crate::metrics::Metrics;

/// Why an announcement is no announcement, for programs.
const MALFORMED: &str = "malformed_announcement";

/// What placing needs.
#[derive(Clone)]
pub struct Placing {
    pub publisher: Publisher,
    pub metrics: Metrics,
}

/// Places announcements over all links to come, until the service ends.
pub async fn run(placing: &Placing, broker: &Broker, prefetch: u16, shutdown: &Shutdown) {
    loop {
        let link = tokio::select! {
            () = shutdown.begun() => return,
            link = broker.link() => link,
        };
        let Some(link) = link else { return };
        match link.consume(FAILED_QUEUE, prefetch, "retry.place").await {
            Ok(consumer) => placing.work(consumer, shutdown).await,
            // The link is lost with it, so that there is a pause before the next one.
            Err(error) => tracing::warn!(error = %error.line(), "can't consume {FAILED_QUEUE}"),
        }
        if shutdown.has_begun() {
            return;
        }
    }
}

impl Placing {
    /// Places what one consumer gets, many at a time, until its link is lost or the service ends; then finishes what
    /// it has begun.
    async fn work(&self, mut consumer: Consumer, shutdown: &Shutdown) {
        let mut placing = FuturesUnordered::new();
        let (mut open, mut cancelled) = (true, false);
        while open || !placing.is_empty() {
            tokio::select! {
                Some(()) = placing.next() => {}
                delivery = consumer.next(), if open => match delivery {
                    Some(delivery) => placing.push(self.place(delivery)),
                    None => open = false,
                },
                () = shutdown.begun(), if !cancelled => {
                    cancelled = true;
                    consumer.cancel().await;
                }
            }
        }
        consumer.flush().await;
    }

    /// One announcement on its way. It is acknowledged whatever becomes of it: the row knows all that it says.
    pub async fn place(&self, delivery: Delivery) {
        let announcement = match Announcement::read(&delivery) {
            Ok(announcement) => announcement,
            Err(error) => return self.bury(delivery, &error).await,
        };
        let trace = Trace::read(delivery.headers());
        let (message, bucket) = announcement.to_delay(Utc::now(), &trace);
        let span = tracing::info_span!(
            "place",
            delivery_id = %announcement.delivery_id,
            turn = announcement.turn,
            hops = announcement.hops,
            bucket_ms = bucket.map(|b| b.delay_ms()),
        );
        trace.adopt(&span);
        runtime::fail_point!("place.publish");
        match tracing::Instrument::instrument(self.publisher.publish(message), span).await {
            Ok(()) => match bucket {
                Some(bucket) => self.metrics.placed(bucket, announcement.hops),
                None => self.metrics.placed_due(),
            },
            Err(error) => self.metrics.publish_failed(&error),
        }
        runtime::fail_point!("place.published");
        delivery.receipt.ack();
    }

    /// What can't be read has no row to fall back on, so that it is acknowledged only once it is safe elsewhere. The
    /// broker itself buries it where we can't, though without our words.
    async fn bury(&self, delivery: Delivery, error: &BrokerError) {
        self.metrics.malformed(error);
        let message = DeadLetter::dead(&delivery, MALFORMED, &error.line()).message();
        runtime::fail_point!("bury.publish");
        match self.publisher.publish(message).await {
            Ok(()) => {
                runtime::fail_point!("bury.published");
                delivery.receipt.ack();
            }
            Err(error) => {
                self.metrics.publish_failed(&error);
                delivery.receipt.reject();
            }
        }
    }
}
