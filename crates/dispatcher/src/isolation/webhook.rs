//! All that is known of one webhook: what it has in flight, how it answers, and what follows from that.

use std::time::{Duration, Instant};

use domain::attempt::{Attempt, FailureKind, Outcome};
use domain::id::{PartnerId, WebhookId};

use super::backlog::Backlog;
use super::breaker::{Breaker, BreakerState, Sign};
use super::cap::{Answer, Cap};
use super::config::Limits;
use super::latency::Latency;
use super::line::Standing;
use super::{Lane, PerLane};

/// A webhook with nothing to remember is forgotten after this long, when others need the room or before.
const IDLE_FOR: Duration = Duration::from_secs(600);

/// What an attempt tells about its webhook.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub delivered: bool,
    /// The receiver itself is in trouble.
    pub trouble: bool,
    /// The network, ours or theirs, may be at fault.
    pub transport: bool,
    /// Something came back over the network, whatever it was.
    pub answered: bool,
    pub took: Duration,
    /// How long a 429 or 503 asked us to stay away.
    pub retry_after: Option<Duration>,
}

impl From<&Attempt> for Report {
    fn from(attempt: &Attempt) -> Self {
        let kind = match &attempt.outcome {
            Outcome::Delivered => None,
            Outcome::Failed(failure) => Some(failure.kind),
        };
        let asks = matches!(kind, Some(FailureKind::Status(429 | 503)));
        Self {
            delivered: kind.is_none(),
            trouble: kind.is_some_and(FailureKind::is_trouble),
            transport: kind.is_some_and(FailureKind::is_transport),
            answered: matches!(
                kind,
                None | Some(FailureKind::Status(_) | FailureKind::Protocol)
            ),
            took: attempt.timings.total,
            retry_after: attempt.retry_after.filter(|_| asks),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Hook {
    pub id: WebhookId,
    pub partner: PartnerId,
    pub epoch: i64,
    /// Raised when it is begun anew: results of attempts that were admitted before say nothing any more.
    pub era: u32,
    pub in_flight: PerLane<u32>,
    pub cap: Cap,
    pub breaker: Breaker,
    pub backlog: Backlog,
    /// The side on which the budgets count it.
    pub suspect: bool,
    /// Whether a look at its silence is due some time.
    pub watched: bool,
    /// Since when it has had as much in flight as it may.
    pub capped_since: Option<Instant>,
    /// When something last came back from it.
    pub answered_at: Option<Instant>,
    latency: Latency,
    last_failed: bool,
    last_answered: bool,
    stalled: bool,
    /// The last result, or the first request that was begun with nothing else in flight.
    silent_since: Instant,
    touched: Instant,
}

impl Hook {
    pub fn new(
        id: WebhookId,
        partner: PartnerId,
        epoch: i64,
        limits: &Limits,
        now: Instant,
    ) -> Self {
        Self {
            id,
            partner,
            epoch,
            era: 0,
            in_flight: PerLane::default(),
            cap: Cap::new(&limits.cap, now),
            breaker: Breaker::new(now),
            backlog: Backlog::new(now),
            suspect: false,
            watched: false,
            capped_since: None,
            answered_at: None,
            latency: Latency::new(now),
            last_failed: false,
            last_answered: true,
            stalled: false,
            silent_since: now,
            touched: now,
        }
    }

    /// Forgets how it answered: it has another URL, or was enabled again.
    pub fn renew(&mut self, epoch: i64, limits: &Limits, now: Instant) {
        self.epoch = epoch;
        self.era = self.era.wrapping_add(1);
        self.cap = Cap::new(&limits.cap, now);
        self.breaker = Breaker::new(now);
        self.latency = Latency::new(now);
        self.answered_at = None;
        self.last_failed = false;
        self.stalled = false;
        self.silent_since = now;
    }

    pub fn all_in_flight(&self) -> u32 {
        self.in_flight.first + self.in_flight.due
    }

    pub fn is_at_cap(&self) -> bool {
        self.all_in_flight() >= self.cap.limit()
    }

    pub fn standing(&self) -> Standing {
        if self.suspect {
            Standing::Suspect
        } else {
            Standing::Clear
        }
    }

    pub fn is_suspicious(&self, slow: Duration) -> bool {
        self.last_failed
            || self.stalled
            || !self.breaker.is_closed()
            || self
                .latency
                .average_s()
                .is_some_and(|s| s > slow.as_secs_f32())
    }

    pub fn begin(&mut self, lane: Lane, limits: &Limits, now: Instant) {
        if self.all_in_flight() == 0 {
            self.silent_since = now;
        }
        *self.in_flight.get_mut(lane) += 1;
        self.touched = now;
        self.cap.used(self.all_in_flight(), &limits.cap, now);
        self.note_cap(now);
    }

    pub fn end(&mut self, lane: Lane) {
        let in_flight = self.in_flight.get_mut(lane);
        *in_flight = in_flight.saturating_sub(1);
    }

    /// Notes since when the cap is reached. Called when slots are handed out, so that one that changes hands does
    /// not count as a free one.
    pub fn note_cap(&mut self, now: Instant) {
        if self.is_at_cap() {
            self.capped_since.get_or_insert(now);
        } else {
            self.capped_since = None;
        }
    }

    /// When it has been silent for too long, unless a result comes before.
    pub fn stalls_at(&self, slow: Duration) -> Instant {
        self.silent_since + slow
    }

    /// Requests are in flight, and nothing came back for long.
    pub fn stall(&mut self, limits: &Limits) {
        self.stalled = true;
        self.cap.stalled(&limits.cap);
    }

    /// Takes in a result. `limited`: the cap was what held this webhook back.
    pub fn record(
        &mut self,
        report: &Report,
        start: &Start,
        limits: &Limits,
        now: Instant,
        chance: f64,
    ) -> Option<BreakerState> {
        self.silent_since = now;
        self.stalled = false;
        self.last_failed = !report.delivered;
        self.last_answered = report.answered;
        if report.answered {
            self.answered_at = Some(now);
        }
        self.latency.record(report.took, !report.trouble, now);
        let sign = if report.trouble {
            self.cap.trouble(start.at, &limits.cap, now);
            Sign::Trouble {
                retry_after: report.retry_after,
            }
        } else {
            let answer = Answer {
                took: report.took,
                started_at: start.at,
                limited: start.limited,
                best_s: self.latency.best_s().unwrap_or_default(),
            };
            self.cap.answered(&answer, &limits.cap, now);
            Sign::Works
        };
        self.breaker
            .record(sign, start.is_probe, &limits.breaker, now, chance)
    }

    /// Whether one more behind so many others may expect a slot within the time that it would wait.
    pub fn drains(&self, waiting: usize, limits: &Limits, now: Instant) -> bool {
        if waiting == 0 {
            return true;
        }
        let average_s = self.latency.average_s();
        let slow_s = limits.slow.as_secs_f32();
        let best_s = self.latency.best_s().unwrap_or_default();
        let fast = average_s.is_none_or(|s| s <= (slow_s / 4.0).max(2.0 * best_s));
        if fast && !self.suspect && self.cap.limit() < limits.cap.max {
            // The cap still grows, so that its present size says little.
            return true;
        }
        let silence_s = if self.all_in_flight() > 0 {
            now.saturating_duration_since(self.silent_since)
                .as_secs_f32()
        } else {
            0.0
        };
        let answer_s = f64::from(average_s.unwrap_or_default().max(silence_s));
        let drained = f64::from(self.cap.limit()) * limits.wait_for_slot.as_secs_f64() / answer_s;
        u32::try_from(waiting).is_ok_and(|waiting| f64::from(waiting) < drained)
    }

    /// How long its backlog takes to drain.
    pub fn backlog_spread(&self, max: Duration) -> Duration {
        let average_s = self.latency.average_s();
        let answer_s = if self.last_failed || self.stalled {
            // How fast a refusal comes says little about how fast it will be once it works, and a time-out nothing.
            let refusal_s = average_s.filter(|_| self.last_answered && !self.stalled);
            self.latency.best_s().or(refusal_s)
        } else {
            average_s
        };
        self.backlog.spread(self.cap.limit(), answer_s, max)
    }

    pub fn is_idle(&self) -> bool {
        self.all_in_flight() == 0 && !self.watched
    }

    /// Whether forgetting it loses nothing that matters.
    pub fn is_forgettable(&self) -> bool {
        self.is_idle() && self.breaker.is_closed() && !self.suspect
    }

    pub fn is_long_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.touched) >= IDLE_FOR
    }
}

/// How the attempt was begun whose result comes in.
pub struct Start {
    pub at: Instant,
    pub is_probe: bool,
    /// Whether the cap held the webhook back.
    pub limited: bool,
}
