//! When a delivery is tried again, and when no more: pure functions of what happened.

use std::time::Duration;

use serde::Deserialize;

use crate::attempt::Attempt;

/// Section `[retry_policy]` of the configuration. The dispatcher and the retry service must be given the same.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seconds to wait after the first, second, … failed attempt.
    pub schedule_s: Vec<u32>,
    /// Share of a wait by which it is made shorter or longer at random, 0 to 0.5.
    pub jitter: f64,
    /// Longest wait that a receiver's `Retry-After` can ask for, in seconds.
    pub retry_after_max_s: u32,
    /// Age in seconds at which a delivery is given up, attempts left or not.
    pub expire_after_s: u32,
    /// Seconds of nothing but failures after which a webhook is disabled.
    pub disable_after_s: u32,
    /// Failed attempts that there must have been as well.
    pub disable_after_failures: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            schedule_s: vec![5, 30, 120, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400],
            jitter: 0.15,
            retry_after_max_s: 86_400,
            expire_after_s: 60 * 3600,
            disable_after_s: 5 * 86_400,
            disable_after_failures: 20,
        }
    }
}

/// A schedule that fits together.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    schedule: Vec<Duration>,
    jitter: f64,
    retry_after_max: Duration,
    pub expire_after: Duration,
    pub disable_after: Duration,
    pub disable_after_failures: u32,
}

/// A schedule that does not fit together; the start is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRetryPolicy {
    #[error("retry_policy.schedule_s must have at least one wait, and each must be at least 1 s")]
    Schedule,
    #[error("retry_policy.jitter must be between 0 and 0.5")]
    Jitter,
    #[error(
        "retry_policy.schedule_s takes up to {longest_s} s with jitter, longer than retry_policy.expire_after_s ({expire_after_s} s)"
    )]
    TooLong { longest_s: u64, expire_after_s: u32 },
}

/// What comes after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Delivered,
    /// Try again after this long, and let the delivery expire that much later.
    Retry {
        after: Duration,
        extend_expiry_by: Duration,
    },
    /// No more attempts.
    Exhausted,
}

impl TryFrom<&Config> for RetryPolicy {
    type Error = InvalidRetryPolicy;

    fn try_from(config: &Config) -> Result<Self, Self::Error> {
        if config.schedule_s.is_empty() || config.schedule_s.contains(&0) {
            return Err(InvalidRetryPolicy::Schedule);
        }
        if !(0.0..=0.5).contains(&config.jitter) {
            return Err(InvalidRetryPolicy::Jitter);
        }
        let schedule: Vec<_> = config
            .schedule_s
            .iter()
            .map(|&s| Duration::from_secs(s.into()))
            .collect();
        let longest_s = schedule
            .iter()
            .sum::<Duration>()
            .mul_f64(1.0 + config.jitter)
            .as_secs();
        if longest_s > config.expire_after_s.into() {
            return Err(InvalidRetryPolicy::TooLong {
                longest_s,
                expire_after_s: config.expire_after_s,
            });
        }
        Ok(Self {
            schedule,
            jitter: config.jitter,
            retry_after_max: Duration::from_secs(config.retry_after_max_s.into()),
            expire_after: Duration::from_secs(config.expire_after_s.into()),
            disable_after: Duration::from_secs(config.disable_after_s.into()),
            disable_after_failures: config.disable_after_failures,
        })
    }
}

impl RetryPolicy {
    /// How many attempts a delivery has at most.
    #[must_use]
    pub fn attempts_max(&self) -> u32 {
        u32::try_from(self.schedule.len()).map_or(u32::MAX, |n| n.saturating_add(1))
    }

    /// What comes after attempt `number` (from 1). `chance` is a random number in `[0, 1)`.
    #[must_use]
    pub fn after_attempt(&self, number: u32, attempt: &Attempt, chance: f64) -> Next {
        if attempt.is_delivered() {
            return Next::Delivered;
        }
        if attempt.is_gone() {
            return Next::Exhausted;
        }
        let index = number.saturating_sub(1) as usize;
        let Some(&step) = self.schedule.get(index) else {
            return Next::Exhausted;
        };
        let scheduled = self.jittered(step, chance);
        let asked = attempt
            .retry_after
            .unwrap_or_default()
            .min(self.retry_after_max);
        Next::Retry {
            after: scheduled.max(asked),
            extend_expiry_by: asked.saturating_sub(scheduled),
        }
    }

