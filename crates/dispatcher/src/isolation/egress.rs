//! Whether it is our own network that fails.
//!
//! One receiver that can't be reached is its own fault. When webhooks of many partners that were answering lately
//! fail at the transport level, and nothing at all has answered for a while, the fault is on our side: the
//! dispatcher pauses, counts no failed attempts, and tries one delivery a second. The first answer ends the pause.
//! Any complete answer counts, a 500 too: it came over the network.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use domain::id::PartnerId;

/// How long ago a webhook may have answered for its failure to mean something here.
pub const LATELY: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub struct Rules {
    pub partners: usize,
    pub quiet: Duration,
    pub probe_every: Duration,
}

/// What is thought of our own network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressState {
    Open,
    /// Only probes are sent, and what fails meanwhile is not counted.
    Paused,
}

#[derive(Debug)]
pub struct Egress {
    rules: Rules,
    state: EgressState,
    last_answer: Instant,
    last_probe: Instant,
    /// Partners that failed since the last answer, up to as many as matter.
    failing: HashSet<PartnerId>,
    /// The last one that is over.
    outage: Option<(Instant, Instant)>,
}

impl Egress {
    pub fn new(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            state: EgressState::Open,
            last_answer: now,
            last_probe: now,
            failing: HashSet::new(),
            outage: None,
        }
    }

    pub fn state(&self) -> EgressState {
        self.state
    }

    /// Whether an attempt may be made now: always, or as the next probe.
    pub fn may_send(&self, now: Instant) -> bool {
        self.state == EgressState::Open
            || now.saturating_duration_since(self.last_probe) >= self.rules.probe_every
    }

    /// Notes that an attempt is made, which is a probe while paused.
    pub fn sends(&mut self, now: Instant) {
        if self.state == EgressState::Paused {
            self.last_probe = now;
        }
    }

    /// Something answered.
    pub fn answered(&mut self, now: Instant) {
        if !self.failing.is_empty() {
            self.failing.clear();
        }
        if self.state == EgressState::Paused {
            self.state = EgressState::Open;
            self.outage = Some((self.last_answer, now));
        }
        self.last_answer = now;
    }

    /// A webhook of this partner failed at the transport level; it had last answered at that time. Returns whether
    /// the fault is ours.
    pub fn failed(
        &mut self,
        partner: PartnerId,
        answered_at: Option<Instant>,
        now: Instant,
    ) -> bool {
        let lately = answered_at.is_some_and(|at| now.saturating_duration_since(at) <= LATELY);
        if lately && self.failing.len() < self.rules.partners {
            self.failing.insert(partner);
        }
        self.judge(now);
        self.state == EgressState::Paused
    }

    /// Looks whether the quiet has lasted long enough. Needed besides [`Self::failed`]: when everything fails fast,
    /// breakers end all attempts before that.
    pub fn judge(&mut self, now: Instant) {
        if self.state == EgressState::Open
            && self.failing.len() >= self.rules.partners
            && now.saturating_duration_since(self.last_answer) >= self.rules.quiet
        {
            self.state = EgressState::Paused;
            self.last_probe = now;
        }
    }

    /// The outage of ours that is under way, or the last one: from the last answer before it to the first one after
    /// it. What failed in it is forgiven.
    pub fn outage(&self, now: Instant) -> Option<(Instant, Instant)> {
        match self.state {
            EgressState::Paused => Some((self.last_answer, now)),
            EgressState::Open => self.outage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        egress: Egress,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let rules = Rules {
                partners: 20,
                quiet: Duration::from_secs(10),
                probe_every: Duration::from_secs(1),
            };
            let start = Instant::now();
            Self {
                egress: Egress::new(rules, start),
                start,
            }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// Failures of so many partners that had answered at the start.
        fn fail(&mut self, partners: i64, ms: u64) -> bool {
            let (answered_at, now) = (Some(self.start), self.at(ms));
            (0..partners).fold(false, |_, p| {
                self.egress.failed(PartnerId(p), answered_at, now)
            })
        }
    }

    #[test]
    fn it_takes_twenty_partners_and_ten_quiet_seconds() {
        let mut bench = Bench::new();
        assert!(!bench.fail(100, 9_999));
        assert!(bench.fail(1, 10_000));
        assert_eq!(bench.egress.state(), EgressState::Paused);
        assert!(!Bench::new().fail(19, 60_000));
    }

    #[test]
    fn failures_may_all_lie_at_the_beginning() {
        let mut bench = Bench::new();
        assert!(!bench.fail(20, 10));
        bench.egress.judge(bench.at(9_999));
        assert_eq!(bench.egress.state(), EgressState::Open);
        bench.egress.judge(bench.at(10_000));
        assert_eq!(bench.egress.state(), EgressState::Paused);
    }

    #[test]
    fn any_answer_begins_the_count_anew() {
        let mut bench = Bench::new();
        bench.fail(20, 9_000);
        bench.egress.answered(bench.at(9_500));
        assert!(!bench.fail(19, 30_000));
        assert!(bench.fail(20, 30_000));
    }

    #[test]
    fn webhooks_that_did_not_answer_lately_say_nothing() {
        let mut bench = Bench::new();
        assert!(!bench.fail(100, 601_000));
        let now = bench.at(20_000);
        assert!(!(0..100).any(|p| bench.egress.failed(PartnerId(p), None, now)));
    }

    #[test]
    fn while_paused_one_probe_a_second_goes_through_and_the_first_answer_ends_the_pause() {
        let mut bench = Bench::new();
        bench.fail(20, 10_000);
        assert!(!bench.egress.may_send(bench.at(10_999)));
        assert!(bench.egress.may_send(bench.at(11_000)));
        bench.egress.sends(bench.at(11_000));
        assert!(!bench.egress.may_send(bench.at(11_999)));
        bench.egress.answered(bench.at(12_000));
        assert_eq!(bench.egress.state(), EgressState::Open);
        assert!(bench.egress.may_send(bench.at(12_000)));
        let outage = Some((bench.start, bench.at(12_000)));
        assert_eq!(bench.egress.outage(bench.at(13_000)), outage);
    }
}
