//! What the management API reads of the configuration. The section `[api]` is its own.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use runtime::config::ConfigError;
use runtime::{Failure, probes, telemetry};
use serde::Deserialize;
use store::Store;
use store::keyring::{self, Keyring};

use crate::SERVICE;

/// Keys of [`Api`] that are lists, for [`runtime::config::load`].
pub const LISTS: &[&str] = &["api.trusted_proxies"];

const ADMIN_PORT: u16 = 9101;

/// All sections that this service reads.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub api: Api,
    pub postgres: store::Config,
    pub rabbitmq: broker::Config,
    pub secrets: keyring::Config,
    pub network: domain::network::Config,
    pub telemetry: telemetry::Config,
    pub admin: probes::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            api: Api::default(),
            postgres: store::Config::default(),
            rabbitmq: broker::Config::default(),
            secrets: keyring::Config::default(),
            network: domain::network::Config::default(),
            telemetry: telemetry::Config::default(),
            admin: probes::Config::local(ADMIN_PORT),
        }
    }
}

impl Config {
    /// Refuses what can't work, before a port is bound.
    ///
    /// # Errors
    /// With one line that names the option.
    pub fn validate(&self) -> Result<(), Failure> {
        self.api.validate()?;
        // A test call with an idempotency key keeps a transaction open while it waits.
        let idle_ms_max = 2 * u64::from(self.postgres.statement_timeout_ms);
        if self.api.test_call_timeout_ms >= idle_ms_max {
            return Err(ConfigError::rule(
                "api.test_call_timeout_ms",
                "must be shorter than twice postgres.statement_timeout_ms",
            )
            .into());
        }
        self.rabbitmq
            .validate()
            .map_err(|error| Failure::config(&error))?;
        Keyring::new(&self.secrets).map_err(|error| Failure::config(&error))?;
        Store::connect(&self.postgres, SERVICE).map_err(|error| Failure::config(&error))?;
        Ok(())
    }
}

/// Section `[api]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Where partners' requests are taken, `IP:port`; port 0 takes a free one. Plain HTTP: TLS ends before it.
    pub address: SocketAddr,
    /// Threads that answer requests.
    pub workers: usize,
    /// Most connections of one worker at a time; further ones wait to be accepted.
    pub connections_max: usize,
    /// Milliseconds after which a request that is not answered yet is given up with a 503. Longer than a test call.
    pub request_timeout_ms: u64,
    /// Milliseconds that requests in flight have to end in when the service is stopped.
    pub drain_timeout_ms: u64,
    /// Milliseconds that a test call waits for what came of it.
    pub test_call_timeout_ms: u64,
    /// Milliseconds within which a dispatcher must begin a test call, or drop it.
    pub test_call_begin_within_ms: u64,
    /// Milliseconds that the name servers have to answer when the host of a webhook is checked.
    pub resolve_timeout_ms: u64,
    /// Proxies, as CIDRs, whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Requests a minute that one address may make without a valid key.
    pub address_requests_per_minute: u32,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            workers: 2,
            connections_max: 4096,
            request_timeout_ms: 25_000,
            drain_timeout_ms: 30_000,
            test_call_timeout_ms: 15_000,
            test_call_begin_within_ms: 4_000,
            resolve_timeout_ms: 2_000,
            trusted_proxies: Vec::new(),
            address_requests_per_minute: 60,
        }
    }
}

impl Api {
    /// Refuses what can't work, before a port is bound.
    ///
    /// # Errors
    /// With one line that names the option.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, why: &str| Err(ConfigError::rule(key, why));
        for (key, value) in [
            ("api.workers", self.workers as u64),
            ("api.connections_max", self.connections_max as u64),
            ("api.request_timeout_ms", self.request_timeout_ms),
            ("api.test_call_timeout_ms", self.test_call_timeout_ms),
            (
                "api.test_call_begin_within_ms",
                self.test_call_begin_within_ms,
            ),
            ("api.resolve_timeout_ms", self.resolve_timeout_ms),
            (
                "api.address_requests_per_minute",
                self.address_requests_per_minute.into(),
            ),
        ] {
            if value == 0 {
                return refuse(key, "must be at least 1");
            }
        }
        if self.test_call_begin_within_ms > self.test_call_timeout_ms {
            return refuse(
                "api.test_call_begin_within_ms",
                "must not be longer than api.test_call_timeout_ms",
            );
        }
        if self.request_timeout_ms <= self.test_call_timeout_ms {
            return refuse(
                "api.request_timeout_ms",
                "must be longer than api.test_call_timeout_ms",
            );
        }
        Ok(())
    }

    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }

    #[must_use]
    pub fn test_call_timeout(&self) -> Duration {
        Duration::from_millis(self.test_call_timeout_ms)
    }

    #[must_use]
    pub fn test_call_begin_within(&self) -> Duration {
        Duration::from_millis(self.test_call_begin_within_ms)
    }

    #[must_use]
    pub fn resolve_timeout(&self) -> Duration {
        Duration::from_millis(self.resolve_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_defaults_can_work_but_for_the_key_that_has_none() {
        let mut config = Config::default();
        assert!(
            config
                .validate()
                .unwrap_err()
                .line()
                .contains("secrets.keys")
        );
        config.secrets.keys.insert("a".to_owned(), "0".repeat(64));
        config.secrets.active_key = "a".to_owned();
        config.validate().unwrap();
    }

    #[test]
    fn times_that_do_not_fit_together_are_refused() {
        for api in [
            Api {
                workers: 0,
                ..Api::default()
            },
            Api {
                request_timeout_ms: 15_000,
                ..Api::default()
            },
            Api {
                test_call_begin_within_ms: 20_000,
                ..Api::default()
            },
        ] {
            assert!(api.validate().is_err(), "{api:?}");
        }
    }

    #[test]
    fn trusted_proxies_are_a_list_in_the_environment() {
        let variables = BTreeMap::from([(
            "VELLOCITY__API__TRUSTED_PROXIES".to_owned(),
            "10.0.0.0/8, ::1/128".to_owned(),
        )]);
        let config: Config = runtime::config::load_from(None, variables, LISTS).unwrap();
        assert_eq!(config.api.trusted_proxies.len(), 2);
    }
}
