//! How many of a webhook's deliveries are on their way round through the delay buckets, as far as this process
//! knows: it saw them go, and does not see those that come back to another. So old knowledge fades.

use std::time::{Duration, Instant};

/// Time in which a count that nothing confirms fades to half.
const HALF_LIFE_S: f32 = 3600.0;
/// What an answer is assumed to take of a webhook that has not succeeded yet.
const UNKNOWN_ANSWER_S: f32 = 0.1;

#[derive(Clone, Debug)]
pub struct Backlog {
    count: f32,
    at: Instant,
}

impl Backlog {
    pub fn new(now: Instant) -> Self {
        Self {
            count: 0.0,
            at: now,
        }
    }

    /// One more was parked, or failed and will be tried again.
    pub fn went(&mut self, now: Instant) {
        self.fade(now);
        self.count += 1.0;
    }

    /// One came back.
    pub fn came_back(&mut self, now: Instant) {
        if self.count > 0.0 {
            self.fade(now);
            self.count = (self.count - 1.0).max(0.0);
        }
    }

    /// How long the backlog takes to drain at so many requests in flight that are answered in such a time.
    pub fn spread(&self, in_flight: u32, answer_s: Option<f32>, max: Duration) -> Duration {
        let answer_s = f64::from(answer_s.unwrap_or(UNKNOWN_ANSWER_S));
        let time_s = f64::from(self.count) * answer_s / f64::from(in_flight.max(1));
        Duration::try_from_secs_f64(time_s).map_or(max, |time| time.min(max))
    }

    fn fade(&mut self, now: Instant) {
        let age_s = now.saturating_duration_since(self.at).as_secs_f32();
        // Many changes within one second would pay for the power each time, and fade nothing.
        if age_s >= 1.0 {
            self.count *= 0.5f32.powf(age_s / HALF_LIFE_S);
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_spread_is_what_the_backlog_takes_to_drain_and_is_bounded() {
        let now = Instant::now();
        let mut backlog = Backlog::new(now);
        assert_eq!(backlog.spread(16, Some(0.1), HOUR), Duration::ZERO);
        for _ in 0..1600 {
            backlog.went(now);
        }
        assert_eq!(backlog.spread(16, Some(0.5), HOUR).as_secs(), 50);
        assert_eq!(backlog.spread(16, None, HOUR).as_secs(), 10);
        assert_eq!(backlog.spread(1, Some(10.0), HOUR), HOUR);
        for _ in 0..1700 {
            backlog.came_back(now);
        }
        assert_eq!(backlog.spread(16, Some(0.5), HOUR), Duration::ZERO);
    }

    #[test]
    fn what_never_came_back_here_fades() {
        let now = Instant::now();
        let mut backlog = Backlog::new(now);
        for _ in 0..1000 {
            backlog.went(now);
        }
        backlog.went(now + 2 * HOUR);
        let spread = backlog.spread(1, Some(1.0), HOUR).as_secs();
        assert_eq!(spread, 251);
    }
}
