//! The service's sign of life in the table of services, which `hookctl status` and alerts read. Woken by a timer; the
//! row goes when the service ends.

use broker::Broker;
use runtime::probes::Readiness;
use store::service_instance::{self, Heartbeat as Row};
use store::{Store, StoreError};

use crate::cadence::{Rest, Step};
use crate::service::SERVICE;

/// What a heartbeat needs.
#[derive(Clone)]
pub struct Heartbeat {
    pub store: Store,
    pub broker: Broker,
    pub readiness: Readiness,
    pub instance: String,
}

impl Step for Heartbeat {
    const NAME: &'static str = "heartbeat";

    async fn step(&self) -> Result<Rest, StoreError> {
        let ready = self.readiness.is_ready();
        let detail = if ready {
            String::new()
        } else {
            format!("RabbitMQ: {}", self.broker.state())
        };
        let row = Row {
            instance: &self.instance,
            service: SERVICE,
            version: runtime::metrics::VERSION,
            ready,
            detail: &detail,
        };
        let mut connection = self.store.get().await?;
        service_instance::heartbeat(&mut connection, &row).await?;
        Ok(Rest::Nothing)
    }
}

impl Heartbeat {
    /// Says goodbye. Without Postgres the row is trimmed by whoever is left.
    pub async fn end(&self) {
        let ending = async {
            let mut connection = self.store.get().await?;
            service_instance::remove(&mut connection, &self.instance).await
        };
        if let Err(error) = ending.await {
            tracing::debug!(error = %runtime::exit::chain(&error), "the heartbeat's row stays");
        }
    }
}
