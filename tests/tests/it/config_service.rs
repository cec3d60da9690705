//! The three services as the tests of configuration and deployment see them: what they read, and what they make of it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use broker::topology::event_queues;
use domain::retry_policy::RetryPolicy;
use runtime::config::ConfigError;
use serde::de::DeserializeOwned;
use store::keyring::Keyring;

/// Implemented by the type of a service's whole configuration.
pub trait Service: DeserializeOwned + Default + Debug {
    /// Of the program, its configuration file and its container.
    const NAME: &'static str;
    const LISTS: &'static [&'static str];

    fn postgres_url(&self) -> &str;
    fn rabbitmq_url(&self) -> &str;
    /// Where it listens.
    fn addresses(&self) -> Vec<SocketAddr>;
    /// How long an orderly stop may take for what is under way.
    fn drain(&self) -> Duration;
    /// What the service itself checks before it binds a port.
    fn check(&self) -> Result<(), Box<dyn Error>>;

    fn load(file: Option<&Path>, variables: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        runtime::config::load_from(file, variables, Self::LISTS)
    }
}

impl Service for management_api::Config {
    const NAME: &'static str = "management-api";
    const LISTS: &'static [&'static str] = management_api::LISTS;

    fn postgres_url(&self) -> &str {
        &self.postgres.url
    }

    fn rabbitmq_url(&self) -> &str {
        &self.rabbitmq.url
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.api.address, self.admin.address]
    }

    fn drain(&self) -> Duration {
        self.api.drain_timeout()
    }

    fn check(&self) -> Result<(), Box<dyn Error>> {
        self.validate()
            .map_err(|failure| failure.line().to_owned())?;
        Keyring::new(&self.secrets)?;
        Ok(())
    }
}

impl Service for dispatcher::Config {
    const NAME: &'static str = "dispatcher";
    const LISTS: &'static [&'static str] = &[];

    fn postgres_url(&self) -> &str {
        &self.postgres.url
    }

    fn rabbitmq_url(&self) -> &str {
        &self.rabbitmq.url
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.admin.address]
    }

    /// Consumers and attempts end one after the other.
    fn drain(&self) -> Duration {
        2 * self.dispatcher.drain_deadline()
    }

    fn check(&self) -> Result<(), Box<dyn Error>> {
        self.rabbitmq.validate()?;
        let queues = event_queues(self.rabbitmq.shards).len();
        self.dispatcher.validate(queues)?;
        dispatcher::isolation::Limits::try_from(&self.dispatcher.isolation)?;
        RetryPolicy::try_from(&self.retry_policy)?;
        Keyring::new(&self.secrets)?;
        Ok(())
    }
}

impl Service for retry::Config {
    const NAME: &'static str = "retry";
    const LISTS: &'static [&'static str] = &[];

    fn postgres_url(&self) -> &str {
        &self.postgres.url
    }

    fn rabbitmq_url(&self) -> &str {
        &self.rabbitmq.url
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.admin.address]
    }

    fn drain(&self) -> Duration {
        Duration::from_secs(self.retry.drain_s.into())
    }

    fn check(&self) -> Result<(), Box<dyn Error>> {
        self.rabbitmq.validate()?;
        retry::Settings::new(self)?;
        Ok(())
    }
}
