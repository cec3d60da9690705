//! The way to Postgres and RabbitMQ, for as long as a command takes.

use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Link, Publisher, State, TopologyMode};
use store::{Connection, Store};
use tokio_util::task::TaskTracker;

use crate::arguments::Places;
use crate::error::Error;

/// Connections of the pool: no command does two things with Postgres at once, but one may keep a transaction open.
const POOL_SIZE: u32 = 2;
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How long RabbitMQ may take to confirm a message.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is asked whether connecting has failed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where Postgres and RabbitMQ are.
#[derive(Clone, Debug)]
pub struct Environment {
    database_url: Option<String>,
    amqp_url: Option<String>,
    pub api_url: Option<String>,
}

impl Environment {
    #[must_use]
    pub fn new(places: Places) -> Self {
        let given = |url: Option<String>| url.filter(|url| !url.is_empty());
        Self {
            database_url: given(places.database_url),
            amqp_url: given(places.amqp_url),
            api_url: given(places.api_url),
        }
    }

    /// # Errors
    /// When the URL is missing or malformed. Nothing is connected yet.
    pub fn store(&self) -> Result<Store, Error> {
        let url = self.database_url.clone().ok_or_else(|| {
            Error::Usage("set VELLOCITY_DATABASE_URL, or give --database-url".to_owned())
        })?;
        let config = store::Config {
            url,
            pool_size: POOL_SIZE,
            ..store::Config::default()
        };
        Ok(Store::connect(&config, "hookctl")?)
    }

    /// # Errors
    /// When Postgres can't be reached.
    pub async fn postgres(&self) -> Result<Connection, Error> {
        Ok(self.store()?.get().await?)
    }

    /// Connects to RabbitMQ, once: what fails is told at once, and a person may try again.
    ///
    /// # Errors
    /// When the URL is missing or malformed, or RabbitMQ can't be reached.
    pub async fn rabbitmq(&self, shards: u16) -> Result<RabbitMq, Error> {
        let url = self
            .amqp_url
            .clone()
            .ok_or_else(|| Error::Usage("set VELLOCITY_AMQP_URL, or give --amqp-url".to_owned()))?;
        let config = broker::Config {
            url,
            topology: TopologyMode::Assume,
            confirm_timeout_ms: u64::try_from(CONFIRM_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
            shards,
            ..broker::Config::default()
        };
        let tracker = TaskTracker::new();
        let broker = Broker::start(config, "hookctl", &tracker)?;
        let link = tokio::time::timeout(CONNECT_LIMIT, connected(&broker))
            .await
            .map_err(|_| Error::Unavailable("RabbitMQ did not answer in time".to_owned()))??;
        Ok(RabbitMq {
            broker,
            link,
            tracker,
        })
    }
}

async fn connected(broker: &Broker) -> Result<Arc<Link>, Error> {
    loop {
        match tokio::time::timeout(LOOK_EVERY, broker.link()).await {
            Ok(Some(link)) => return Ok(link),
            Ok(None) => return Err(Error::Unavailable("the connection was closed".to_owned())),
            Err(_) => {}
        }
        match broker.state() {
            State::Connecting(why) if !why.is_empty() => {
                return Err(Error::Unavailable(format!(
                    "RabbitMQ can't be reached: {why}"
                )));
            }
            _ => {}
        }
    }
}

/// A connection to RabbitMQ, to be closed in order.
pub struct RabbitMq {
    broker: Broker,
    pub link: Arc<Link>,
    tracker: TaskTracker,
}

impl RabbitMq {
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        self.broker.publisher()
    }

    pub async fn close(self) {
        drop(self.link);
        self.broker.close().await;
        self.tracker.close();
        // A publisher's task that is in the middle of something must not hold a person up.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.tracker.wait()).await;
    }
}
