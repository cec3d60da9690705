//! What the retry service reads from its configuration: the sections that it shares with others, and its own.

use std::time::Duration;

use domain::retry_policy::RetryPolicy;
use runtime::config::ConfigError;
use serde::Deserialize;
use store::partition::Retention;

use crate::Error;

/// Port of the probes unless the section `[admin]` says otherwise.
const ADMIN_PORT: u16 = 9103;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Every section that the process reads.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub postgres: store::Config,
    pub rabbitmq: broker::Config,
    pub telemetry: runtime::telemetry::Config,
    pub admin: runtime::probes::Config,
    pub retry: Section,
    pub retry_policy: domain::retry_policy::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            postgres: store::Config::default(),
            rabbitmq: broker::Config::default(),
            telemetry: runtime::telemetry::Config::default(),
            admin: runtime::probes::Config::local(ADMIN_PORT),
            retry: Section::default(),
            retry_policy: domain::retry_policy::Config::default(),
        }
    }
}

/// The section `[retry]`. Every value must be at least 1.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Section {
    /// Announcements that are being placed into delay buckets at a time.
    pub prefetch: u16,
    /// Milliseconds between two looks for overdue deliveries.
    pub sweep_every_ms: u32,
    /// Seconds that a delivery may be overdue before it is announced again.
    pub sweep_overdue_s: u32,
    /// Deliveries announced again by one statement.
    pub sweep_batch: u32,
    /// Seconds between two looks for the delivery that is overdue for longest, for a gauge. Each looks at all that wait.
    pub oldest_waiting_every_s: u32,
    /// Messages of `rejected` or `dead` that are moved into rows by one transaction. Times 1 MiB is the memory that
    /// they may take, since the broker takes no message over 512 KiB and there are two queues.
    pub dead_letters_batch: u16,
    /// Days that rejected and dead messages are kept.
    pub dead_letters_days: u32,
    /// Most bytes that the rejected ones may take, and as many again the dead ones; beyond it the oldest go. A row counts
    /// with 1 KiB more than its body, so that this limits their number as well.
    pub dead_letters_bytes_max: u64,
    /// Seconds between two looks at age and size of the rejected and dead messages.
    pub dead_letters_cap_every_s: u32,
    /// Seconds between two rounds that make and drop partitions.
    pub partitions_every_s: u32,
    /// Days after today whose partitions exist.
    pub partitions_days_ahead: u32,
    /// An alert is raised while there are fewer days than this.
    pub partitions_alert_below_days: u32,
    /// Days that events are kept, with their bodies.
    pub retention_events_days: u32,
    /// Days that deliveries and their attempts are kept.
    pub retention_deliveries_days: u32,
    /// Seconds between two rounds that trim old claims, idempotency keys, rate limits, breakers and instances.
    pub trim_every_s: u32,
    /// Rows that one statement trims.
    pub trim_batch: u32,
    /// Seconds between two looks for webhooks that do nothing but fail.
    pub disable_every_s: u32,
    /// Seconds between two signs of life in the table of services.
    pub heartbeat_every_s: u32,
    /// Seconds that work in progress gets to end after SIGTERM.
    pub drain_s: u32,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            prefetch: 500,
            sweep_every_ms: 2000,
            sweep_overdue_s: 30,
            sweep_batch: 500,
            oldest_waiting_every_s: 15,
            dead_letters_batch: 32,
            dead_letters_days: 30,
            dead_letters_bytes_max: 512 << 20,
            dead_letters_cap_every_s: 300,
            partitions_every_s: 600,
            partitions_days_ahead: 7,
            partitions_alert_below_days: 3,
            retention_events_days: 7,
            retention_deliveries_days: 30,
            trim_every_s: 10,
            trim_batch: 2000,
            disable_every_s: 60,
            heartbeat_every_s: 5,
            drain_s: 15,
        }
    }
}

/// The section `[retry]` and the policy, once they fit together.
#[derive(Clone, Debug)]
pub struct Settings {
    pub prefetch: u16,
    pub sweep_every: Duration,
    pub sweep_overdue: Duration,
    pub sweep_batch: i64,
    pub oldest_waiting_every: Duration,
    pub dead_letters_batch: u16,
    pub dead_letters: DeadLetterCaps,
    pub dead_letters_cap_every: Duration,
    pub partitions_every: Duration,
    pub partitions_days_ahead: u32,
    pub partitions_alert_below_days: u32,
    pub retention: Retention,
    pub trim_every: Duration,
    pub trim_batch: u32,
    pub disable_every: Duration,
    pub heartbeat_every: Duration,
    pub drain: Duration,
    pub policy: RetryPolicy,
}

