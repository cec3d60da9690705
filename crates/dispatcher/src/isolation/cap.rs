//! The cap on one webhook's requests in flight: grows while it is the limit and answers stay good, and is halved
//! by trouble.
//!
//! "Good" is judged by the webhook's own best time, and generously in absolute terms: a cap that follows small
//! changes of latency would throttle a healthy webhook whenever this machine is busy. What a cap is for is to
//! bound what a webhook holds when it stops answering.

use std::time::{Duration, Instant};

/// How much the cap grows by each good answer until trouble was met: to the threefold in a round trip.
const GROWTH: f32 = 2.0;
/// What is left of the cap after trouble.
const AFTER_TROUBLE: f32 = 0.5;
/// What is left of it after answers became slow.
const AFTER_SLOWNESS: f32 = 0.875;
/// How long trouble makes growth careful.
const CAREFUL_FOR: Duration = Duration::from_secs(30);
/// A cap that nobody came near is taken back after once to twice this long, since what it says is old.
const UNUSED_FOR: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Bounds {
    /// Requests in flight.
    pub min: u32,
    /// Requests in flight.
    pub max: u32,
    /// An answer that takes longer is never reason to grow fast.
    pub slow: Duration,
}

/// An attempt that was answered without trouble.
pub struct Answer {
    pub took: Duration,
    pub started_at: Instant,
    /// Whether the cap was what held the webhook back while this attempt was in flight.
    pub limited: bool,
    /// The webhook's best time in seconds.
    pub best_s: f32,
}

#[derive(Clone, Debug)]
pub struct Cap {
    limit: f32,
    last_cut: Option<Instant>,
    /// Growth is careful from here on, since trouble was met not far above.
    careful_from: f32,
    peak: u32,
    peak_before: u32,
    peak_since: Instant,
}

impl Cap {
    pub fn new(bounds: &Bounds, now: Instant) -> Self {
        Self {
            limit: float(bounds.min),
            last_cut: None,
            careful_from: f32::INFINITY,
            peak: 0,
            peak_before: 0,
            peak_since: now,
        }
    }

