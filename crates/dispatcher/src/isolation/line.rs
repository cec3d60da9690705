//! Who waits in one lane, and whose turn it is: partners take turns, then the webhooks of a partner, then its
//! deliveries in the order of their coming. So a partner's flood makes only its own line longer.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use domain::id::PartnerId;

use super::registry::HookIx;

/// On which side a webhook stands. Suspects take turns among themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Clear,
    Suspect,
}

/// One delivery that waits. `W` is how its owner is told.
#[derive(Debug)]
pub struct Waiter<W> {
    /// Rises with each one who joins.
    pub number: u64,
    pub since: Instant,
    pub tell: W,
}

#[derive(Debug)]
struct Queue<W> {
    waiters: VecDeque<Waiter<W>>,
    in_clear: bool,
    in_suspect: bool,
}

impl<W> Queue<W> {
    fn listed_mut(&mut self, standing: Standing) -> &mut bool {
        match standing {
            Standing::Clear => &mut self.in_clear,
            Standing::Suspect => &mut self.in_suspect,
        }
    }

    /// Numbers rise from front to back.
    fn place(&self, number: u64) -> Option<usize> {
        self.waiters
            .binary_search_by_key(&number, |w| w.number)
            .ok()
    }

    fn is_done(&self) -> bool {
        self.waiters.is_empty() && !self.in_clear && !self.in_suspect
    }
}

/// Webhooks with waiters that may be served, by partner. A webhook is in a round once at most.
#[derive(Debug, Default)]
struct Round {
    partners: VecDeque<PartnerId>,
    hooks: HashMap<PartnerId, VecDeque<HookIx>>,
}

impl Round {
    fn push(&mut self, partner: PartnerId, hook: HookIx) {
        let hooks = self.hooks.entry(partner).or_default();
        if hooks.is_empty() {
            self.partners.push_back(partner);
        }
        hooks.push_back(hook);
    }

    fn next(&mut self, may: impl Fn(PartnerId) -> bool) -> Option<HookIx> {
        // Few partners can be over their share, so the search ends soon.
        let turn = self.partners.iter().position(|&p| may(p))?;
        let partner = self.partners.remove(turn)?;
        let hooks = self.hooks.get_mut(&partner)?;
        let hook = hooks.pop_front();
        if hooks.is_empty() {
            self.hooks.remove(&partner);
        } else {
            self.partners.push_back(partner);
        }
        hook
    }
}

#[derive(Debug)]
pub struct Line<W> {
    queues: HashMap<HookIx, Queue<W>>,
    clear: Round,
    suspect: Round,
    waiting: usize,
}

