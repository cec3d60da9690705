//! Builds the dispatcher from its configuration, and runs it until it is told to stop.
//!
//! The order of the end: readiness off, consumers cancelled, attempts in flight finished within a deadline, everything
//! recorded, announced and acknowledged, connections closed.

mod running;
mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker::topology::event_queues;
use domain::network::NetworkPolicy;
use domain::retry_policy::RetryPolicy;
use runtime::probes::{Probes, Readiness};
use runtime::{Failure, Resolver, Shutdown};
use store::Store;
use store::keyring::Keyring;

use crate::config::Config;
use crate::deliver::Sender;
use crate::isolation::{Gate, Limits};
use crate::metrics::Metrics;

pub const NAME: &str = "dispatcher";

/// Longest wait for a name server's answer.
const DNS_TIMEOUT: Duration = Duration::from_secs(2);
/// Sessions for claims: one statement of each lane at a time, and one more while a broken one is found out.
const CLAIM_SESSIONS: u32 = 3;

/// A dispatcher with everything bound that can be refused.
pub struct Service {
    config: Config,
    instance: String,
    store: Store,
    relaxed: Store,
    keyring: Arc<Keyring>,
    attempts: Parts,
    metrics: Metrics,
    readiness: Readiness,
    probes: Probes,
}

/// What attempts are made of, checked and ready.
struct Parts {
    sender: Sender,
    policy: RetryPolicy,
    gate: Gate,
}

/// Checks the configuration and binds the admin port. Postgres and RabbitMQ may still be away.
///
/// # Errors
/// When the configuration can't work, before a port is bound, or the port can't be bound.
pub async fn build(config: Config) -> Result<Service, Failure> {
    let attempts = parts(&config)?;
    let keyring = Keyring::new(&config.secrets).map_err(|e| Failure::config(&e))?;
    let store = Store::connect(&config.postgres, NAME).map_err(|e| Failure::config(&e))?;
    let relaxed = store
        .with_relaxed_commits(CLAIM_SESSIONS)
        .map_err(|e| Failure::config(&e))?;
    let registry = runtime::metrics::registry(NAME).map_err(|e| Failure::other(&e))?;
    let metrics = Metrics::new(&registry).map_err(|e| Failure::other(&e))?;
    let readiness = Readiness::new();
    let probes = runtime::probes::bind(&config.admin, readiness.clone(), registry)
        .await
        .map_err(|e| Failure::other(&e))?;
    Ok(Service {
        instance: runtime::instance::name(),
        store,
        relaxed,
        keyring: Arc::new(keyring),
        attempts,
        metrics,
        readiness,
        probes,
        config,
    })
}

fn parts(config: &Config) -> Result<Parts, Failure> {
    let section = &config.dispatcher;
    config
        .rabbitmq
        .validate()
        .map_err(|e| Failure::config(&e))?;
    let queues = event_queues(config.rabbitmq.shards).len();
    section.validate(queues).map_err(|e| Failure::config(&e))?;
    let policy = RetryPolicy::try_from(&config.retry_policy).map_err(|e| Failure::config(&e))?;
    let limits = Limits::try_from(&section.isolation).map_err(|e| Failure::config(&e))?;
    let resolver = Resolver::new(&config.network.name_servers, DNS_TIMEOUT)
        .map_err(|e| Failure::config(&e))?;
    let network = NetworkPolicy::new(&config.network);
    let sender =
        Sender::new(&section.deliver, network, resolver).map_err(|e| Failure::config(&e))?;
    Ok(Parts {
        sender,
        policy,
        gate: Gate::new(limits),
    })
}

impl Service {
    /// Where the probes and metrics are served.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.probes.local_addr()
    }

    /// The name under which this instance shows its heartbeat.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Dispatches until `shutdown` begins, then stops in order.
    ///
    /// # Errors
    /// When a task that others depend on ended by itself, or something is still not done after all deadlines: the
    /// broker and the leases take care of it then.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Failure> {
        let readiness = self.readiness.clone();
        let running = wiring::start(self)?;
        tracing::info!("dispatching");
        let failed = running.groups.failed.clone();
        tokio::select! {
            biased;
            () = shutdown.begun() => {}
            () = failed.cancelled() => {}
        }
        tracing::info!("stopping: finishing what is in flight");
        readiness.stopping();
        running.stop().await?;
        if failed.is_cancelled() {
            return Err(Failure::with_code("a task has ended by itself", 1));
        }
        Ok(())
    }
}
