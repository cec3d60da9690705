//! What keeps one webhook or partner from slowing the others.
//!
//! Every attempt asks the [`Gate`] first, and is let through, kept waiting, or sent away to be parked. What the gate
//! knows it learns from the attempts themselves; it reads and writes nothing else, and a restart forgets it all.
//!
//! ```text
//! deliver ──> Gate::admit ──> Permit ──> the request ──> Permit::finish ──> record
//!                  └────────> Parking ─────────────────────────────────────> record
//! ```
//!
//! - [`cap`]: how many requests one webhook may have in flight, 16 to 512, by how it answers.
//! - [`breaker`]: whether a webhook is tried at all.
//! - [`budget`]: how many requests all of them may have in flight, and the shares of suspects and partners.
//! - [`mod@line`]: who waits, and whose turn it is.
//! - [`egress`]: whether it is our own network that fails.
//! - [`ledger`]: all of these as one state machine, without a clock, which [`gate`] puts behind a lock.
//!
//! A wait that is the webhook's own fault (its cap, the suspects' share) ends after a quarter of a second, and the
//! delivery is parked. A wait that is ours (the whole budget, a partner's share, our network) has no such end:
//! overload takes less from the queues and parks nothing.

mod backlog;
mod breaker;
mod budget;
mod cap;
mod config;
mod egress;
mod gate;
mod latency;
mod ledger;
mod line;
mod registry;
#[cfg(test)]
mod simulation;
mod webhook;

pub use breaker::{BreakerChange, BreakerState};
pub use config::{Config, InvalidLimits, Limits};
pub use egress::EgressState;
pub use gate::{Admission, Gate, Permit};
pub use ledger::{Feedback, Parking, Snapshot, Target};

/// Where an attempt comes from. Each lane has a budget of its own, so that neither can starve the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The first attempt, right after the fan-out.
    First,
    /// A retry or a parked delivery that has come due.
    Due,
}

impl Lane {
    pub const ALL: [Self; 2] = [Self::First, Self::Due];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Due => "due",
        }
    }
}

/// One value for each lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerLane<T> {
    pub first: T,
    pub due: T,
}

impl<T> PerLane<T> {
    fn get(&self, lane: Lane) -> &T {
        match lane {
            Lane::First => &self.first,
            Lane::Due => &self.due,
        }
    }

    fn get_mut(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::First => &mut self.first,
            Lane::Due => &mut self.due,
        }
    }
}