    /// Requests in flight that the webhook may have.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the limit lies between two numbers that fit"
    )]
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Notes that a request was begun, and how many are in flight with it.
    pub fn used(&mut self, in_flight: u32, bounds: &Bounds, now: Instant) {
        let age = now.saturating_duration_since(self.peak_since);
        if age >= UNUSED_FOR {
            // After a long silence the peaks before it say nothing any more.
            let silent = age >= 2 * UNUSED_FOR;
            let recent = if silent {
                0
            } else {
                self.peak.max(self.peak_before)
            };
            let needed = 2.0 * float(recent.max(in_flight));
            self.limit = self.limit.min(needed.max(float(bounds.min)));
            self.peak_before = if silent { 0 } else { self.peak };
            self.peak = 0;
            self.peak_since = now;
        }
        self.peak = self.peak.max(in_flight);
    }

    pub fn answered(&mut self, answer: &Answer, bounds: &Bounds, now: Instant) {
        let took_s = answer.took.as_secs_f32();
        let slow_s = bounds.slow.as_secs_f32();
        let steady = took_s <= 2.0 * answer.best_s;
        let fast = took_s < slow_s && (steady || took_s <= slow_s / 4.0);
        if took_s >= slow_s && !steady {
            self.cut(AFTER_SLOWNESS, answer.started_at, bounds, now);
        } else if answer.limited && (fast || steady) {
            self.grow(fast, bounds, now);
        }
    }

    /// Halves the cap after a time-out, a 429, a 5xx or a failed connection.
    pub fn trouble(&mut self, started_at: Instant, bounds: &Bounds, now: Instant) {
        self.cut(AFTER_TROUBLE, started_at, bounds, now);
        if self.last_cut == Some(now) {
            self.careful_from = self.limit;
        }
    }

    /// Nothing in flight was answered for long: begins anew. What answers again grows again.
    pub fn stalled(&mut self, bounds: &Bounds) {
        self.limit = float(bounds.min);
    }

    fn grow(&mut self, fast: bool, bounds: &Bounds, now: Instant) {
        let forgiven = self
            .last_cut
            .is_none_or(|cut| now.saturating_duration_since(cut) >= CAREFUL_FOR);
        let step = if fast && (forgiven || self.limit < self.careful_from) {
            GROWTH
        } else {
            // One more in each round trip.
            1.0 / self.limit
        };
        self.limit = (self.limit + step).min(float(bounds.max));
    }

    /// Requests that were in flight together fail together: only those that were begun after the last cut tell
    /// something new.
    fn cut(&mut self, to: f32, started_at: Instant, bounds: &Bounds, now: Instant) {
        if self.last_cut.is_none_or(|cut| started_at >= cut) {
            self.limit = (self.limit * to).max(float(bounds.min));
            self.last_cut = Some(now);
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of requests are far below 2^24"
)]
fn float(count: u32) -> f32 {
    count as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        min: 16,
        max: 512,
        slow: Duration::from_secs(1),
    };

    struct Bench {
        cap: Cap,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                cap: Cap::new(&BOUNDS, now),
                now,
            }
        }

        /// As many answers as the cap allows at once.
        fn round(&mut self, took_ms: u64, best_ms: u64, limited: bool) {
            let started_at = self.now;
            let took = Duration::from_millis(took_ms);
            self.now += took;
            for _ in 0..self.cap.limit() {
                let answer = Answer {
                    took,
                    started_at,
                    limited,
                    best_s: Duration::from_millis(best_ms).as_secs_f32(),
                };
                self.cap.answered(&answer, &BOUNDS, self.now);
            }
        }

        fn rounds(&mut self, count: usize, took_ms: u64, best_ms: u64) -> u32 {
            for _ in 0..count {
                self.round(took_ms, best_ms, true);
            }
            self.cap.limit()
        }

        fn troubles(&mut self, count: usize) -> u32 {
            let started_at = self.now;
            self.now += Duration::from_millis(10);
            for _ in 0..count {
                self.cap.trouble(started_at, &BOUNDS, self.now);
            }
            self.cap.limit()
        }
    }

    #[test]
    fn a_cap_that_is_the_limit_triples_each_round_trip_while_answers_are_fast() {
        let mut bench = Bench::new();
        assert_eq!(bench.rounds(1, 1, 1), 48);
        assert_eq!(bench.rounds(3, 1, 1), 512);
        // Latency of this machine's own making is no reason to hold back.
        let mut busy = Bench::new();
        assert_eq!(busy.rounds(4, 200, 1), 512);
    }

    #[test]
    fn a_cap_that_is_not_the_limit_stays() {
        let mut bench = Bench::new();
        for _ in 0..10 {
            bench.round(1, 1, false);
        }
        assert_eq!(bench.cap.limit(), 16);
    }

    #[test]
    fn latency_far_over_its_low_water_mark_stops_the_growth_and_slowness_shrinks_the_cap() {
        let mut bench = Bench::new();
        bench.rounds(2, 10, 10);
        let before = bench.cap.limit();
        assert_eq!(bench.rounds(5, 500, 10), before);
        assert!(bench.rounds(5, 2000, 10) < before);
        assert_eq!(bench.rounds(30, 2000, 10), 16);
    }

    #[test]
    fn a_slow_but_steady_webhook_gains_one_each_round_trip() {
        let cap = Bench::new().rounds(10, 8000, 8000);
        assert!((20..=26).contains(&cap), "{cap}");
    }

    #[test]
    fn trouble_halves_once_a_round_trip_and_makes_growth_careful_for_a_while() {
        let mut bench = Bench::new();
        bench.rounds(5, 1, 1);
        assert_eq!(bench.troubles(100), 256);
        assert_eq!(bench.troubles(100), 128);
        let careful = bench.rounds(3, 1, 1);
        assert!((129..=132).contains(&careful), "{careful}");
        bench.now += CAREFUL_FOR;
        assert_eq!(bench.rounds(2, 1, 1), 512);
        for _ in 0..20 {
            bench.troubles(1);
        }
        assert_eq!(bench.cap.limit(), 16);
    }

    #[test]
    fn a_cap_that_nobody_came_near_is_taken_back() {
        let mut bench = Bench::new();
        bench.rounds(5, 1, 1);
        bench.cap.used(500, &BOUNDS, bench.now);
        bench.cap.used(20, &BOUNDS, bench.now + UNUSED_FOR);
        assert_eq!(bench.cap.limit(), 512);
        bench.cap.used(20, &BOUNDS, bench.now + 2 * UNUSED_FOR);
        assert_eq!(bench.cap.limit(), 512);
        bench.cap.used(20, &BOUNDS, bench.now + 3 * UNUSED_FOR);
        assert_eq!(bench.cap.limit(), 40);
        bench.cap.used(1, &BOUNDS, bench.now + 30 * UNUSED_FOR);
        assert_eq!(bench.cap.limit(), 16);
    }
}
