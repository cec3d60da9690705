//! The whole product as real processes under one folder: PostgreSQL and RabbitMQ with their durable defaults, and as
//! many of each service as asked for. What `make chaos` breaks.
//!
//! Below the folder: `postgres/` and `rabbitmq/` (see their scripts in deploy/local), and `log/` with a file for each
//! service, which a restart goes on with. All of it stays when the fleet has ended, and goes when the next one begins.
//! Dropped, the services are killed, and guardians stop the servers, however this process ends.
//!
//! ```no_run
//! # async fn example() {
//! # use tests::{fleet::Fleet, service::Kind};
//! let mut fleet = Fleet::start_in(".run/chaos".as_ref()).await;
//! fleet.set("dispatcher.prefetch", "256");
//! let dispatcher = fleet.add(Kind::Dispatcher).await;
//! dispatcher.kill().await;
//! dispatcher.start().await;
//! fleet.stop().await;
//! # }
//! ```

mod part;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::join_all;

use crate::servers::Server;
use crate::service::Kind;
use crate::{Database, Settings, ports};

pub use part::Part;

pub struct Fleet {
    // The order is that of the end: services before what they work on.
    parts: Vec<Arc<Part>>,
    settings: Settings,
    log: PathBuf,
    pub database: Database,
    /// Of the virtual host `/`.
    pub amqp_url: String,
    pub postgres: Arc<Server>,
    pub rabbitmq: Arc<Server>,
}

impl Fleet {
    /// Fresh servers and a migrated database, and no service yet; whatever an earlier fleet left in the folder is removed.
    ///
    /// # Panics
    /// When a server does not start.
    pub async fn start_in(folder: &Path) -> Self {
        let (postgres, rabbitmq) = (folder.join("postgres"), folder.join("rabbitmq"));
        let log = folder.join("log");
        for old in [&postgres, &rabbitmq] {
            end_what_was_left(old).await;
        }
        for old in [&postgres, &rabbitmq, &log] {
            if old.exists() {
                fs::remove_dir_all(old).unwrap();
            }
        }
        fs::create_dir_all(&log).unwrap();
        let postgres = Arc::new(Server::postgres_in(&postgres));
        let rabbitmq = Arc::new(Server::rabbitmq_in(&rabbitmq));
        // Their scripts keep a port that stands there, and so it is the same after each restart.
        for (server, file) in [
            (&postgres, "port"),
            (&rabbitmq, "port.amqp"),
            (&rabbitmq, "port.management"),
        ] {
            let port = format!("{}\n", ports::to_keep());
            fs::write(server.folder().join(file), port).unwrap();
        }
        tokio::join!(postgres.start(), rabbitmq.start());
        let database = Database::of_private_server(&postgres.url().await).await;
        let amqp_url = format!("{}/%2f", rabbitmq.url().await.trim_end_matches('/'));
        Self {
            parts: Vec::new(),
            settings: Settings::defaults(&database.url(), &amqp_url).with_environment(),
            log,
            database,
            amqp_url,
            postgres,
            rabbitmq,
        }
    }

    /// Changes what each further service is started with.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.set(key, value);
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Starts one more service and waits until it is ready.
    pub async fn add(&mut self, kind: Kind) -> Arc<Part> {
        let number = self.parts_of(kind).count() + 1;
        let log = self.log.join(format!("{}-{number}.log", kind.name()));
        let part = Arc::new(Part::new(kind, number, self.settings.clone(), log));
        part.start().await;
        part.until_ready().await;
        self.parts.push(part.clone());
        part
    }

    /// All services of one kind, in the order of their first start, running or not.
    pub fn parts_of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Part>> {
        self.parts.iter().filter(move |part| part.kind() == kind)
    }

    #[must_use]
    pub fn parts(&self) -> &[Arc<Part>] {
        &self.parts
    }

    /// Services in order, then the servers.
    ///
    /// # Panics
    /// When a service does not end in order.
    pub async fn stop(self) {
        let ends = self.parts.iter().map(|part| async {
            if let Some(status) = part.terminate().await {
                assert!(status.success(), "{} ended with {status}", part.name());
            }
        });
        join_all(ends).await;
        tokio::join!(self.postgres.stop(), self.rabbitmq.stop());
    }
}

/// A program that was killed together with its guardian may have left a server running.
async fn end_what_was_left(folder: &Path) {
    if !folder.join("pid").exists() {
        return;
    }
    if folder.ends_with("postgres") {
        Server::postgres_in(folder).kill().await;
    } else {
        Server::rabbitmq_in(folder).kill().await;
    }
}