/// How much of what was rejected is kept.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetterCaps {
    pub age: Duration,
    /// Of each line, with 1 KiB a row.
    pub bytes: u64,
}

impl Settings {
    /// Checks the section, the policy and the way to RabbitMQ.
    ///
    /// # Errors
    /// With the option that is at fault; the start is refused.
    pub fn new(config: &Config) -> Result<Self, Error> {
        config.rabbitmq.validate()?;
        let policy = RetryPolicy::try_from(&config.retry_policy)?;
        let section = &config.retry;
        section.refuse_zeros()?;
        if section.partitions_alert_below_days > section.partitions_days_ahead {
            return Err(rule(
                "partitions_alert_below_days",
                "must not be greater than retry.partitions_days_ahead",
            ));
        }
        let seconds = |s: u32| Duration::from_secs(s.into());
        Ok(Self {
            prefetch: section.prefetch,
            sweep_every: Duration::from_millis(section.sweep_every_ms.into()),
            sweep_overdue: seconds(section.sweep_overdue_s),
            sweep_batch: section.sweep_batch.into(),
            oldest_waiting_every: seconds(section.oldest_waiting_every_s),
            dead_letters_batch: section.dead_letters_batch,
            dead_letters: DeadLetterCaps {
                age: DAY.saturating_mul(section.dead_letters_days),
                bytes: section.dead_letters_bytes_max,
            },
            dead_letters_cap_every: seconds(section.dead_letters_cap_every_s),
            partitions_every: seconds(section.partitions_every_s),
            partitions_days_ahead: section.partitions_days_ahead,
            partitions_alert_below_days: section.partitions_alert_below_days,
            retention: Retention {
                events_days: section.retention_events_days,
                deliveries_days: section.retention_deliveries_days,
            },
            trim_every: seconds(section.trim_every_s),
            trim_batch: section.trim_batch,
            disable_every: seconds(section.disable_every_s),
            heartbeat_every: seconds(section.heartbeat_every_s),
            drain: seconds(section.drain_s),
            policy,
        })
    }
}

impl Section {
    fn refuse_zeros(&self) -> Result<(), Error> {
        let values = [
            ("prefetch", u64::from(self.prefetch)),
            ("sweep_every_ms", self.sweep_every_ms.into()),
            ("sweep_overdue_s", self.sweep_overdue_s.into()),
            ("sweep_batch", self.sweep_batch.into()),
            ("oldest_waiting_every_s", self.oldest_waiting_every_s.into()),
            ("dead_letters_batch", self.dead_letters_batch.into()),
            ("dead_letters_days", self.dead_letters_days.into()),
            ("dead_letters_bytes_max", self.dead_letters_bytes_max),
            (
                "dead_letters_cap_every_s",
                self.dead_letters_cap_every_s.into(),
            ),
            ("partitions_every_s", self.partitions_every_s.into()),
            ("partitions_days_ahead", self.partitions_days_ahead.into()),
            (
                "partitions_alert_below_days",
                self.partitions_alert_below_days.into(),
            ),
            ("retention_events_days", self.retention_events_days.into()),
            (
                "retention_deliveries_days",
                self.retention_deliveries_days.into(),
            ),
            ("trim_every_s", self.trim_every_s.into()),
            ("trim_batch", self.trim_batch.into()),
            ("disable_every_s", self.disable_every_s.into()),
            ("heartbeat_every_s", self.heartbeat_every_s.into()),
            ("drain_s", self.drain_s.into()),
        ];
        match values.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(rule(key, "must be at least 1")),
            None => Ok(()),
        }
    }
}

fn rule(key: &str, why: &str) -> Error {
    ConfigError::rule(&format!("retry.{key}"), why).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: fn(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        let error = Settings::new(&config).unwrap_err();
        assert!(error.is_configuration(), "{error}");
        runtime::exit::chain(&error)
    }

    #[test]
    fn the_defaults_fit_together() {
        let settings = Settings::new(&Config::default()).unwrap();
        assert_eq!(settings.dead_letters.age, 30 * DAY);
        assert_eq!(settings.policy.attempts_max(), 11);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_its_name() {
        let zero = refused(|c| c.retry.sweep_batch = 0);
        assert!(zero.contains("retry.sweep_batch"), "{zero}");
        let alert = refused(|c| c.retry.partitions_days_ahead = 2);
        assert!(
            alert.contains("retry.partitions_alert_below_days"),
            "{alert}"
        );
        let policy = refused(|c| c.retry_policy.schedule_s.clear());
        assert!(policy.contains("retry_policy.schedule_s"), "{policy}");
    }
}
