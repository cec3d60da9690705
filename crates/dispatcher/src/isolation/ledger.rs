//! The whole of isolation as one state machine: who is in flight, who waits, and what is known of each webhook.
//!
//! It has no clock, no lock and no tasks: the time is passed in, and what was decided about those who wait is taken
//! out with [`Ledger::take_settled`] and told by the caller. After each call nobody waits who could go.

mod hand_out;
mod results;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use domain::delivery::ParkReason;
use domain::id::{PartnerId, WebhookId};

use super::breaker::BreakerChange;
use super::budget::Budget;
use super::config::Limits;
use super::egress::{Egress, EgressState};
use super::line::{Line, Waiter};
use super::registry::{HookIx, Registry};
use super::webhook::Hook;
use super::{Lane, PerLane};
use hand_out::Obstacle;

const EPOCH_UNKNOWN: i64 = 0;

/// Whom an attempt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub webhook_id: WebhookId,
    pub partner_id: PartnerId,
    /// Rises when what was learnt of the webhook no longer counts: another URL, enabled again. The subscription's
    /// version serves. A lower one than was seen before comes from an old cache, and changes nothing; 0 means that
    /// it is not known.
    pub epoch: i64,
}

/// A delivery that is not tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parking {
    pub reason: ParkReason,
    /// Coming back sooner is of no use: the rest of the breaker's time, as far as it is not extraordinary.
    pub at_least: Duration,
    /// How long the webhook's backlog takes to drain; those that are parked come back spread over this time.
    pub backlog_spread: Duration,
}

/// What becomes of an attempt's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// It counts as an attempt.
    Counted { breaker: Option<BreakerChange> },
    /// Our own network failed: no attempt was used up, and the delivery is parked.
    Ours(Parking),
}

/// What is under way, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub in_flight: PerLane<usize>,
    pub waiting: PerLane<usize>,
    pub suspects_in_flight: PerLane<usize>,
    /// Breakers that are not closed.
    pub open_breakers: usize,
    pub tracked_webhooks: usize,
    pub egress: EgressState,
}

/// A slot that is held. Ends with [`Ledger::finish`] or [`Ledger::release`].
#[derive(Debug)]
pub struct Grant {
    hook: HookIx,
    partner: PartnerId,
    lane: Lane,
    era: u32,
    started_at: Instant,
    /// The probe of the webhook's breaker.
    is_breaker_probe: bool,
}

/// A place in the line.
#[derive(Debug)]
pub struct Ticket {
    lane: Lane,
    hook: HookIx,
    number: u64,
}

#[derive(Debug)]
pub enum Answer {
    Go(Grant),
    Park(Parking),
    Wait(Ticket),
}

/// What was decided about one who waited.
#[derive(Debug)]
pub enum Verdict {
    Go(Grant),
    Park(Parking),
}

#[derive(Debug)]
struct LaneState<W> {
    budget: Budget,
    line: Line<W>,
    /// Counts the turns, so that suspects get some even when others always wait.
    turn: u32,
}

#[derive(Debug)]
pub struct Ledger<W> {
    limits: Limits,
    registry: Registry,
    lanes: PerLane<LaneState<W>>,
    egress: Egress,
    /// When to look at the silence of webhooks with something in flight; one entry each at most.
    silences: BinaryHeap<Reverse<(Instant, HookIx)>>,
    next_number: u64,
    settled: Vec<(W, Verdict)>,
}

impl<W> Ledger<W> {
    pub fn new(limits: Limits, now: Instant) -> Self {
        let lane = |max| LaneState {
            budget: Budget::new(max, limits.suspect_share, limits.partner_share),
            line: Line::new(),
            turn: 0,
        };
        Self {
            registry: Registry::new(limits.tracked_max),
            lanes: PerLane {
                first: lane(limits.in_flight_max),
                due: lane(limits.due_in_flight_max),
            },
            egress: Egress::new(limits.egress.clone(), now),
            silences: BinaryHeap::new(),
            next_number: 0,
            settled: Vec::new(),
            limits,
        }
    }

