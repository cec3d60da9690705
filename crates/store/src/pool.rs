//! Connections to Postgres: how many, how long they are waited for, and how each session is set up.
//!
//! A connection that broke, or that was given back in the middle of a transaction, is dropped when it is next taken
//! out; one that died unseen fails its first query with [`StoreError::Unavailable`], and the next is a new one.

mod config;
mod tls;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::pooled_connection::deadpool::{Object, Pool, PoolError};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};
use futures_util::FutureExt as _;
use tokio_postgres::NoTls;
use tokio_postgres::config::SslMode;

use crate::error::StoreError;
use config::parse;
use tls::Tls;

pub use config::{Config, InvalidConfig};
pub(crate) use transaction::Pipeline;
pub use transaction::Transaction;

/// What query functions take: the session itself. A [`Connection`] and a [`Transaction`] dereference to it.
pub type Session = AsyncPgConnection;

/// A connection out of the pool, which goes back to it when dropped.
pub type Connection = Object<Session>;

/// Longest wait for a lock; a statement that may wait longer than it may run would never say why.
const LOCK_TIMEOUT_MS_MAX: u32 = 10_000;
/// Data that Postgres' host has not acknowledged for so long means that it is gone.
const TCP_TIMEOUT: Duration = Duration::from_secs(20);

/// A pool of connections, and what is needed for a session outside of it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Pool<AsyncPgConnection>,
    settings: Arc<Settings>,
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    pub size: usize,
    pub idle: usize,
    /// Callers that wait for a connection.
    pub waiting: usize,
}

impl Store {
    /// A pool whose sessions bear `application_name`. Opens no connection yet: see [`Store::ping`].
    ///
    /// # Errors
    /// When the configuration can't work.
    pub fn connect(config: &Config, application_name: &str) -> Result<Self, InvalidConfig> {
        Self::with_settings(Settings::new(config, application_name)?, config.pool_size)
    }

    /// Another pool, whose commits don't wait for the disk: a crash of Postgres may lose the last of them.
    /// For claims only.
    ///
    /// # Errors
    /// When `pool_size` is 0.
    pub fn with_relaxed_commits(&self, pool_size: u32) -> Result<Self, InvalidConfig> {
        let mut settings = (*self.settings).clone();
        settings.session.push_str("SET synchronous_commit = off;");
        Self::with_settings(settings, pool_size)
    }

    fn with_settings(settings: Settings, pool_size: u32) -> Result<Self, InvalidConfig> {
        if pool_size == 0 {
            return Err(InvalidConfig::Zero("pool_size"));
        }
        let settings = Arc::new(settings);
        let mut manager = ManagerConfig::default();
        manager.recycling_method = RecyclingMethod::Fast;
        let establishing = Arc::clone(&settings);
        manager.custom_setup = Box::new(move |_| {
            let settings = Arc::clone(&establishing);
            async move { settings.establish().await }.boxed()
        });
        // The URL is in the settings, parsed: the manager's copy is never looked at.
        let manager = AsyncDieselConnectionManager::new_with_config(String::new(), manager);
        let pool = Pool::builder(manager)
            .max_size(pool_size as usize)
            .build()?;
        Ok(Self { pool, settings })
    }

    /// A connection, which goes back to the pool when it is dropped.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is none within the time-out.
    pub async fn get(&self) -> Result<Connection, StoreError> {
        match tokio::time::timeout(self.settings.timeout, self.pool.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(PoolError::Backend(error))) => Err(StoreError::Unavailable(Box::new(error))),
            Ok(Err(error)) => Err(StoreError::Unavailable(Box::new(error))),
            Err(_) => Err(self.too_late("no free connection")),
        }
    }

    /// A session of its own, outside of the pool. What it holds, advisory locks for one, ends when it is dropped.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is none within the time-out.
    pub async fn session(&self) -> Result<AsyncPgConnection, StoreError> {
        match tokio::time::timeout(self.settings.timeout, self.settings.establish()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(StoreError::Unavailable(Box::new(error))),
            Err(_) => Err(self.too_late("no session")),
        }
    }

    /// Asks Postgres for a sign of life, and waits for it twice the connect time-out at most.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] without one.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut connection = self.get().await?;
        let answer = connection.batch_execute("SELECT 1");
        match tokio::time::timeout(self.settings.timeout, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(self.too_late("no answer")),
        }
    }

    fn too_late(&self, what: &str) -> StoreError {
        let timeout_ms = self.settings.timeout.as_millis();
        StoreError::Unavailable(format!("{what} within {timeout_ms} ms").into())
    }

    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let status = self.pool.status();
        PoolStatus {
            size: status.size,
            idle: status.available,
            waiting: status.waiting,
        }
    }
}

