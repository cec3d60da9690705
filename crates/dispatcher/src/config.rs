//! The dispatcher's configuration, and what must fit together in it.

use std::time::Duration;

use domain::limits::EVENT_BYTES_MAX;
use serde::Deserialize;

use crate::due::START_MAX;
use crate::{deliver, isolation};

/// All sections that the dispatcher reads.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub postgres: store::Config,
    pub rabbitmq: broker::Config,
    pub secrets: store::keyring::Config,
    pub network: domain::network::Config,
    pub telemetry: runtime::telemetry::Config,
    pub admin: runtime::probes::Config,
    pub retry_policy: domain::retry_policy::Config,
    pub dispatcher: Section,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            postgres: store::Config::default(),
            rabbitmq: broker::Config::default(),
            secrets: store::keyring::Config::default(),
            network: domain::network::Config::default(),
            telemetry: runtime::telemetry::Config::default(),
            admin: runtime::probes::Config::local(ADMIN_PORT),
            retry_policy: domain::retry_policy::Config::default(),
            dispatcher: Section::default(),
        }
    }
}

const ADMIN_PORT: u16 = 9102;
/// An attempt that took its whole time must be recorded before another may begin.
const LEASE_MARGIN_MS_MIN: u32 = 1_000;

/// Section `[dispatcher]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Section {
    /// Events that each shard's queue may have out at a time.
    pub prefetch: u16,
    /// Announcements of due deliveries out at a time.
    pub due_prefetch: u16,
    /// Test calls and manual redeliveries out at a time.
    pub interactive_prefetch: u16,
    /// Memory that events in hand may take, in MiB.
    pub memory_budget_mib: u32,
    /// Milliseconds that an event is held for an answer before its attempt is recorded as in flight.
    pub hold_ms: u32,
    /// Milliseconds by which the lease of an attempt is longer than its time-out.
    pub lease_margin_ms: u32,
    /// Seconds that an attempt waits for a slot at most; far below the broker's consumer timeout of 30 minutes.
    pub slot_wait_max_s: u32,
    /// Milliseconds by which the deadline of an orderly stop is longer than an attempt's time-out.
    pub drain_margin_ms: u32,
    /// Most items in one batch of `record`.
    pub record_batch: usize,
    /// Batches written side by side.
    pub record_writers: usize,
    /// Subscriptions held in the cache.
    pub cached_subscriptions_max: u64,
    pub deliver: deliver::Config,
    pub isolation: isolation::Config,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            prefetch: 512,
            due_prefetch: 256,
            interactive_prefetch: 32,
            memory_budget_mib: 3072,
            hold_ms: 250,
            lease_margin_ms: 5_000,
            slot_wait_max_s: 1200,
            drain_margin_ms: 5_000,
            record_batch: 500,
            record_writers: 1,
            cached_subscriptions_max: 1_000_000,
            deliver: deliver::Config::default(),
            isolation: isolation::Config::default(),
        }
    }
}

/// Limits that don't fit together; the start is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSection {
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    #[error(
        "dispatcher.prefetch, dispatcher.isolation.in_flight_max and due_in_flight_max let events take {needed_mib} MiB, \
         more than dispatcher.memory_budget_mib ({budget_mib})"
    )]
    Memory { needed_mib: usize, budget_mib: u32 },
    #[error("dispatcher.lease_margin_ms ({0}) must be at least {LEASE_MARGIN_MS_MIN}")]
    LeaseMargin(u32),
    #[error(
        "dispatcher.slot_wait_max_s ({0}) must be at most 1200: the broker takes messages back after 1800 s"
    )]
    SlotWait(u32),
}

impl Section {
    /// Checks what must fit together, given how many queues of events there are.
    ///
    /// # Errors
    /// With a line that names the keys.
    pub fn validate(&self, event_queues: usize) -> Result<(), InvalidSection> {
        let counts = [
            ("dispatcher.prefetch", usize::from(self.prefetch)),
            ("dispatcher.due_prefetch", self.due_prefetch.into()),
            (
                "dispatcher.interactive_prefetch",
                self.interactive_prefetch.into(),
            ),
            ("dispatcher.hold_ms", self.hold_ms as usize),
            ("dispatcher.record_batch", self.record_batch),
            ("dispatcher.record_writers", self.record_writers),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(InvalidSection::Zero(key));
        }
        if self.slot_wait_max_s > 1200 {
            return Err(InvalidSection::SlotWait(self.slot_wait_max_s));
        }
        if self.lease_margin_ms < LEASE_MARGIN_MS_MIN {
            return Err(InvalidSection::LeaseMargin(self.lease_margin_ms));
        }
        let needed_mib = self.memory_mib(event_queues);
        if needed_mib > self.memory_budget_mib as usize {
            return Err(InvalidSection::Memory {
                needed_mib,
                budget_mib: self.memory_budget_mib,
            });
        }
        Ok(())
    }

    /// What events in hand take at most, in MiB: each that was taken twice (as published and as rendered), then one body
    /// for each request in flight, and those of a batch of starts.
    fn memory_mib(&self, event_queues: usize) -> usize {
        let taken = usize::from(self.prefetch) * event_queues * 2;
        let in_flight = self.isolation.in_flight_max + self.isolation.due_in_flight_max;
        let bodies = taken + in_flight as usize + 2 * START_MAX;
        bodies * EVENT_BYTES_MAX / (1024 * 1024)
    }

    /// How long an attempt is its dispatcher's alone.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.timeout() + Duration::from_millis(self.lease_margin_ms.into())
    }

    /// How long an orderly stop waits for attempts in flight.
    #[must_use]
    pub fn drain_deadline(&self) -> Duration {
        self.timeout() + Duration::from_millis(self.drain_margin_ms.into())
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.deliver.timeout_ms.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together_and_too_much_prefetch_does_not() {
        assert_eq!(Section::default().validate(9), Ok(()));
        let greedy = Section {
            prefetch: 1000,
            ..Section::default()
        };
        assert!(matches!(
            greedy.validate(9),
            Err(InvalidSection::Memory { .. })
        ));
        let idle = Section {
            record_writers: 0,
            ..Section::default()
        };
        assert_eq!(
            idle.validate(9),
            Err(InvalidSection::Zero("dispatcher.record_writers"))
        );
    }
}
