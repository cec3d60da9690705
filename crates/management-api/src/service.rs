//! The process as a whole. [`build`] refuses what can't work, binds both ports and begins to connect; [`Service::run`]
//! serves until the shutdown has begun, and then ends everything in order: no new requests, those in flight finish, the
//! relay publishes what they left, and only then the connections and the admin port close.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::web::Data;
use actix_web::{App, HttpServer};
use broker::Broker;
use domain::network::NetworkPolicy;
use prometheus::Registry;
use runtime::exit::chain;
use runtime::metrics::registry;
use runtime::probes::{self, Probes, Readiness};
use runtime::{Failure, Resolver, Shutdown, instance};
use store::Store;
use store::keyring::Keyring;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::gateway::{Database, Gateway};
use crate::heartbeat::Pulse;
use crate::metrics::Metrics;
use crate::relay::{Relay, Wake};
use crate::test_desk::TestDesk;
use crate::{SERVICE, routes, watch};

/// Connections of the background tasks. They don't share the requests' pool: its connections live on the workers'
/// threads, which end first.
const BACKGROUND_POOL_SIZE: u32 = 3;
/// The background tasks and the broker's have this long to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head must be there by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Bound and connecting, but not yet serving.
#[must_use = "nothing is served before `run`"]
pub struct Service {
    config: Config,
    instance: String,
    listener: TcpListener,
    api_addr: SocketAddr,
    probes: Probes,
    readiness: Readiness,
    gateway: Data<Gateway>,
    background: Store,
    broker: Broker,
    tracker: TaskTracker,
}

/// [`build_as`] with a new name.
///
/// # Errors
/// As there.
pub async fn build(config: Config) -> Result<Service, Failure> {
    build_as(config, instance::name()).await
}

/// `instance` is this process's name. Must be called within a Tokio runtime. Does not wait for Postgres or RabbitMQ: the readiness probe tells of them.
///
/// # Errors
/// With exit code 78 when the configuration can't work, before a port is bound; with 1 when a port can't be bound.
pub async fn build_as(config: Config, instance: String) -> Result<Service, Failure> {
    config.validate()?;
    let keyring = Keyring::new(&config.secrets).map_err(|error| Failure::config(&error))?;
    let pool = |postgres: &store::Config| {
        Store::connect(postgres, SERVICE).map_err(|error| Failure::config(&error))
    };
    let store = pool(&config.postgres)?;
    let background = pool(&store::Config {
        pool_size: BACKGROUND_POOL_SIZE,
        ..config.postgres.clone()
    })?;
    let resolver = Resolver::new(&config.network.name_servers, config.api.resolve_timeout())
        .map_err(|error| Failure::other(&error))?;
    let registry = registry(SERVICE).map_err(|error| Failure::other(&error))?;
    let metrics = Metrics::new(&registry).map_err(|error| Failure::other(&error))?;

    let readiness = Readiness::new();
    let probes = bind_admin(&config, &readiness, registry).await?;
    let (listener, api_addr) = bind_api(config.api.address)?;
    let tracker = TaskTracker::new();
    let name = format!("{SERVICE} {instance}");
    let broker = Broker::start(config.rabbitmq.clone(), name, &tracker)
        .map_err(|error| Failure::config(&error))?;
    let gateway = Gateway {
        config: config.api.clone(),
        store,
        database: Database::default(),
        keyring,
        policy: NetworkPolicy::new(&config.network),
        resolver,
        publisher: broker.publisher(),
        desk: TestDesk::default(),
        slow_calls: Semaphore::new((config.postgres.pool_size / 2).max(1) as usize),
        relay: Wake::default(),
        metrics,
    };
    tracing::info!(api = %api_addr, admin = %probes.local_addr(), "listening");
    Ok(Service {
        config,
        instance,
        listener,
        api_addr,
        probes,
        readiness,
        gateway: Data::new(gateway),
        background,
        broker,
        tracker,
    })
}

async fn bind_admin(
    config: &Config,
    readiness: &Readiness,
    registry: Registry,
) -> Result<Probes, Failure> {
    probes::bind(&config.admin, readiness.clone(), registry)
        .await
        .map_err(|error| Failure::other(&error))
}

