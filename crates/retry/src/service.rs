//! The process as a whole: what it holds, what it runs, and how it ends.
//!
//! [`build`] binds the admin port and begins to connect; [`Service::run`] works. A neighbour that is away is waited
//! for, and told on the readiness probe.

use std::net::SocketAddr;
use std::time::Duration;

use broker::{Broker, Line};
use runtime::probes::{self, Probes, Readiness};
use runtime::{Failure, Shutdown, instance};
use store::Store;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::cadence::{Step, repeat};
use crate::config::{Config, Settings};
use crate::dead_letters::{DeadLetters, LINES};
use crate::disable::Disabling;
use crate::heartbeat::Heartbeat;
use crate::metrics::Metrics;
use crate::partitions::Partitions;
use crate::place::{self, Placing};
use crate::presence::{self, until_up};
use crate::sweep::Sweep;
use crate::trim::{Capping, Trimming};
use crate::waiting::Waiting;

/// The service's name: of its process, in its metrics, and in the table of services.
pub const SERVICE: &str = "retry";

/// Tasks of the broker get this long once everything else has ended.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// A retry service that is bound and connecting.
pub struct Service {
    settings: Settings,
    instance: String,
    store: Store,
    broker: Broker,
    tracker: TaskTracker,
    metrics: Metrics,
    readiness: Readiness,
    probes: Probes,
}

/// [`build_as`] with a new name.
///
/// # Errors
/// As there.
pub async fn build(config: Config) -> Result<Service, Failure> {
    build_as(config, instance::name()).await
}

/// Checks the configuration, opens the admin port and begins to connect. `instance` is this process's name. Must be
/// called within a Tokio runtime.
///
/// # Errors
/// With exit code 78 when the configuration can't work, before a port is bound; with 1 when the port can't be bound.
pub async fn build_as(config: Config, instance: String) -> Result<Service, Failure> {
    Ok(assemble(config, instance).await?)
}

async fn assemble(config: Config, instance: String) -> Result<Service, Error> {
    let settings = Settings::new(&config)?;
    let store = Store::connect(&config.postgres, SERVICE)?;
    let registry = runtime::metrics::registry(SERVICE)?;
    let metrics = Metrics::register(&registry)?;
    let readiness = Readiness::new();
    let probes = probes::bind(&config.admin, readiness.clone(), registry).await?;
    let tracker = TaskTracker::new();
    let broker = Broker::start(
        config.rabbitmq.clone(),
        format!("retry {instance}"),
        &tracker,
    )?;
    Ok(Service {
        settings,
        instance,
        store,
        broker,
        tracker,
        metrics,
        readiness,
        probes,
    })
}

/// Named tasks. None of them ends before the shutdown begins.
type Tasks = JoinSet<&'static str>;

impl Service {
    /// Where the probes answer.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.probes.local_addr()
    }

    /// To wait for, in tests.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Works until `shutdown` has begun, and then ends in order.
    ///
    /// # Errors
    /// When a task of its own failed, so that the process is to be started anew.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Failure> {
        let probes_end = Shutdown::new();
        let mut probes = JoinSet::new();
        probes.spawn(self.probes.run(probes_end.clone()));

        let heartbeat = Heartbeat {
            store: self.store.clone(),
            broker: self.broker.clone(),
            readiness: self.readiness.clone(),
            instance: self.instance,
        };
        let mut tasks = Tasks::new();
        let work = Work {
            settings: self.settings.clone(),
            store: self.store,
            broker: self.broker.clone(),
            metrics: self.metrics,
            readiness: self.readiness.clone(),
            heartbeat: heartbeat.clone(),
            shutdown: shutdown.clone(),
        };
        work.start(&mut tasks);

        let ended = tokio::select! {
            // First, since the tasks end by the same signal, and must not be taken for failed.
            biased;
            () = shutdown.begun() => Ok(()),
            Some(ended) = tasks.join_next() => Err(ended.map_or_else(Error::from, Error::Task)),
        };
        self.readiness.stopping();
        shutdown.begin();
        if tokio::time::timeout(self.settings.drain, finish(&mut tasks))
            .await
            .is_err()
        {
            tracing::warn!("work in progress did not end in time and is left to others");
            tasks.shutdown().await;
        }
        self.tracker.close();
        let closing = async {
            self.broker.close().await;
            heartbeat.end().await;
            drop(heartbeat);
            self.tracker.wait().await;
        };
        if tokio::time::timeout(CLOSE_LIMIT, closing).await.is_err() {
            tracing::warn!("RabbitMQ or Postgres did not let go in time");
        }
        probes_end.begin();
        while probes.join_next().await.is_some() {}
        tracing::info!("stopped");
        Ok(ended?)
    }
}

