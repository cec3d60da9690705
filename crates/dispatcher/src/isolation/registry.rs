//! The webhooks that are remembered, bounded: those with nothing to remember make room for others.
//!
//! Room is found by a hand that goes round the slots a few at a time, so that no call ever looks at all of them.

use std::collections::HashMap;
use std::time::Instant;

use domain::id::WebhookId;

use super::webhook::Hook;

/// Slots that are asked of the system when it starts, at most.
const ROOM_AT_ONCE: usize = 500_000;
/// Slots that one search for room looks at.
const SEARCH_MAX: usize = 32;
/// Slots that each new webhook looks at to drop what has long been idle.
const SWEEP: usize = 2;

/// Where a webhook is kept. Valid as long as something of it is in flight, watched or waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookIx(pub u32);

#[derive(Debug)]
struct Slot {
    hook: Hook,
    live: bool,
}

#[derive(Debug)]
pub struct Registry {
    by_id: HashMap<WebhookId, HookIx>,
    slots: Vec<Slot>,
    free: Vec<HookIx>,
    hand: usize,
    max: usize,
    open_breakers: usize,
}

impl Registry {
    /// At most `max` webhooks, and up to twice as many with something to remember.
    pub fn new(max: usize) -> Self {
        Self {
            // The room at once: growing later would copy everything while others wait. Pages that are never touched
            // cost nothing.
            by_id: HashMap::with_capacity(max.min(ROOM_AT_ONCE)),
            slots: Vec::with_capacity(max.min(ROOM_AT_ONCE)),
            free: Vec::new(),
            hand: 0,
            max,
            open_breakers: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn find(&self, id: WebhookId) -> Option<HookIx> {
        self.by_id.get(&id).copied()
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "handles are made by `insert` alone, and slots are never taken away"
    )]
    pub fn get(&self, ix: HookIx) -> &Hook {
        &self.slots[ix.0 as usize].hook
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "handles are made by `insert` alone, and slots are never taken away"
    )]
    pub fn get_mut(&mut self, ix: HookIx) -> &mut Hook {
        &mut self.slots[ix.0 as usize].hook
    }

    /// Breakers that are not closed.
    pub fn open_breakers(&self) -> usize {
        self.open_breakers
    }

    /// Notes that a breaker opened or closed.
    pub fn note_breaker(&mut self, was_closed: bool, is_closed: bool) {
        match (was_closed, is_closed) {
            (true, false) => self.open_breakers += 1,
            (false, true) => self.open_breakers = self.open_breakers.saturating_sub(1),
            _ => {}
        }
    }

    /// Adds a webhook that is not there yet. `waits` tells whether somebody waits for one.
    pub fn insert(&mut self, hook: Hook, now: Instant, waits: impl Fn(HookIx) -> bool) -> HookIx {
        for _ in 0..SWEEP {
            self.forget_next(&waits, |hook| {
                hook.is_forgettable() && hook.is_long_idle(now)
            });
        }
        if self.len() >= self.max {
            let full = self.len() >= 2 * self.max;
            for _ in 0..SEARCH_MAX {
                let may = |hook: &Hook| hook.is_forgettable() || full && hook.is_idle();
                if self.forget_next(&waits, may) {
                    break;
                }
            }
        }
        let id = hook.id;
        let slot = Slot { hook, live: true };
        let ix = match self.free.pop() {
            Some(ix) => {
                if let Some(old) = self.slots.get_mut(ix.0 as usize) {
                    *old = slot;
                }
                ix
            }
            None => {
                self.slots.push(slot);
                HookIx(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.by_id.insert(id, ix);
        ix
    }

    #[cfg(test)]
    pub fn all(&self) -> impl Iterator<Item = &Hook> {
        self.slots.iter().filter(|s| s.live).map(|s| &s.hook)
    }

    /// Moves the hand on, and forgets the webhook there if it may. Returns whether it did.
    fn forget_next(
        &mut self,
        waits: &impl Fn(HookIx) -> bool,
        may: impl Fn(&Hook) -> bool,
    ) -> bool {
        self.hand = if self.hand + 1 < self.slots.len() {
            self.hand + 1
        } else {
            0
        };
        let ix = HookIx(u32::try_from(self.hand).unwrap_or(u32::MAX));
        let Some(slot) = self.slots.get_mut(self.hand) else {
            return false;
        };
        if !slot.live || !may(&slot.hook) || waits(ix) {
            return false;
        }
        slot.live = false;
        let (id, was_closed) = (slot.hook.id, slot.hook.breaker.is_closed());
        self.by_id.remove(&id);
        self.free.push(ix);
        self.note_breaker(was_closed, true);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::id::PartnerId;

    use super::super::Lane;
    use super::super::config::{Config, Limits};
    use super::super::webhook::{Report, Start};
    use super::*;

    struct Bench {
        registry: Registry,
        limits: Limits,
        now: Instant,
    }

    impl Bench {
        fn new(max: usize) -> Self {
            Self {
                registry: Registry::new(max),
                limits: (&Config::default()).try_into().unwrap(),
                now: Instant::now(),
            }
        }

        fn insert(&mut self, id: i64) -> HookIx {
            let hook = Hook::new(WebhookId(id), PartnerId(1), 1, &self.limits, self.now);
            self.registry.insert(hook, self.now, |_| false)
        }

        fn open(&mut self, ix: HookIx) {
            let report = Report {
                delivered: false,
                trouble: true,
                transport: false,
                answered: true,
                took: Duration::ZERO,
                retry_after: Some(Duration::from_secs(60)),
            };
            let start = Start {
                at: self.now,
                is_probe: false,
                limited: false,
            };
            let hook = self.registry.get_mut(ix);
            hook.record(&report, &start, &self.limits, self.now, 0.5);
            self.registry.note_breaker(true, false);
        }

        fn is_known(&self, id: i64) -> bool {
            self.registry.find(WebhookId(id)).is_some()
        }
    }

    #[test]
    fn the_idle_make_room_and_those_in_flight_or_with_an_open_breaker_stay() {
        let mut bench = Bench::new(10);
        let busy = bench.insert(1);
        let broken = bench.insert(2);
        let (limits, now) = (bench.limits.clone(), bench.now);
        bench
            .registry
            .get_mut(busy)
            .begin(Lane::First, &limits, now);
        bench.open(broken);
        for id in 3..1_000 {
            bench.insert(id);
        }
        assert_eq!(bench.registry.len(), 10);
        assert!(bench.is_known(1) && bench.is_known(2) && bench.is_known(999));
        assert!(bench.registry.slots.len() <= 11);
    }

    #[test]
    fn with_nothing_but_open_breakers_it_ends_at_twice_the_size() {
        let mut bench = Bench::new(10);
        for id in 0..1_000 {
            let ix = bench.insert(id);
            bench.open(ix);
        }
        assert_eq!(bench.registry.len(), 20);
        assert_eq!(bench.registry.open_breakers(), 20);
    }

    #[test]
    fn what_has_long_been_idle_goes_before_the_room_is_needed() {
        let mut bench = Bench::new(1_000);
        for id in 0..100 {
            bench.insert(id);
        }
        bench.now += Duration::from_secs(601);
        for id in 100..200 {
            bench.insert(id);
        }
        assert!(bench.registry.len() <= 101, "{}", bench.registry.len());
    }
}
