//! How long a webhook takes to answer: now, and at its best.

use std::time::{Duration, Instant};

/// Weight of the newest answer in the moving average.
const NEWEST: f32 = 0.125;
/// How long the best answer counts before it must have been reached again, once to twice this long.
const BEST_FOR: Duration = Duration::from_secs(30);

/// Times are in seconds; infinite means that there is none yet.
#[derive(Clone, Debug)]
pub struct Latency {
    average_s: f32,
    best_s: f32,
    best_before_s: f32,
    since: Instant,
}

impl Latency {
    pub fn new(now: Instant) -> Self {
        Self {
            average_s: f32::INFINITY,
            best_s: f32::INFINITY,
            best_before_s: f32::INFINITY,
            since: now,
        }
    }

    /// Takes in how long an attempt took. Only a good answer can be the best one: a refusal comes fast, too.
    pub fn record(&mut self, took: Duration, good: bool, now: Instant) {
        let took_s = took.as_secs_f32();
        if self.average_s.is_finite() {
            self.average_s += NEWEST * (took_s - self.average_s);
        } else {
            self.average_s = took_s;
        }
        if !good {
            return;
        }
        if now.saturating_duration_since(self.since) >= BEST_FOR {
            self.since = now;
            self.best_before_s = self.best_s;
            self.best_s = took_s;
        }
        self.best_s = self.best_s.min(took_s);
    }

    /// The moving average over all attempts, if there were any.
    pub fn average_s(&self) -> Option<f32> {
        self.average_s.is_finite().then_some(self.average_s)
    }

    /// The low-water mark of good answers, if there were any.
    pub fn best_s(&self) -> Option<f32> {
        let best = self.best_s.min(self.best_before_s);
        best.is_finite().then_some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_and_the_best_is_kept_for_a_while_and_then_forgotten() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let ms = Duration::from_millis;
        let mut latency = Latency::new(start);
        assert_eq!((latency.average_s(), latency.best_s()), (None, None));
        latency.record(ms(10), true, at(0));
        latency.record(ms(1), false, at(1));
        assert_eq!(latency.best_s(), Some(0.010));
        for s in 2..29 {
            latency.record(ms(500), true, at(s));
        }
        assert!(latency.average_s().unwrap() > 0.4);
        latency.record(ms(500), true, at(31));
        assert_eq!(
            latency.best_s(),
            Some(0.010),
            "the window before counts too"
        );
        latency.record(ms(500), true, at(62));
        assert_eq!(latency.best_s(), Some(0.5));
    }
}
