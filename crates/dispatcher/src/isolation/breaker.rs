//! The breaker of one webhook: whether it is tried at all.
//!
//! ```text
//! closed ──5 failures in a row, or half of 20──> open ──its time is over──> half-open ──probe succeeds──> closed
//!                                                 ^                            │
//!                                                 └──probe fails, twice as long┘
//! ```
//!
//! Half-open is no state of its own: it is an open breaker whose time is over, and then one probe at a time goes
//! through. What was in flight already when the breaker opened changes nothing any more.

use std::time::{Duration, Instant};

use domain::id::WebhookId;

/// By how much an opening is made shorter or longer at random, so that webhooks are not probed in step.
const JITTER: f64 = 0.15;
/// Longest time that a receiver's `Retry-After` can keep a breaker open.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

#[derive(Clone, Debug)]
pub struct Rules {
    pub failures_in_row: u32,
    pub error_share: f64,
    pub requests_min: u32,
    pub window: Duration,
    pub open_for: Duration,
    pub open_for_max: Duration,
}

/// A change of a webhook's breaker, to be written to the webhook's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerChange {
    pub webhook_id: WebhookId,
    /// The webhook's epoch, 0 if no admission has told it yet.
    pub epoch: i64,
    pub state: BreakerState,
}

/// Half-open is not told: it is open, and its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    /// Nothing is tried for this long from now on, then single probes.
    Open {
        open_for: Duration,
    },
}

/// Whether an attempt may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Free,
    /// As the one probe.
    Probe,
    /// Not for this long; zero when a probe is under way.
    No {
        remaining: Duration,
    },
}

/// What an attempt says about the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It works, whatever it answered.
    Works,
    Trouble {
        /// How long it asked us to stay away, with a 429 or 503.
        retry_after: Option<Duration>,
    },
}

#[derive(Clone, Debug)]
enum State {
    /// Since when, if it was ever open.
    Closed {
        since: Option<Instant>,
    },
    Open {
        since: Instant,
        until: Instant,
    },
    Probing {
        since: Instant,
    },
}

#[derive(Clone, Debug)]
pub struct Breaker {
    state: State,
    in_row: u32,
    window: Window,
    /// How long the last opening was, without jitter.
    open_for: Duration,
}

impl Breaker {
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Closed { since: None },
            in_row: 0,
            window: Window::new(now),
            open_for: Duration::ZERO,
        }
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    pub fn pass(&self, now: Instant) -> Pass {
        match self.state {
            State::Closed { .. } => Pass::Free,
            State::Open { until, .. } if until <= now => Pass::Probe,
            State::Open { until, .. } => Pass::No {
                remaining: until.saturating_duration_since(now),
            },
            State::Probing { .. } => Pass::No {
                remaining: Duration::ZERO,
            },
        }
    }

    /// To be called for the attempt that [`Pass::Probe`] let through.
    pub fn begin_probe(&mut self) {
        if let State::Open { since, .. } = self.state {
            self.state = State::Probing { since };
        }
    }

    /// The probe came to nothing; another may be made at once.
    pub fn abandon_probe(&mut self, now: Instant) {
        if let State::Probing { since } = self.state {
            self.state = State::Open { since, until: now };
        }
    }

    /// Probes at once, if the breaker opened within this time: what failed then was not the receiver.
    pub fn forgive(&mut self, from: Instant, to: Instant) {
        if let State::Open { since, until } = &mut self.state
            && (from..=to).contains(since)
        {
            *until = (*until).min(to);
        }
    }

    /// Takes in the result of an attempt. `chance` is a random number in `[0, 1)`. Returns what changed.
    pub fn record(
        &mut self,
        sign: Sign,
        is_probe: bool,
        rules: &Rules,
        now: Instant,
        chance: f64,
    ) -> Option<BreakerState> {
        match (&mut self.state, sign) {
            (State::Closed { since }, _) => {
                let since = *since;
                self.record_closed(sign, since, rules, now, chance)
            }
            (State::Probing { .. }, Sign::Works) if is_probe => {
                self.state = State::Closed { since: Some(now) };
                self.in_row = 0;
                self.window = Window::new(now);
                Some(BreakerState::Closed)
            }
            (State::Probing { .. }, Sign::Trouble { retry_after }) if is_probe => {
                self.open_for = (self.open_for * 2).clamp(rules.open_for, rules.open_for_max);
                let time = jittered(self.open_for, chance).max(asked(retry_after));
                Some(self.open(time, now))
            }
            (State::Open { until, .. }, Sign::Trouble { retry_after }) => {
                *until = (*until).max(now + asked(retry_after));
                None
            }
            _ => None,
        }
    }

    fn record_closed(
        &mut self,
        sign: Sign,
        since: Option<Instant>,
        rules: &Rules,
        now: Instant,
        chance: f64,
    ) -> Option<BreakerState> {
        let Sign::Trouble { retry_after } = sign else {
            self.in_row = 0;
            self.window.count(false, rules.window, now);
            return None;
        };
        self.in_row = self.in_row.saturating_add(1);
        self.window.count(true, rules.window, now);
        let asked = asked(retry_after);
        let failing = self.in_row >= rules.failures_in_row
            || self.window.failed(rules.requests_min, rules.error_share);
        if failing {
            // One that closed and fails again right away goes on where it was.
            let relapse = since.is_some_and(|s| now.saturating_duration_since(s) < self.open_for);
            self.open_for = if relapse {
                (self.open_for * 2).min(rules.open_for_max)
            } else {
                rules.open_for
            };
            Some(self.open(jittered(self.open_for, chance).max(asked), now))
        } else if asked > Duration::ZERO {
            Some(self.open(asked, now))
        } else {
            None
        }
    }

    fn open(&mut self, time: Duration, now: Instant) -> BreakerState {
        self.state = State::Open {
            since: now,
            until: now + time,
        };
        BreakerState::Open { open_for: time }
    }
}

fn asked(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or_default().min(RETRY_AFTER_MAX)
}

fn jittered(time: Duration, chance: f64) -> Duration {
    time.mul_f64(1.0 + JITTER * (2.0 * chance - 1.0))
}

/// Requests and failures of the last window, in three slices of which the oldest is dropped as time goes on.
#[derive(Clone, Debug)]
struct Window {
    slices: [Slice; 3],
    newest_since: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    requests: u32,
    failures: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            slices: [Slice::default(); 3],
            newest_since: now,
        }
    }

    fn count(&mut self, failure: bool, window: Duration, now: Instant) {
        let slice = window / 3;
        let age = now.saturating_duration_since(self.newest_since);
        if age >= window {
            *self = Self::new(now);
        } else if age >= slice {
            self.slices.rotate_right(1);
            let [newest, ..] = &mut self.slices;
            *newest = Slice::default();
            self.newest_since = now;
        }
        let [newest, ..] = &mut self.slices;
        newest.requests = newest.requests.saturating_add(1);
        newest.failures = newest.failures.saturating_add(u32::from(failure));
    }

    fn failed(&self, requests_min: u32, error_share: f64) -> bool {
        let requests: u32 = self.slices.iter().map(|s| s.requests).sum();
        let failures: u32 = self.slices.iter().map(|s| s.failures).sum();
        requests >= requests_min && f64::from(failures) >= f64::from(requests) * error_share
    }
}

#[cfg(test)]
mod tests;
