//! Handing out what is free: what stands in a webhook's way, and who is next.

use std::time::{Duration, Instant};

use domain::delivery::ParkReason;

use super::super::breaker::Pass;
use super::super::line::Standing;
use super::super::registry::HookIx;
use super::{Grant, Lane, Ledger, Verdict};

/// Every so many turns suspects come first; in the others they are served when nobody else can be.
const SUSPECTS_TURN: u32 = 4;

/// What keeps an attempt from being made now, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    Breaker {
        remaining: Duration,
    },
    /// Our own network.
    Network,
    Cap,
    SuspectShare,
    Budget,
    PartnerShare,
}

/// An obstacle for which deliveries are parked.
pub(super) struct Fault {
    pub reason: ParkReason,
    pub at_least: Duration,
    /// Waiting is of no use at all.
    pub at_once: bool,
}

impl Obstacle {
    /// `None` for what is overload, or our network: that is waited for, and parks nothing.
    pub(super) fn as_fault(self) -> Option<Fault> {
        let (reason, at_least) = match self {
            Self::Breaker { remaining } => (ParkReason::BreakerOpen, remaining),
            Self::Cap => (ParkReason::Cap, Duration::ZERO),
            Self::SuspectShare => (ParkReason::Budget, Duration::ZERO),
            Self::Network | Self::Budget | Self::PartnerShare => return None,
        };
        Some(Fault {
            reason,
            at_least,
            at_once: reason == ParkReason::BreakerOpen,
        })
    }
}

impl<W> Ledger<W> {
    pub(super) fn obstacle(&self, ix: HookIx, lane: Lane, now: Instant) -> Option<Obstacle> {
        let hook = self.registry.get(ix);
        let budget = &self.lanes.get(lane).budget;
        if let Pass::No { remaining } = hook.breaker.pass(now) {
            Some(Obstacle::Breaker { remaining })
        } else if !self.egress.may_send(now) {
            Some(Obstacle::Network)
        } else if hook.is_at_cap() {
            Some(Obstacle::Cap)
        } else if hook.suspect && budget.suspects_are_full() {
            Some(Obstacle::SuspectShare)
        } else if budget.is_full() {
            Some(Obstacle::Budget)
        } else if !budget.has_room(hook.partner) {
            Some(Obstacle::PartnerShare)
        } else {
            None
        }
    }

    /// Takes a slot for a webhook that nothing stands in the way of.
    pub(super) fn grant(&mut self, ix: HookIx, lane: Lane, now: Instant) -> Grant {
        let hook = self.registry.get_mut(ix);
        hook.begin(lane, &self.limits, now);
        let is_breaker_probe = hook.breaker.pass(now) == Pass::Probe;
        if is_breaker_probe {
            hook.breaker.begin_probe();
        }
        let grant = Grant {
            hook: ix,
            partner: hook.partner,
            lane,
            era: hook.era,
            started_at: now,
            is_breaker_probe,
        };
        self.egress.sends(now);
        let budget = &mut self.lanes.get_mut(lane).budget;
        budget.take(hook.partner, hook.suspect, now);
        self.watch(ix);
        grant
    }

    /// After a webhook's slot came free or its standing may have changed: serves all who can go now.
    pub(super) fn settle(&mut self, ix: HookIx, now: Instant) {
        self.watch(ix);
        self.review(ix, now);
        for lane in Lane::ALL {
            self.hand_out(lane, now);
        }
        self.registry.get_mut(ix).note_cap(now);
    }

    /// Puts a webhook on the side where it belongs now.
    pub(super) fn review(&mut self, ix: HookIx, now: Instant) {
        let hook = self.registry.get_mut(ix);
        let suspect = hook.is_suspicious(self.limits.slow);
        if suspect != hook.suspect {
            hook.suspect = suspect;
            for lane in Lane::ALL {
                let in_flight = *hook.in_flight.get(lane);
                let budget = &mut self.lanes.get_mut(lane).budget;
                budget.change_sides(in_flight, suspect);
            }
        }
        if hook.is_at_cap() {
            hook.note_cap(now);
        }
        self.list(ix);
    }

    /// Puts a webhook's waiters where their turn can come. Behind its cap none can: the next free slot brings it
    /// back here.
    pub(super) fn list(&mut self, ix: HookIx) {
        let hook = self.registry.get(ix);
        if !hook.is_at_cap() {
            for lane in Lane::ALL {
                let line = &mut self.lanes.get_mut(lane).line;
                line.list(ix, hook.partner, hook.standing());
            }
        }
    }

    pub(super) fn hand_out(&mut self, lane: Lane, now: Instant) {
        while let Some((standing, ix)) = self.next_turn(lane, now) {
            if !self.serve(standing, ix, lane, now) {
                break;
            }
        }
        self.lanes.get_mut(lane).budget.note_suspects(now);
    }

    /// Parks all who wait for a webhook whose breaker is not closed.
    pub(super) fn turn_away(&mut self, ix: HookIx, now: Instant) {
        let at_least = match self.registry.get(ix).breaker.pass(now) {
            Pass::No { remaining } => remaining,
            Pass::Free | Pass::Probe => return,
        };
        for lane in Lane::ALL {
            while let Some(waiter) = self.lanes.get_mut(lane).line.pop(ix) {
                let parking = self.park(ix, ParkReason::BreakerOpen, at_least, now);
                self.settled.push((waiter.tell, Verdict::Park(parking)));
            }
        }
    }

    /// The webhook whose turn it is, if there is a slot for it. Those whose partner is below its share come first.
    fn next_turn(&mut self, lane: Lane, now: Instant) -> Option<(Standing, HookIx)> {
        let state = self.lanes.get_mut(lane);
        let budget = &state.budget;
        if state.line.is_empty() || budget.is_full() || !self.egress.may_send(now) {
            return None;
        }
        state.turn = state.turn.wrapping_add(1);
        let order = if state.turn.is_multiple_of(SUSPECTS_TURN) {
            [Standing::Suspect, Standing::Clear]
        } else {
            [Standing::Clear, Standing::Suspect]
        };
        for within_share in [true, false] {
            for standing in order {
                if standing == Standing::Suspect && budget.suspects_are_full() {
                    continue;
                }
                let next = state.line.next(standing, |partner| {
                    if within_share {
                        budget.is_fair(partner)
                    } else {
                        budget.has_room(partner)
                    }
                });
                if let Some(ix) = next {
                    return Some((standing, ix));
                }
            }
        }
        None
    }

    /// Serves the first who waits for this webhook. Returns whether to go on.
    fn serve(&mut self, standing: Standing, ix: HookIx, lane: Lane, now: Instant) -> bool {
        if self.registry.get(ix).standing() != standing {
            self.list(ix);
            return true;
        }
        match self.obstacle(ix, lane, now) {
            None => {
                if let Some(waiter) = self.lanes.get_mut(lane).line.pop(ix) {
                    let grant = self.grant(ix, lane, now);
                    self.settled.push((waiter.tell, Verdict::Go(grant)));
                    self.list(ix);
                }
                true
            }
            Some(Obstacle::Breaker { .. }) => {
                self.turn_away(ix, now);
                true
            }
            Some(Obstacle::Cap) => true,
            Some(_) => {
                self.list(ix);
                false
            }
        }
    }
}