    /// How long a delivery is parked, not counting the spread over its webhook's backlog: the step of its schedule
    /// that would follow if each parking so far had been a failed attempt. The last step repeats.
    #[must_use]
    pub fn park_for(&self, attempts: u32, parkings: u32, chance: f64) -> Duration {
        let index = attempts.saturating_add(parkings) as usize;
        let step = self
            .schedule
            .get(index)
            .or(self.schedule.last())
            .copied()
            .unwrap_or(Duration::from_secs(1));
        self.jittered(step, chance)
    }

    fn jittered(&self, step: Duration, chance: f64) -> Duration {
        step.mul_f64(1.0 + self.jitter * (2.0 * chance - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::attempt::{Failure, FailureKind, Outcome, Timings};

    const MIDDLE: f64 = 0.5;

    fn policy() -> RetryPolicy {
        (&Config::default()).try_into().unwrap()
    }

    fn failed(kind: FailureKind, retry_after_s: Option<u64>) -> Attempt {
        Attempt {
            started_at: DateTime::UNIX_EPOCH,
            outcome: Outcome::Failed(Failure {
                kind,
                message: String::new(),
            }),
            response: None,
            timings: Timings::default(),
            retry_after: retry_after_s.map(Duration::from_secs),
        }
    }

    fn wait_s(number: u32, retry_after_s: Option<u64>, chance: f64) -> Option<(u64, u64)> {
        match policy().after_attempt(
            number,
            &failed(FailureKind::Status(503), retry_after_s),
            chance,
        ) {
            Next::Retry {
                after,
                extend_expiry_by,
            } => Some((after.as_secs(), extend_expiry_by.as_secs())),
            Next::Exhausted => None,
            Next::Delivered => panic!("a failure is no delivery"),
        }
    }

    #[test]
    fn eleven_attempts_at_the_published_waits() {
        let waits: Vec<_> = (1..=11)
            .map(|n| wait_s(n, None, MIDDLE).map(|(after, _)| after))
            .collect();
        let expected = [5, 30, 120, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400];
        assert_eq!(
            waits,
            expected
                .map(Some)
                .into_iter()
                .chain([None])
                .collect::<Vec<_>>()
        );
        assert_eq!(policy().attempts_max(), 11);
    }

    #[test]
    fn jitter_stays_within_fifteen_percent() {
        assert_eq!(wait_s(4, None, 0.0), Some((510, 0)));
        assert_eq!(wait_s(4, None, 1.0), Some((690, 0)));
    }

    #[test]
    fn retry_after_makes_the_wait_longer_never_shorter_and_not_longer_than_a_day() {
        assert_eq!(wait_s(1, Some(60), MIDDLE), Some((60, 55)));
        assert_eq!(wait_s(4, Some(60), MIDDLE), Some((600, 0)));
        assert_eq!(wait_s(1, Some(10_000_000), MIDDLE), Some((86_400, 86_395)));
        assert_eq!(wait_s(11, Some(60), MIDDLE), None);
    }

    #[test]
    fn a_receiver_that_is_gone_is_not_tried_again() {
        assert_eq!(
            policy().after_attempt(1, &failed(FailureKind::Status(410), Some(5)), MIDDLE),
            Next::Exhausted
        );
    }

    #[test]
    fn each_parking_waits_at_least_the_next_step() {
        let s = |attempts, parkings| policy().park_for(attempts, parkings, MIDDLE).as_secs();
        assert_eq!(
            [s(0, 0), s(0, 1), s(1, 1), s(3, 0), s(9, 9)],
            [5, 30, 120, 600, 86_400]
        );
    }

    #[test]
    fn a_schedule_that_does_not_fit_is_refused() {
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            RetryPolicy::try_from(&config).map(|_| ()).unwrap_err()
        };
        assert_eq!(with(|c| c.schedule_s.clear()), InvalidRetryPolicy::Schedule);
        assert_eq!(with(|c| c.schedule_s.push(0)), InvalidRetryPolicy::Schedule);
        assert_eq!(with(|c| c.jitter = 0.6), InvalidRetryPolicy::Jitter);
        assert_eq!(with(|c| c.jitter = f64::NAN), InvalidRetryPolicy::Jitter);
        assert!(matches!(
            with(|c| c.expire_after_s = 193_000),
            InvalidRetryPolicy::TooLong {
                longest_s: 193_378,
                ..
            }
        ));
    }
}