fn bind_api(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let failed = |error: std::io::Error| {
        Failure::other(&error).context(format!("cannot listen on the API's address {address}"))
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

impl Service {
    /// Where the API is served, with the port that port 0 became.
    #[must_use]
    pub fn api_addr(&self) -> SocketAddr {
        self.api_addr
    }

    /// Where probes and metrics are.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.probes.local_addr()
    }

    /// Ready once Postgres and RabbitMQ are there. For whoever waits for it in the same process.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// A relay like the one that runs in the background, for tests that drive its single step.
    #[must_use]
    pub fn relay(&self) -> Relay {
        Relay {
            store: self.background.clone(),
            database: self.gateway.database.clone(),
            broker: self.broker.clone(),
            publisher: self.gateway.publisher.clone(),
            metrics: self.gateway.metrics.clone(),
            wake: self.gateway.relay.clone(),
        }
    }

    /// Serves until `shutdown` has begun, and ends in order.
    ///
    /// # Errors
    /// When the server or a background task ended unasked.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Failure> {
        let (tasks_shutdown, probes_shutdown) = (Shutdown::new(), Shutdown::new());
        let mut tasks = self.start_tasks(&tasks_shutdown);
        let Self {
            config,
            listener,
            probes,
            readiness,
            gateway,
            broker,
            tracker,
            ..
        } = self;
        let mut admin = JoinSet::new();
        admin.spawn(probes.run(probes_shutdown.clone()));

        let served = serve(config, listener, gateway, &readiness, &shutdown, &mut tasks).await;
        readiness.stopping();
        tasks_shutdown.begin();
        let ended = async {
            while let Some(ended) = tasks.join_next().await {
                report(ended);
            }
            broker.close().await;
            tracker.close();
            tracker.wait().await;
        };
        if tokio::time::timeout(END_TIMEOUT, ended).await.is_err() {
            tracing::warn!("some background tasks did not end in time");
        }
        probes_shutdown.begin();
        while let Some(ended) = admin.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::warn!(%error, "the admin port did not close in order");
            }
        }
        tracing::info!("ended");
        served
    }

    fn start_tasks(&self, shutdown: &Shutdown) -> JoinSet<()> {
        let (store, database) = (self.background.clone(), self.gateway.database.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(watch::postgres(
            store.clone(),
            database.clone(),
            self.readiness.check("postgres"),
            shutdown.clone(),
        ));
        tasks.spawn(watch::rabbitmq(
            self.broker.clone(),
            self.readiness.check("rabbitmq"),
            shutdown.clone(),
        ));
        tasks.spawn(self.relay().run(shutdown.clone()));
        tasks.spawn(
            self.gateway
                .desk
                .clone()
                .run(self.broker.clone(), shutdown.clone()),
        );
        let pulse = Pulse {
            store,
            database,
            broker: self.broker.clone(),
            readiness: self.readiness.clone(),
            instance: self.instance.clone(),
        };
        tasks.spawn(pulse.run(shutdown.clone()));
        tasks
    }
}

/// Answers requests until the shutdown has begun and those in flight are answered.
async fn serve(
    config: Config,
    listener: TcpListener,
    gateway: Data<Gateway>,
    readiness: &Readiness,
    shutdown: &Shutdown,
    tasks: &mut JoinSet<()>,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::other(&error).context("cannot serve the API");
    let mut server = HttpServer::new(move || {
        App::new()
            .app_data(gateway.clone())
            .configure(routes::register)
    })
    .workers(config.api.workers)
    .max_connections(config.api.connections_max)
    .client_request_timeout(HEAD_TIMEOUT)
    .shutdown_timeout(config.api.drain_timeout().as_secs().max(1))
    .disable_signals()
    .listen(listener)
    .map_err(failed)?
    .run();
    let handle = server.handle();
    tokio::select! {
        ended = &mut server => ended.map_err(failed),
        Some(ended) = tasks.join_next() => {
            report(ended);
            handle.stop(true).await;
            Err(Failure::with_code("a background task ended unasked", 1))
        }
        () = shutdown.begun() => {
            readiness.stopping();
            let (ended, ()) = tokio::join!(server, handle.stop(true));
            ended.map_err(failed)
        }
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(error = chain(&error), "a background task failed");
    }
}
