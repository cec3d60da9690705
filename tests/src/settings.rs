//! The configuration that the services of a test get, as the environment variables that it would be in production: the
//! same for a service in this process and for one that is a process of its own.

use std::collections::BTreeMap;

use runtime::config;

/// Sections and keys with their values.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<String, String>);

/// A key of the tests' keyring.
const SECRET_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

impl Settings {
    /// What tests run with: short waits, loopback receivers, few connections, ports that are free.
    #[must_use]
    pub fn for_tests(postgres_url: &str, rabbitmq_url: &str) -> Self {
        let mut settings = Self::default();
        for (key, value) in [
            ("postgres.url", postgres_url),
            ("postgres.pool_size", "4"),
            ("rabbitmq.url", rabbitmq_url),
            // Fewer queues to declare, and still more than one.
            ("rabbitmq.shards", "2"),
            ("secrets.keys.test", SECRET_KEY),
            ("secrets.active_key", "test"),
            ("network.allow_http", "true"),
            ("network.allowed_networks", "127.0.0.0/8,::1/128"),
            ("telemetry.log_format", "human"),
            ("admin.address", "127.0.0.1:0"),
            ("api.address", "127.0.0.1:0"),
            ("api.workers", "1"),
            ("api.address_requests_per_minute", "10000"),
            ("dispatcher.prefetch", "64"),
            // What a slow receiver's backlog waits for is spread over the time that it takes to drain.
            ("dispatcher.isolation.backlog_spread_max_s", "1"),
            ("retry_policy.schedule_s", "1,1,2,2"),
            ("retry_policy.jitter", "0.1"),
            ("retry.sweep_every_ms", "500"),
            ("retry.heartbeat_every_s", "1"),
        ] {
            settings.set(key, value);
        }
        settings
    }

    /// The defaults, as a deployment has them; only receivers on this machine are permitted beside.
    #[must_use]
    pub fn defaults(postgres_url: &str, rabbitmq_url: &str) -> Self {
        let mut settings = Self::default();
        for (key, value) in [
            ("postgres.url", postgres_url),
            ("rabbitmq.url", rabbitmq_url),
            ("secrets.keys.test", SECRET_KEY),
            ("secrets.active_key", "test"),
            ("network.allow_http", "true"),
            ("network.allowed_networks", "127.0.0.0/8,::1/128"),
            ("telemetry.log_format", "human"),
        ] {
            settings.set(key, value);
        }
        settings
    }

    /// Takes over whatever the environment sets (`VELLOCITY__SECTION__KEY`), for trials.
    #[must_use]
    pub fn with_environment(mut self) -> Self {
        let ours = std::env::vars().filter(|(name, _)| name.starts_with("VELLOCITY__"));
        self.0.extend(ours);
        self
    }

    /// Sets `section.key`, or `section.part.key`.
    pub fn set(&mut self, key: &str, value: &str) {
        self.0.insert(variable(key), value.to_owned());
    }

    /// Back to the default.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(&variable(key));
    }

    /// A copy with one more setting.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        let mut settings = self.clone();
        settings.set(key, value);
        settings
    }

    /// For [`runtime::config::load_from`], or a process.
    #[must_use]
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// # Panics
    /// When a setting is wrong.
    #[must_use]
    pub fn management_api(&self) -> management_api::Config {
        config::load_from(None, self.0.clone(), management_api::LISTS).unwrap()
    }

    /// # Panics
    /// When a setting is wrong.
    #[must_use]
    pub fn dispatcher(&self) -> dispatcher::Config {
        config::load_from(None, self.0.clone(), &[]).unwrap()
    }

    /// # Panics
    /// When a setting is wrong.
    #[must_use]
    pub fn retry(&self) -> retry::Config {
        config::load_from(None, self.0.clone(), &[]).unwrap()
    }

    /// For functions of the crate `store` that need it.
    ///
    /// # Panics
    /// When a setting is wrong.
    #[must_use]
    pub fn keyring(&self) -> store::keyring::Keyring {
        store::keyring::Keyring::new(&self.management_api().secrets).unwrap()
    }
}

fn variable(key: &str) -> String {
    format!("VELLOCITY__{}", key.replace('.', "__").to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_tests_fit_all_services() {
        let settings = Settings::for_tests("postgres://a@b/c", "amqp://a:b@c/d");
        settings.management_api().validate().unwrap();
        let _others = (settings.dispatcher(), settings.retry());
        let _keyring = settings.keyring();
    }

    #[test]
    fn the_defaults_fit_all_services() {
        let settings = Settings::defaults("postgres://a@b/c", "amqp://a:b@c/d");
        settings.management_api().validate().unwrap();
        let _others = (settings.dispatcher(), settings.retry());
    }
}
