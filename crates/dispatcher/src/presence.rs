//! What the dispatcher says of itself: its heartbeat, its readiness, the state of its breakers and its gauges.
//!
//! Writes `service_instances` and `webhook_breakers`, for people to read; nothing here decides anything.

use std::time::Duration;

use broker::Broker;
use runtime::probes::{Check, Readiness};
use store::health::BreakerRow;
use store::service_instance::Heartbeat;
use store::{Store, StoreError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::blockage::Blockage;
use crate::isolation::Gate;
use crate::metrics::Metrics;
use crate::service::NAME;

const LOOK_EVERY: Duration = Duration::from_millis(500);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);

pub struct Presence {
    pub instance: String,
    pub store: Store,
    pub broker: Broker,
    pub gate: Gate,
    pub blockage: Blockage,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub postgres: Check,
    pub rabbitmq: Check,
}

impl Presence {
    /// Looks and says until told to stop; then takes the instance off the list.
    pub async fn run(self, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut beat = tokio::time::interval(HEARTBEAT_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = look.tick() => self.look().await,
                _ = beat.tick() => self.say(self.heartbeat().await),
            }
        }
        self.say(self.leave().await);
    }

    async fn look(&self) {
        match self.pending_migrations().await {
            Ok(0) => match self.blockage.why() {
                None => self.postgres.ok(),
                Some(why) => self.postgres.failing(format!("can't record: {why}")),
            },
            Ok(pending) => {
                let why = format!("{pending} migrations were not run yet");
                self.postgres.failing(why);
            }
            Err(error) => self.postgres.failing(runtime::exit::chain(&error)),
        }
        let state = self.broker.state();
        if state.is_ready() {
            self.rabbitmq.ok()
        } else {
            self.rabbitmq.failing(state.to_string())
        }
        self.metrics.isolation.show(&self.gate.snapshot());
    }

    async fn pending_migrations(&self) -> Result<usize, StoreError> {
        self.store.ping().await?;
        let mut connection = self.store.get().await?;
        store::migrations::pending(&mut connection).await
    }

    async fn heartbeat(&self) -> Result<(), StoreError> {
        let mut connection = self.store.get().await?;
        let heartbeat = Heartbeat {
            instance: &self.instance,
            service: NAME,
            version: runtime::metrics::VERSION,
            ready: self.readiness.is_ready(),
            detail: &format!("rabbitmq: {}", self.broker.state()),
        };
        store::service_instance::heartbeat(&mut connection, &heartbeat).await
    }

    async fn leave(&self) -> Result<(), StoreError> {
        let mut connection = self.store.get().await?;
        store::service_instance::remove(&mut connection, &self.instance).await
    }

    /// Postgres away shows on the readiness probe already.
    fn say(&self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            tracing::debug!(
                error = runtime::exit::chain(&error),
                "can't write the heartbeat"
            );
        }
    }
}

/// Writes the changes of breakers until nobody reports any more. One that is lost is made good by the next.
pub async fn write_breakers(
    instance: String,
    store: Store,
    mut changes: mpsc::Receiver<BreakerRow>,
) {
    while let Some(change) = changes.recv().await {
        let written = async {
            let mut connection = store.get().await?;
            store::health::write_breaker(&mut connection, &instance, &change).await
        };
        if let Err(error) = written.await {
            tracing::debug!(
                error = runtime::exit::chain(&error),
                "can't write the state of a breaker"
            );
        }
    }
}
