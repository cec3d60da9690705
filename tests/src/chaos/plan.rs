//! Which faults strike, in which order and after which pauses: a pure function of the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::Fault;
use super::fault::Twice;

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Each kill ten times.
    Whole,
    /// Each fault once.
    Short,
}

/// One fault, with all that chance decides about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub fault: Fault,
    /// From a system that is well to the fault.
    pub lead: Duration,
    /// From the fault until what was ended is started again, or what was disturbed is put right.
    pub lasts: Duration,
    /// Which of two processes of a kind.
    pub number: usize,
    /// For [`Fault::KillTwo`]: what is killed, each of another kind.
    pub pair: [Fault; 2],
}

impl Step {
    /// What it may make arrive twice.
    #[must_use]
    pub fn twice(&self) -> Twice {
        let pair_is_harmless = self.pair.iter().all(|kill| kill.twice() == Twice::Never);
        match self.fault {
            Fault::KillTwo if pair_is_harmless => Twice::Never,
            fault => fault.twice(),
        }
    }
}

impl Length {
    fn times(self, fault: Fault) -> usize {
        match (self, fault) {
            (Self::Short, _) | (Self::Whole, Fault::WipeRabbitmq) => 1,
            (Self::Whole, Fault::KillTwo) => 6,
            (Self::Whole, fault) if Fault::KILLS.contains(&fault) => 10,
            (
                Self::Whole,
                Fault::StopDispatcher
                | Fault::MemoryAlarm
                | Fault::NoConnections
                | Fault::RefusePublishes,
            ) => 3,
            (Self::Whole, _) => 4,
        }
    }

    /// Milliseconds of a pause before a fault.
    fn lead_ms(self) -> std::ops::Range<u64> {
        match self {
            Self::Whole => 1_500..4_500,
            Self::Short => 800..1_800,
        }
    }

    /// Milliseconds that a fault lasts.
    fn lasts_ms(self, fault: Fault) -> std::ops::Range<u64> {
        match (self, fault) {
            (Self::Whole, Fault::StopDispatcher) => 30_000..30_001,
            (Self::Short, Fault::StopDispatcher) => 8_000..8_001,
            (Self::Whole, Fault::MemoryAlarm | Fault::NoConnections | Fault::RefusePublishes) => {
                5_000..10_000
            }
            (Self::Short, Fault::MemoryAlarm | Fault::NoConnections | Fault::RefusePublishes) => {
                2_000..3_000
            }
            (Self::Whole, _) => 0..3_000,
            (Self::Short, _) => 0..500,
        }
    }
}

/// Every fault as often as the length says, or only those that were chosen, in an order of chance. RabbitMQ's data go
/// last, since that needs quiet.
#[must_use]
pub fn plan(length: Length, seed: u64, only: &[Fault]) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let chosen = |fault: &Fault| only.is_empty() || only.contains(fault);
    let mut faults: Vec<_> = Fault::ALL
        .into_iter()
        .filter(chosen)
        .flat_map(|fault| vec![fault; length.times(fault)])
        .collect();
    faults.shuffle(&mut random);
    faults.sort_by_key(|fault| *fault == Fault::WipeRabbitmq);
    let steps = faults.into_iter().map(|fault| {
        let mut kills = Fault::KILLS;
        kills.shuffle(&mut random);
        let [first, second, ..] = kills;
        Step {
            fault,
            lead: Duration::from_millis(random.random_range(length.lead_ms())),
            lasts: Duration::from_millis(random.random_range(length.lasts_ms(fault))),
            number: random.random_range(0..2),
            pair: [first, second],
        }
    });
    steps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_kills_excuse_what_one_of_them_does() {
        let two = |pair| Step {
            pair,
            ..plan(Length::Short, 1, &[Fault::KillTwo]).swap_remove(0)
        };
        let harmless = two([Fault::KillRetry, Fault::KillApi]);
        assert_eq!(harmless.twice(), Twice::Never);
        let one_sends = two([Fault::KillRetry, Fault::KillDispatcher]);
        assert_eq!(one_sends.twice(), Twice::InFlight);
    }

    fn count(steps: &[Step], fault: Fault) -> usize {
        steps.iter().filter(|step| step.fault == fault).count()
    }

    #[test]
    fn the_same_seed_makes_the_same_plan_and_another_one_another() {
        let plans = [1, 1, 2].map(|seed| plan(Length::Whole, seed, &[]));
        assert_eq!(plans[0], plans[1]);
        assert_ne!(plans[0], plans[2]);
    }

    #[test]
    fn the_whole_kills_each_part_ten_times_and_ends_with_the_data_of_rabbitmq() {
        let steps = plan(Length::Whole, 7, &[]);
        for fault in Fault::KILLS {
            assert_eq!(count(&steps, fault), 10, "{fault}");
        }
        for fault in Fault::ALL {
            assert!(count(&steps, fault) > 0, "{fault}");
        }
        assert_eq!(count(&steps, Fault::WipeRabbitmq), 1);
        assert_eq!(steps.last().unwrap().fault, Fault::WipeRabbitmq);
        let stopped = steps
            .iter()
            .find(|step| step.fault == Fault::StopDispatcher);
        assert_eq!(stopped.unwrap().lasts, Duration::from_secs(30));
    }

    #[test]
    fn the_short_one_has_each_fault_once() {
        let steps = plan(Length::Short, 7, &[]);
        assert!(Fault::ALL.iter().all(|fault| count(&steps, *fault) == 1));
    }

    #[test]
    fn two_parts_killed_at_once_are_two() {
        for step in plan(Length::Whole, 3, &[Fault::KillTwo]) {
            assert_eq!(step.fault, Fault::KillTwo);
            assert_ne!(step.pair[0], step.pair[1]);
        }
    }
}
