//! Taking slots back: what a result, or the lack of one, says about a webhook and about our network.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use domain::delivery::ParkReason;

use super::super::breaker::BreakerChange;
use super::super::registry::HookIx;
use super::super::webhook::{Report, Start};
use super::{Feedback, Grant, Ledger};

impl<W> Ledger<W> {
    /// Gives a slot back with the result of its attempt. `chance` is a random number in `[0, 1)`.
    pub fn finish(
        &mut self,
        grant: &Grant,
        report: &Report,
        now: Instant,
        chance: f64,
    ) -> Feedback {
        self.watch_silences(now);
        let hook = self.registry.get(grant.hook);
        let start = Start {
            at: grant.started_at,
            is_probe: grant.is_breaker_probe,
            limited: hook.is_at_cap() || self.waiting_for(grant.hook) > 0,
        };
        self.end(grant);
        let feedback = if self.is_ours(grant, report, now) {
            self.abandon(grant, now);
            Feedback::Ours(self.park(grant.hook, ParkReason::Network, Duration::ZERO, now))
        } else {
            let breaker = self.count(grant, &start, report, now, chance);
            Feedback::Counted { breaker }
        };
        self.settle(grant.hook, now);
        feedback
    }

    /// Gives a slot back without a result.
    pub fn release(&mut self, grant: &Grant, now: Instant) {
        self.watch_silences(now);
        self.end(grant);
        self.abandon(grant, now);
        self.settle(grant.hook, now);
    }

    fn end(&mut self, grant: &Grant) {
        let hook = self.registry.get_mut(grant.hook);
        hook.end(grant.lane);
        let suspect = hook.suspect;
        let budget = &mut self.lanes.get_mut(grant.lane).budget;
        budget.give_back(grant.partner, suspect);
    }

    fn abandon(&mut self, grant: &Grant, now: Instant) {
        let hook = self.registry.get_mut(grant.hook);
        if grant.is_breaker_probe && hook.era == grant.era {
            hook.breaker.abandon_probe(now);
        }
    }

    fn is_ours(&mut self, grant: &Grant, report: &Report, now: Instant) -> bool {
        if report.answered {
            self.egress.answered(now);
        }
        let answered_at = self.registry.get(grant.hook).answered_at;
        report.transport && self.egress.failed(grant.partner, answered_at, now)
    }

    fn count(
        &mut self,
        grant: &Grant,
        start: &Start,
        report: &Report,
        now: Instant,
        chance: f64,
    ) -> Option<BreakerChange> {
        let hook = self.registry.get_mut(grant.hook);
        if hook.era != grant.era {
            return None;
        }
        if !report.delivered {
            hook.backlog.went(now);
        }
        let was_closed = hook.breaker.is_closed();
        let state = hook.record(report, start, &self.limits, now, chance)?;
        let change = BreakerChange {
            webhook_id: hook.id,
            epoch: hook.epoch,
            state,
        };
        let is_closed = hook.breaker.is_closed();
        self.registry.note_breaker(was_closed, is_closed);
        if !is_closed {
            self.turn_away(grant.hook, now);
        }
        Some(change)
    }

    /// Looks at webhooks that had something in flight a while ago: one from which nothing came back since is
    /// under suspicion long before its requests time out.
    pub(super) fn watch_silences(&mut self, now: Instant) {
        while let Some(&Reverse((due, ix))) = self.silences.peek()
            && due <= now
        {
            self.silences.pop();
            let hook = self.registry.get_mut(ix);
            hook.watched = false;
            if hook.all_in_flight() > 0 && hook.stalls_at(self.limits.slow) <= now {
                hook.stall(&self.limits);
                self.review(ix, now);
            } else {
                self.watch(ix);
            }
        }
    }

    pub(super) fn watch(&mut self, ix: HookIx) {
        let hook = self.registry.get_mut(ix);
        if !hook.watched && hook.all_in_flight() > 0 {
            hook.watched = true;
            let due = hook.stalls_at(self.limits.slow);
            self.silences.push(Reverse((due, ix)));
        }
    }
}
