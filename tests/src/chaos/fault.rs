//! What is done to the system, by name.

use std::fmt;
use std::str::FromStr;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    KillDispatcher,
    KillRetry,
    KillApi,
    KillRabbitmq,
    KillPostgres,
    TermDispatcher,
    TermRetry,
    TermApi,
    TermRabbitmq,
    /// SIGINT: PostgreSQL's fast shutdown.
    TermPostgres,
    /// SIGSTOP, and SIGCONT after a while.
    StopDispatcher,
    /// RabbitMQ blocks whoever publishes.
    MemoryAlarm,
    /// Every connection that PostgreSQL has is taken, those of the services too.
    NoConnections,
    /// RabbitMQ refuses what is published, as with full queues: events, and what services publish.
    RefusePublishes,
    KillTwo,
    /// With publishing paused: RabbitMQ's data are gone, while retries wait in it.
    WipeRabbitmq,
}

/// How many deliveries a fault may make arrive twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twice {
    Never,
    /// Those that were with the receiver, and not yet recorded.
    InFlight,
}

impl Fault {
    pub const ALL: [Self; 16] = [
        Self::KillDispatcher,
        Self::KillRetry,
        Self::KillApi,
        Self::KillRabbitmq,
        Self::KillPostgres,
        Self::TermDispatcher,
        Self::TermRetry,
        Self::TermApi,
        Self::TermRabbitmq,
        Self::TermPostgres,
        Self::StopDispatcher,
        Self::MemoryAlarm,
        Self::NoConnections,
        Self::RefusePublishes,
        Self::KillTwo,
        Self::WipeRabbitmq,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KillDispatcher => "kill-dispatcher",
            Self::KillRetry => "kill-retry",
            Self::KillApi => "kill-api",
            Self::KillRabbitmq => "kill-rabbitmq",
            Self::KillPostgres => "kill-postgres",
            Self::TermDispatcher => "term-dispatcher",
            Self::TermRetry => "term-retry",
            Self::TermApi => "term-api",
            Self::TermRabbitmq => "term-rabbitmq",
            Self::TermPostgres => "term-postgres",
            Self::StopDispatcher => "stop-dispatcher",
            Self::MemoryAlarm => "memory-alarm",
            Self::NoConnections => "no-connections",
            Self::RefusePublishes => "refuse-publishes",
            Self::KillTwo => "kill-two",
            Self::WipeRabbitmq => "wipe-rabbitmq",
        }
    }

    #[must_use]
    pub fn twice(self) -> Twice {
        match self {
            Self::KillRetry
            | Self::KillApi
            | Self::TermDispatcher
            | Self::TermRetry
            | Self::TermApi
            | Self::MemoryAlarm
            | Self::RefusePublishes => Twice::Never,
            Self::KillDispatcher
            | Self::KillRabbitmq
            | Self::KillPostgres
            | Self::TermRabbitmq
            | Self::TermPostgres
            | Self::StopDispatcher
            | Self::NoConnections
            | Self::KillTwo
            | Self::WipeRabbitmq => Twice::InFlight,
        }
    }

    /// The parts that are killed at once, where a fault alone does not say it.
    pub const KILLS: [Self; 5] = [
        Self::KillDispatcher,
        Self::KillRetry,
        Self::KillApi,
        Self::KillRabbitmq,
        Self::KillPostgres,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|fault| fault.name() == name);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|fault| fault.name()).collect();
            format!("{name:?} is no fault; there are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_found_by_its_name_and_a_wrong_name_is_answered_with_all() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        let refused = "kill-everything".parse::<Fault>().unwrap_err();
        assert!(refused.contains("kill-dispatcher") && refused.contains("wipe-rabbitmq"));
    }

    #[test]
    fn an_orderly_end_of_a_service_and_one_that_sends_nothing_excuse_no_repetition() {
        for fault in [
            Fault::TermDispatcher,
            Fault::TermRetry,
            Fault::TermApi,
            Fault::KillRetry,
            Fault::KillApi,
        ] {
            assert_eq!(fault.twice(), Twice::Never);
        }
        for fault in [
            Fault::KillDispatcher,
            Fault::KillRabbitmq,
            Fault::KillPostgres,
        ] {
            assert_eq!(fault.twice(), Twice::InFlight);
        }
    }
}
