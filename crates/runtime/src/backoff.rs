//! Growing, jittered pauses for whoever waits for a neighbour to come up: Postgres, RabbitMQ, an HTTP server of ours.
//! It reads nothing but the random generator; the caller sleeps. (Deliveries do not use it: their schedule is a rule of
//! the product and lives in `domain`.)

use std::time::Duration;

use rand::Rng as _;

/// The first pause is drawn from `min ..= 2 * min`, and each further one from a range whose upper end is twice as far,
/// up to `max`. The lower end stays at `min`, so that no pause is a busy loop.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    ceiling: Duration,
}

/// Why a [`Backoff`] could not be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackoffError {
    #[error("the shortest pause of a back-off must be longer than zero")]
    ZeroMin,
    #[error("the longest pause of a back-off must not be shorter than its shortest")]
    MaxBelowMin,
}

impl Backoff {
    pub fn new(min: Duration, max: Duration) -> Result<Self, BackoffError> {
        if min.is_zero() {
            return Err(BackoffError::ZeroMin);
        }
        if max < min {
            return Err(BackoffError::MaxBelowMin);
        }
        Ok(Self {
            min,
            max,
            ceiling: min,
        })
    }

    /// How long to wait before the next try.
    pub fn next_delay(&mut self) -> Duration {
        self.ceiling = self.ceiling.saturating_mul(2).min(self.max);
        rand::rng().random_range(self.min..=self.ceiling)
    }

    /// Starts over from the shortest pause; called once a try has succeeded.
    pub fn reset(&mut self) {
        self.ceiling = self.min;
    }
}

/// For a neighbour that is starting or restarting: 100 ms, growing to 5 s, so that nobody waits long once it is up.
impl Default for Backoff {
    fn default() -> Self {
        let min = Duration::from_millis(100);
        Self {
            min,
            max: Duration::from_secs(5),
            ceiling: min,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(10);
    const MAX: Duration = Duration::from_millis(70);

    #[test]
    fn an_invalid_backoff_cannot_be_built() {
        assert_eq!(
            Backoff::new(Duration::ZERO, MAX).unwrap_err(),
            BackoffError::ZeroMin
        );
        assert_eq!(
            Backoff::new(MAX, MIN).unwrap_err(),
            BackoffError::MaxBelowMin
        );
        assert!(Backoff::new(MIN, MIN).is_ok());
    }

    #[test]
    fn every_pause_lies_between_the_minimum_and_a_doubling_ceiling() {
        for _ in 0..200 {
            let mut backoff = Backoff::new(MIN, MAX).unwrap();
            for ceiling_ms in [20, 40, 70, 70] {
                let delay = backoff.next_delay();
                assert!(
                    delay >= MIN && delay <= Duration::from_millis(ceiling_ms),
                    "{delay:?}"
                );
            }
        }
    }

    #[test]
    fn a_reset_starts_over() {
        let mut backoff = Backoff::new(MIN, MAX).unwrap();
        for _ in 0..10 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= 2 * MIN);
    }

    #[test]
    fn a_pause_without_bounds_does_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::MAX).unwrap();
        for _ in 0..200 {
            assert!(backoff.next_delay() >= Duration::from_secs(1));
        }
    }

    #[test]
    fn the_default_is_a_valid_backoff() {
        let Backoff { min, max, .. } = Backoff::default();
        assert!(Backoff::new(min, max).is_ok());
    }
}