/// What every session of a pool has in common.
#[derive(Clone)]
struct Settings {
    driver: tokio_postgres::Config,
    tls: Option<Tls>,
    /// Statements that each session begins with.
    session: String,
    timeout: Duration,
}

impl Settings {
    fn new(config: &Config, application_name: &str) -> Result<Self, InvalidConfig> {
        for (name, value) in [
            ("connect_timeout_ms", config.connect_timeout_ms),
            ("statement_timeout_ms", config.statement_timeout_ms),
        ] {
            if value == 0 {
                return Err(InvalidConfig::Zero(name));
            }
        }
        let timeout = Duration::from_millis(config.connect_timeout_ms.into());
        let mut driver = parse(&config.url)?;
        driver
            .application_name(application_name)
            .connect_timeout(timeout)
            .tcp_user_timeout(TCP_TIMEOUT)
            .keepalives_idle(TCP_TIMEOUT);
        let tls = match driver.get_ssl_mode() {
            SslMode::Require => Some(Tls::new(&config.tls_ca_file).map_err(InvalidConfig::CaFile)?),
            _ => None,
        };
        Ok(Self {
            driver,
            tls,
            session: session(config.statement_timeout_ms),
            timeout,
        })
    }

    async fn establish(&self) -> ConnectionResult<AsyncPgConnection> {
        let mut connection = match &self.tls {
            Some(tls) => {
                let (client, connection) =
                    self.driver.connect(tls.clone()).await.map_err(failed)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await?
            }
            None => {
                let (client, connection) = self.driver.connect(NoTls).await.map_err(failed)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await?
            }
        };
        connection
            .batch_execute(&self.session)
            .await
            .map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(connection)
    }
}

/// Compiling a plan (`jit`) costs more than any of our statements. A transaction that its owner forgot ends by itself.
fn session(statement_timeout_ms: u32) -> String {
    format!(
        // A plan made for a partition that was empty at midnight is kept until its statistics change; without
        // this it would read the whole partition for each row by then. Every hot statement has its index.
        "SET enable_seqscan = off;\
         SET statement_timeout = {statement_timeout_ms};\
         SET lock_timeout = {};\
         SET idle_in_transaction_session_timeout = {};\
         SET jit = off;",
        statement_timeout_ms.min(LOCK_TIMEOUT_MS_MAX),
        u64::from(statement_timeout_ms)
            .saturating_mul(2)
            .min(i32::MAX as u64),
    )
}

/// The driver's errors keep what matters in their sources, and diesel takes a string only.
fn failed(error: tokio_postgres::Error) -> ConnectionError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    ConnectionError::BadConnection(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> Config {
        Config {
            url: url.to_owned(),
            ..Config::default()
        }
    }

    #[test]
    fn a_configuration_that_can_never_work_is_refused() {
        for url in ["", "nonsense", "http://db.example/main", "postgres://h:x/y"] {
            assert!(
                matches!(
                    Store::connect(&with_url(url), "test"),
                    Err(InvalidConfig::Url)
                ),
                "{url}"
            );
        }
        let no_pool = Config {
            pool_size: 0,
            ..Config::default()
        };
        assert!(matches!(
            Store::connect(&no_pool, "test"),
            Err(InvalidConfig::Zero("pool_size"))
        ));
        let no_file = Config {
            tls_ca_file: "/does/not/exist.pem".into(),
            ..with_url("postgres://db.example/main?sslmode=require")
        };
        assert!(matches!(
            Store::connect(&no_file, "test"),
            Err(InvalidConfig::CaFile(_))
        ));
    }

    #[test]
    fn tls_is_used_where_it_is_required() {
        let settings = |url: &str| Settings::new(&with_url(url), "test").unwrap();
        assert!(
            settings("postgres://db.example/main?sslmode=require")
                .tls
                .is_some()
        );
        assert!(settings("postgres://db.example/main").tls.is_none());
    }
}