async fn finish(tasks: &mut Tasks) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a task failed at the end");
        }
    }
}

/// What every task needs.
#[derive(Clone)]
struct Work {
    settings: Settings,
    store: Store,
    broker: Broker,
    metrics: Metrics,
    readiness: Readiness,
    heartbeat: Heartbeat,
    shutdown: Shutdown,
}

impl Work {
    fn start(&self, tasks: &mut Tasks) {
        let (up, postgres) = watch::channel(false);
        self.watch_neighbours(tasks, up);
        self.place(tasks);
        for line in LINES {
            self.move_dead_letters(tasks, line, postgres.clone());
        }
        self.start_steps(tasks, &postgres);
    }

    fn watch_neighbours(&self, tasks: &mut Tasks, up: watch::Sender<bool>) {
        let work = self.clone();
        let check = self.readiness.check("postgres");
        tasks.spawn(async move {
            presence::watch_postgres(&work.store, &check, &up, &work.shutdown).await;
            "postgres"
        });
        let work = self.clone();
        let check = self.readiness.check("rabbitmq");
        tasks.spawn(async move {
            presence::watch_rabbitmq(&work.broker, &check, &work.shutdown).await;
            "rabbitmq"
        });
    }

    fn place(&self, tasks: &mut Tasks) {
        let work = self.clone();
        let placing = Placing {
            publisher: self.broker.publisher(),
            metrics: self.metrics.clone(),
        };
        tasks.spawn(async move {
            place::run(
                &placing,
                &work.broker,
                work.settings.prefetch,
                &work.shutdown,
            )
            .await;
            "place"
        });
    }

    fn move_dead_letters(&self, tasks: &mut Tasks, line: Line, up: presence::PostgresIsUp) {
        let work = self.clone();
        let dead_letters = DeadLetters {
            store: self.store.clone(),
            metrics: self.metrics.clone(),
            line,
            batch: self.settings.dead_letters_batch,
        };
        tasks.spawn(async move {
            dead_letters.run(&work.broker, &up, &work.shutdown).await;
            line.as_str()
        });
    }

    fn start_steps(&self, tasks: &mut Tasks, up: &presence::PostgresIsUp) {
        let (store, metrics) = (self.store.clone(), self.metrics.clone());
        let settings = &self.settings;
        let sweep = Sweep {
            store: store.clone(),
            broker: self.broker.clone(),
            publisher: self.broker.publisher(),
            metrics: metrics.clone(),
            overdue: settings.sweep_overdue,
            batch: settings.sweep_batch,
        };
        self.repeat(tasks, up, sweep, settings.sweep_every);
        let waiting = Waiting {
            store: store.clone(),
            metrics: metrics.clone(),
        };
        self.repeat(tasks, up, waiting, settings.oldest_waiting_every);
        let partitions = Partitions {
            store: store.clone(),
            metrics: metrics.clone(),
            days_ahead: settings.partitions_days_ahead,
            alert_below_days: settings.partitions_alert_below_days,
            retention: settings.retention,
        };
        self.repeat(tasks, up, partitions, settings.partitions_every);
        let disabling = Disabling {
            store: store.clone(),
            metrics: metrics.clone(),
            lasting: settings.policy.disable_after,
            failures: settings.policy.disable_after_failures,
        };
        self.repeat(tasks, up, disabling, settings.disable_every);
        let trimming = Trimming {
            store: store.clone(),
            metrics: metrics.clone(),
            batch: settings.trim_batch,
        };
        self.repeat(tasks, up, trimming, settings.trim_every);
        let capping = Capping {
            store,
            metrics,
            caps: settings.dead_letters,
            batch: settings.trim_batch,
        };
        self.repeat(tasks, up, capping, settings.dead_letters_cap_every);
        self.repeat(tasks, up, self.heartbeat.clone(), settings.heartbeat_every);
    }

    fn repeat<S>(&self, tasks: &mut Tasks, up: &presence::PostgresIsUp, step: S, period: Duration)
    where
        S: Step + Send + Sync + 'static,
    {
        let (work, up) = (self.clone(), up.clone());
        tasks.spawn(async move {
            if until_up(&up, &work.shutdown).await {
                repeat(&step, period, &work.metrics, &work.shutdown).await;
            }
            S::NAME
        });
    }
}
