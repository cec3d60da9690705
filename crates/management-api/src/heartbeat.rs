//! This process's row of `service_instances`, which `hookctl status` and alerts read: written every five seconds,
//! deleted at an orderly end.

use std::time::Duration;

use broker::Broker;
use runtime::Shutdown;
use runtime::metrics::VERSION;
use runtime::probes::Readiness;
use store::service_instance::{self, Heartbeat};
use store::{Store, StoreError};

use crate::SERVICE;
use crate::gateway::Database;

const INTERVAL: Duration = Duration::from_secs(5);
/// While there is no database to write into, or something else is missing: a start is seen soon.
const UNREADY_INTERVAL: Duration = Duration::from_millis(500);
/// The end of the process does not wait for a Postgres that is away.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Pulse {
    pub store: Store,
    pub database: Database,
    pub broker: Broker,
    pub readiness: Readiness,
    pub instance: String,
}

impl Pulse {
    pub async fn run(self, shutdown: Shutdown) {
        loop {
            let ready = self.readiness.is_ready();
            if self.database.check().is_ok()
                && let Err(error) = self.beat(ready).await
            {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "no heartbeat");
            }
            let pause = if ready { INTERVAL } else { UNREADY_INTERVAL };
            tokio::select! {
                () = shutdown.begun() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        match tokio::time::timeout(REMOVE_TIMEOUT, self.remove()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => tracing::warn!("the last heartbeat stays until it is trimmed"),
        }
    }

    async fn beat(&self, ready: bool) -> Result<(), StoreError> {
        let broker = self.broker.state();
        let detail = if broker.is_ready() {
            String::new()
        } else {
            format!("RabbitMQ: {broker}")
        };
        let mut conn = self.store.get().await?;
        let heartbeat = Heartbeat {
            instance: &self.instance,
            service: SERVICE,
            version: VERSION,
            ready,
            detail: &detail,
        };
        service_instance::heartbeat(&mut conn, &heartbeat).await
    }

    async fn remove(&self) -> Result<(), StoreError> {
        if self.database.check().is_err() {
            return Ok(());
        }
        let mut conn = self.store.get().await?;
        service_instance::remove(&mut conn, &self.instance).await
    }
}
