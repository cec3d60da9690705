//! The section `[rabbitmq]` of the configuration.

use std::fmt;
use std::time::Duration;

use lapin::uri::AMQPUri;
use serde::Deserialize;

use crate::error::BrokerError;

/// Most shards that events may be spread over. Each costs a queue on the broker and a consumer in every dispatcher.
const SHARDS_MAX: u16 = 64;

/// How to reach RabbitMQ, and what is expected to be there.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `amqp://user:password@host:port/vhost`, or `amqps://` for TLS.
    pub url: String,
    /// After two of these without a word from the other side a connection counts as lost, in seconds.
    pub heartbeat_s: u16,
    /// How long a publisher's confirm may take, in milliseconds.
    pub confirm_timeout_ms: u64,
    /// Who makes exchanges and queues.
    pub topology: TopologyMode,
    /// Number of queues that events are spread over by partner, 1 to 64. All services have to agree. Raising it is
    /// safe; before lowering it, unbind the last queues from `vellocity.events.shards` and let them run empty.
    pub shards: u16,
}

/// What is done about exchanges and queues on each connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopologyMode {
    /// Declare them: for machines of developers, tests, and small installations.
    Declare,
    /// Only make sure that they are there: in production definitions or an operator make them.
    Check,
    /// Neither: for tools whose user may do no more than publish.
    Assume,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned(),
            heartbeat_s: 20,
            confirm_timeout_ms: 5000,
            topology: TopologyMode::Declare,
            shards: 8,
        }
    }
}

impl Config {
    /// Refuses what can't work, before anything is started.
    ///
    /// # Errors
    /// With one line that names the option.
    pub fn validate(&self) -> Result<(), BrokerError> {
        let refuse = |why: &str| Err(BrokerError::Config(why.to_owned()));
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return refuse("rabbitmq.shards must be 1 to 64");
        }
        if self.heartbeat_s == 0 {
            return refuse("rabbitmq.heartbeat_s must be at least 1");
        }
        if self.confirm_timeout_ms == 0 {
            return refuse("rabbitmq.confirm_timeout_ms must be at least 1");
        }
        self.uri().map(|_| ())
    }

    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.heartbeat_s.into())
    }

    #[must_use]
    pub fn confirm_timeout(&self) -> Duration {
        Duration::from_millis(self.confirm_timeout_ms)
    }

    /// The parsed URL with the configured heartbeat. What lapin says about a bad one is left out: it repeats the URL,
    /// and so the password.
    pub(crate) fn uri(&self) -> Result<AMQPUri, BrokerError> {
        let bad = |why: &str| BrokerError::Config(format!("rabbitmq.url {why}"));
        let mut uri: AMQPUri = self
            .url
            .parse()
            .map_err(|_| bad("must look like amqp://user:password@host:5672/vhost"))?;
        // lapin would silently go to localhost instead.
        if self.url.contains("@[") || self.url.contains("//[") {
            return Err(bad("must name its host, or have an IPv4 address"));
        }
        // No virtual host has an empty name in practice: a slash at the end means the default one.
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat = Some(self.heartbeat_s);
        Ok(uri)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.uri().map_or_else(
            |_| "(not a URL)".to_owned(),
            |uri| {
                format!(
                    "{}://{}:{}/{}",
                    uri.scheme, uri.authority.host, uri.authority.port, uri.vhost
                )
            },
        );
        f.debug_struct("Config")
            .field("url", &place)
            .field("heartbeat_s", &self.heartbeat_s)
            .field("confirm_timeout_ms", &self.confirm_timeout_ms)
            .field("topology", &self.topology)
            .field("shards", &self.shards)
            .finish()
    }
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
    fn the_defaults_can_work() {
        assert!(Config::default().validate().is_ok());
    }

    #[test]
    fn a_password_is_printed_nowhere() {
        for url in ["amqp://me:hush-hush@h:1/v", "me:hush-hush@h", "hush-hush"] {
            let config = with_url(url);
            let shown = format!("{config:?} {:?}", config.validate());
            assert!(!shown.contains("hush-hush"), "{shown}");
        }
    }

    #[test]
    fn virtual_hosts_are_read_from_the_path() {
        let vhost = |url: &str| with_url(url).uri().unwrap().vhost;
        assert_eq!(vhost("amqp://h"), "/");
        assert_eq!(vhost("amqp://h/"), "/");
        assert_eq!(vhost("amqp://h/%2f"), "/");
        assert_eq!(vhost("amqp://h/mine"), "mine");
    }

    #[test]
    fn what_can_not_work_is_refused() {
        let bad = [
            with_url(""),
            with_url("http://h"),
            with_url("amqp://[::1]:5672"),
            Config {
                shards: 0,
                ..Config::default()
            },
            Config {
                shards: 65,
                ..Config::default()
            },
            Config {
                heartbeat_s: 0,
                ..Config::default()
            },
        ];
        for config in bad {
            assert!(config.validate().is_err(), "{config:?}");
        }
    }
}
