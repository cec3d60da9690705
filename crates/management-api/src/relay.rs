//! Subscription changes from the outbox to RabbitMQ. Takes entries of `outbox` under a lease, publishes them with
//! confirms outside of any transaction, and deletes what was confirmed. Woken by a change made in this process, and
//! every half second for the changes of others. After a crash in between the lease ends and the entry is published
//! again: dispatchers only drop what they know of the partner, so twice does no harm.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::subscription::SubscriptionChange;
use broker::trace::Trace;
use broker::{Broker, Publisher};
use futures_util::future::join_all;
use runtime::{Backoff, Shutdown};
use store::outbox::{self, Entry};
use store::{Store, StoreError};
use tokio::sync::Notify;

use crate::gateway::Database;
use crate::metrics::Metrics;

/// Entries of one step.
const BATCH: u32 = 100;
/// Longer than a publisher waits for its confirm, and the time between a crash and the next try.
const LEASE: Duration = Duration::from_secs(30);
/// A change of another process, or one whose wake-up was lost, waits this long at most.
const INTERVAL: Duration = Duration::from_millis(500);
/// How often what waits is counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// Wakes the relay of this process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

pub struct Relay {
    pub store: Store,
    pub database: Database,
    pub broker: Broker,
    pub publisher: Publisher,
    pub metrics: Metrics,
    pub wake: Wake,
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Entries taken.
    pub leased: usize,
    /// Those of them that the broker confirmed, and that are gone.
    pub published: usize,
}

impl Relay {
    /// Publishes up to a hundred entries. Does nothing while RabbitMQ is away, so that no lease is taken in vain.
    ///
    /// # Errors
    /// Those of the store. Entries that were published may stay, and are published again.
    pub async fn step(&self) -> Result<Step, StoreError> {
        if !self.broker.state().is_ready() {
            return Ok(Step::default());
        }
        let mut conn = self.store.get().await?;
        let entries = outbox::lease(&mut conn, BATCH, LEASE).await?;
        // Not held while the broker is waited for.
        drop(conn);
        if entries.is_empty() {
            return Ok(Step::default());
        }
        let confirmed = join_all(entries.iter().map(|entry| self.publish(entry))).await;
        let ids = |wanted: bool| -> Vec<i64> {
            let both = entries.iter().zip(&confirmed);
            both.filter(|(_, confirmed)| **confirmed == wanted)
                .map(|(entry, _)| entry.id)
                .collect()
        };
        let (done, failed) = (ids(true), ids(false));
        let mut conn = self.store.get().await?;
        outbox::confirm(&mut conn, &done).await?;
        if !failed.is_empty() {
            outbox::release(&mut conn, &failed).await?;
        }
        self.metrics.outbox_published.inc_by(done.len() as u64);
        self.metrics.outbox_failed.inc_by(failed.len() as u64);
        Ok(Step {
            leased: entries.len(),
            published: done.len(),
        })
    }

    /// Whether the broker has confirmed the entry.
    async fn publish(&self, entry: &Entry) -> bool {
        let change = match serde_json::from_str::<SubscriptionChange>(&entry.payload) {
            Ok(change) => change,
            Err(error) => {
                tracing::error!(id = entry.id, %error, "an entry of the outbox can't be read");
                return false;
            }
        };
        runtime::fail_point!("relay.publish");
        match self
            .publisher
            .publish(change.message(&Trace::default()))
            .await
        {
            Ok(()) => {
                runtime::fail_point!("relay.published");
                true
            }
            Err(error) => {
                tracing::warn!(id = entry.id, %error, "a subscription change was not confirmed");
                false
            }
        }
    }

    /// Steps until the shutdown has begun, and once more then for what the last requests have left.
    pub async fn run(self, shutdown: Shutdown) {
        let mut backoff = Backoff::default();
        let mut counted_at = None;
        loop {
            let stopping = shutdown.has_begun();
            let pause = match self.step_and_count(&mut counted_at).await {
                Ok(step) => {
                    backoff.reset();
                    // A full batch was confirmed: more of it may wait.
                    if step.published == BATCH as usize {
                        continue;
                    }
                    INTERVAL
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "the outbox relay could not go on");
                    backoff.next_delay()
                }
            };
            if stopping {
                return;
            }
            tokio::select! {
                () = shutdown.begun() => {}
                () = self.wake.0.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn step_and_count(&self, counted_at: &mut Option<Instant>) -> Result<Step, StoreError> {
        if self.database.check().is_err() {
            return Ok(Step::default());
        }
        let step = self.step().await?;
        if counted_at.is_none_or(|at| at.elapsed() >= COUNT_INTERVAL) {
            let mut conn = self.store.get().await?;
            let backlog = outbox::backlog(&mut conn).await?;
            self.metrics.outbox_pending.set(backlog.entries);
            *counted_at = Some(Instant::now());
        }
        Ok(step)
    }
}