    /// Asks for a slot. `tell` is only called for one who has to wait, and is what comes back with the verdict.
    pub fn admit(
        &mut self,
        lane: Lane,
        target: &Target,
        now: Instant,
        tell: impl FnOnce() -> W,
    ) -> Answer {
        self.watch_silences(now);
        self.egress.judge(now);
        let ix = self.find(target, now);
        if lane == Lane::Due {
            self.registry.get_mut(ix).backlog.came_back(now);
        }
        let waiting = self.waiting_for(ix);
        let obstacle = self.obstacle(ix, lane, now);
        let hopeless = match obstacle {
            None if waiting == 0 => return Answer::Go(self.grant(ix, lane, now)),
            Some(obstacle) => obstacle.as_fault().filter(|fault| {
                fault.at_once || !self.registry.get(ix).drains(waiting, &self.limits, now)
            }),
            None => None,
        };
        if let Some(fault) = hopeless {
            return Answer::Park(self.park(ix, fault.reason, fault.at_least, now));
        }
        let number = self.next_number;
        self.next_number += 1;
        let waiter = Waiter {
            number,
            since: now,
            tell: tell(),
        };
        self.lanes.get_mut(lane).line.join(ix, waiter);
        self.list(ix);
        self.hand_out(lane, now);
        Answer::Wait(Ticket {
            lane,
            hook: ix,
            number,
        })
    }

    /// Looks after one who has waited for a while. Returns how it is parked, if it has waited too long for
    /// something that is its webhook's fault; it is out of the line then.
    pub fn look(&mut self, ticket: &Ticket, now: Instant) -> Option<Parking> {
        self.watch_silences(now);
        self.hand_out(ticket.lane, now);
        let lane = self.lanes.get(ticket.lane);
        let waits_since = lane.line.since(ticket.hook, ticket.number)?;
        let obstacle = self.obstacle(ticket.hook, ticket.lane, now)?;
        let fault = obstacle.as_fault()?;
        let since = match obstacle {
            Obstacle::Cap => self.registry.get(ticket.hook).capped_since,
            Obstacle::SuspectShare => lane.budget.suspects_full_since(),
            _ => Some(waits_since),
        };
        let waited = now.saturating_duration_since(since?.max(waits_since));
        if !fault.at_once && waited < self.limits.wait_for_slot {
            return None;
        }
        self.leave(ticket);
        Some(self.park(ticket.hook, fault.reason, fault.at_least, now))
    }

    /// Takes one out of the line that waits no more. Of no effect if its verdict was given already.
    pub fn leave(&mut self, ticket: &Ticket) {
        let line = &mut self.lanes.get_mut(ticket.lane).line;
        line.leave(ticket.hook, ticket.number);
    }

    /// What was decided since the last call about those who wait.
    pub fn take_settled(&mut self) -> Vec<(W, Verdict)> {
        std::mem::take(&mut self.settled)
    }

    pub fn snapshot(&self) -> Snapshot {
        let per_lane = |of: fn(&LaneState<W>) -> usize| PerLane {
            first: of(&self.lanes.first),
            due: of(&self.lanes.due),
        };
        Snapshot {
            in_flight: per_lane(|lane| lane.budget.in_flight() as usize),
            waiting: per_lane(|lane| lane.line.waiting()),
            suspects_in_flight: per_lane(|lane| lane.budget.suspects() as usize),
            open_breakers: self.registry.open_breakers(),
            tracked_webhooks: self.registry.len(),
            egress: self.egress.state(),
        }
    }

    /// The webhook's place, made if need be, and begun anew if its epoch says so.
    fn find(&mut self, target: &Target, now: Instant) -> HookIx {
        let Some(ix) = self.registry.find(target.webhook_id) else {
            let hook = Hook::new(
                target.webhook_id,
                target.partner_id,
                target.epoch,
                &self.limits,
                now,
            );
            let lanes = &self.lanes;
            return self.registry.insert(hook, now, |ix| {
                lanes.first.line.knows(ix) || lanes.due.line.knows(ix)
            });
        };
        let hook = self.registry.get_mut(ix);
        if hook.epoch == EPOCH_UNKNOWN {
            hook.epoch = target.epoch;
        }
        if target.epoch > hook.epoch {
            let was_closed = hook.breaker.is_closed();
            hook.renew(target.epoch, &self.limits, now);
            self.registry.note_breaker(was_closed, true);
            self.settle(ix, now);
        } else if let Some((from, to)) = self.egress.outage(now) {
            hook.breaker.forgive(from, to);
        }
        ix
    }

    fn waiting_for(&self, ix: HookIx) -> usize {
        self.lanes.first.line.waiting_for(ix) + self.lanes.due.line.waiting_for(ix)
    }

    fn park(
        &mut self,
        ix: HookIx,
        reason: ParkReason,
        at_least: Duration,
        now: Instant,
    ) -> Parking {
        let hook = self.registry.get_mut(ix);
        hook.backlog.went(now);
        Parking {
            reason,
            // A `Retry-After` of a day would outlast a changed URL.
            at_least: at_least.min(self.limits.breaker.open_for_max),
            backlog_spread: hook.backlog_spread(self.limits.backlog_spread_max),
        }
    }
}

#[cfg(test)]
mod tests;