impl<W> Line<W> {
    pub fn new() -> Self {
        Self {
            queues: HashMap::new(),
            clear: Round::default(),
            suspect: Round::default(),
            waiting: 0,
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether there is nothing left to look at.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Whether the line still refers to a webhook.
    pub fn knows(&self, hook: HookIx) -> bool {
        !self.queues.is_empty() && self.queues.contains_key(&hook)
    }

    pub fn waiting_for(&self, hook: HookIx) -> usize {
        if self.queues.is_empty() {
            return 0;
        }
        self.queues.get(&hook).map_or(0, |q| q.waiters.len())
    }

    pub fn join(&mut self, hook: HookIx, waiter: Waiter<W>) {
        let queue = self.queues.entry(hook).or_insert_with(|| Queue {
            waiters: VecDeque::new(),
            in_clear: false,
            in_suspect: false,
        });
        queue.waiters.push_back(waiter);
        self.waiting += 1;
    }

    /// Puts a webhook that has waiters on the round of its side, unless it is there.
    pub fn list(&mut self, hook: HookIx, partner: PartnerId, standing: Standing) {
        if let Some(queue) = self.queues.get_mut(&hook)
            && !queue.waiters.is_empty()
            && !std::mem::replace(queue.listed_mut(standing), true)
        {
            self.round_mut(standing).push(partner, hook);
        }
    }

    /// Takes the webhook whose turn it is off the round, of those whose partner may. It may have changed sides, or
    /// its waiters may be gone.
    pub fn next(&mut self, standing: Standing, may: impl Fn(PartnerId) -> bool) -> Option<HookIx> {
        let hook = self.round_mut(standing).next(may)?;
        if let Some(queue) = self.queues.get_mut(&hook) {
            *queue.listed_mut(standing) = false;
            if queue.is_done() {
                self.queues.remove(&hook);
            }
        }
        Some(hook)
    }

    pub fn pop(&mut self, hook: HookIx) -> Option<Waiter<W>> {
        let queue = self.queues.get_mut(&hook)?;
        let waiter = queue.waiters.pop_front()?;
        self.waiting -= 1;
        if queue.is_done() {
            self.queues.remove(&hook);
        }
        Some(waiter)
    }

    /// Since when this one waits, if it still does.
    pub fn since(&self, hook: HookIx, number: u64) -> Option<Instant> {
        let queue = self.queues.get(&hook)?;
        queue.waiters.get(queue.place(number)?).map(|w| w.since)
    }

    pub fn leave(&mut self, hook: HookIx, number: u64) -> Option<Waiter<W>> {
        let queue = self.queues.get_mut(&hook)?;
        let waiter = queue.waiters.remove(queue.place(number)?);
        self.waiting -= 1;
        if queue.is_done() {
            self.queues.remove(&hook);
        }
        waiter
    }

    /// Webhooks for which somebody waits.
    #[cfg(test)]
    pub fn awaited(&self) -> impl Iterator<Item = HookIx> {
        let queues = self.queues.iter();
        queues
            .filter(|(_, q)| !q.waiters.is_empty())
            .map(|(&ix, _)| ix)
    }

    fn round_mut(&mut self, standing: Standing) -> &mut Round {
        match standing {
            Standing::Clear => &mut self.clear,
            Standing::Suspect => &mut self.suspect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(waiters: &[(i64, u32, u64)]) -> Line<u64> {
        let mut line = Line::new();
        for &(partner, hook, number) in waiters {
            let waiter = Waiter {
                number,
                since: Instant::now(),
                tell: number,
            };
            line.join(HookIx(hook), waiter);
            line.list(HookIx(hook), PartnerId(partner), Standing::Clear);
        }
        line
    }

    fn serve(line: &mut Line<u64>, partner_of: impl Fn(HookIx) -> i64) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some(hook) = line.next(Standing::Clear, |_| true) {
            order.extend(line.pop(hook).map(|w| w.tell));
            line.list(hook, PartnerId(partner_of(hook)), Standing::Clear);
        }
        order
    }

    #[test]
    fn partners_take_turns_then_webhooks_then_deliveries_in_order() {
        let mut line = line(&[
            (1, 10, 1),
            (1, 10, 2),
            (1, 10, 3),
            (1, 11, 4),
            (2, 20, 5),
            (3, 30, 6),
        ]);
        let order = serve(&mut line, |hook| i64::from(hook.0 / 10));
        assert_eq!(order, [1, 5, 6, 4, 2, 3]);
        assert_eq!(line.waiting(), 0);
        assert!(line.queues.is_empty());
    }

    #[test]
    fn a_partner_that_may_not_is_passed_over_and_keeps_its_place() {
        let mut line = line(&[(1, 10, 1), (2, 20, 2)]);
        let hook = line.next(Standing::Clear, |p| p != PartnerId(1));
        assert_eq!(hook, Some(HookIx(20)));
        assert_eq!(line.next(Standing::Clear, |_| true), Some(HookIx(10)));
    }

    #[test]
    fn who_leaves_is_forgotten_and_a_round_never_holds_a_webhook_twice() {
        let mut line = line(&[(1, 10, 1), (1, 10, 2)]);
        assert!(line.leave(HookIx(10), 1).is_some());
        assert!(line.leave(HookIx(10), 1).is_none());
        assert!(line.leave(HookIx(10), 2).is_some());
        assert!(line.knows(HookIx(10)), "still on the round");
        for number in 3..100 {
            let waiter = Waiter {
                number,
                since: Instant::now(),
                tell: number,
            };
            line.join(HookIx(10), waiter);
            line.list(HookIx(10), PartnerId(1), Standing::Clear);
            line.leave(HookIx(10), number);
        }
        assert_eq!(line.next(Standing::Clear, |_| true), Some(HookIx(10)));
        assert_eq!(line.next(Standing::Clear, |_| true), None);
        assert!(!line.knows(HookIx(10)));
    }
}
