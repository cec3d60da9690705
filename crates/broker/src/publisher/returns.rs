//! Finds out which mandatory messages came back: pure.
//!
//! The broker sends a message back just before it confirms it, and lapin attaches what came back to whatever confirm
//! completes next, which may be another message's. All of those were in flight when this one's confirm came. So the
//! verdict on a mandatory message waits until every message that was in flight at that moment has its confirm too.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// What tells a returned message apart: exchange, routing key and message id.
pub(super) type Key = (String, String, String);

/// A mandatory message whose confirm came.
struct Confirmed<T> {
    key: Key,
    /// The last message that was in flight at that moment.
    upto: u64,
    waiting: T,
}

pub(super) struct Returns<T> {
    in_flight: BTreeSet<u64>,
    sent: u64,
    confirmed: VecDeque<Confirmed<T>>,
    /// Why each came back, for as many copies as did.
    returned: HashMap<Key, Vec<String>>,
}

impl<T> Default for Returns<T> {
    fn default() -> Self {
        Self {
            in_flight: BTreeSet::new(),
            sent: 0,
            confirmed: VecDeque::new(),
            returned: HashMap::new(),
        }
    }
}

impl<T> Returns<T> {
    /// A message goes out. Returns its number.
    pub fn sent(&mut self) -> u64 {
        self.sent += 1;
        self.in_flight.insert(self.sent);
        self.sent
    }

    /// A message came back, on whatever confirm.
    pub fn returned(&mut self, key: Key, why: String) {
        self.returned.entry(key).or_default().push(why);
    }

    /// Message `number` needs no more watching: it has its confirm, or its fate is known otherwise.
    pub fn settled(&mut self, number: u64) {
        self.in_flight.remove(&number);
    }

    /// A mandatory message has its confirm, and waits for a verdict.
    pub fn confirmed(&mut self, key: Key, waiting: T) {
        self.confirmed.push_back(Confirmed {
            key,
            upto: self.sent,
            waiting,
        });
    }

    /// Mandatory messages whose fate is known by now: with the reason, if it came back.
    pub fn verdicts(&mut self) -> Vec<(T, Option<String>)> {
        let oldest = self.in_flight.first().copied().unwrap_or(u64::MAX);
        let mut verdicts = Vec::new();
        while let Some(confirmed) = self.confirmed.pop_front_if(|c| c.upto < oldest) {
            let why = self.take_return(&confirmed.key);
            verdicts.push((confirmed.waiting, why));
        }
        verdicts
    }

    fn take_return(&mut self, key: &Key) -> Option<String> {
        let reasons = self.returned.get_mut(key)?;
        let why = reasons.pop();
        if reasons.is_empty() {
            self.returned.remove(key);
        }
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Key {
        ("e".to_owned(), "k".to_owned(), id.to_owned())
    }

    #[test]
    fn a_return_that_hangs_on_another_confirm_finds_its_message() {
        let mut returns = Returns::default();
        let (a, b, c) = (returns.sent(), returns.sent(), returns.sent());
        // One frame confirms all three; lapin completes them in any order and hangs b's return on c.
        returns.settled(b);
        returns.confirmed(key("b"), "b");
        assert_eq!(returns.verdicts(), []);
        returns.settled(a);
        assert_eq!(returns.verdicts(), []);
        returns.returned(key("b"), "no route".to_owned());
        returns.settled(c);
        assert_eq!(returns.verdicts(), [("b", Some("no route".to_owned()))]);
    }

    #[test]
    fn messages_sent_after_a_confirm_do_not_hold_its_verdict_up() {
        let mut returns = Returns::default();
        let a = returns.sent();
        returns.settled(a);
        returns.confirmed(key("a"), "a");
        let later = returns.sent();
        assert_eq!(returns.verdicts(), [("a", None)]);
        returns.settled(later);
        assert!(returns.in_flight.is_empty() && returns.confirmed.is_empty());
    }

    #[test]
    fn of_two_copies_each_return_counts_for_one() {
        let mut returns = Returns::default();
        let (a, b) = (returns.sent(), returns.sent());
        returns.returned(key("x"), "no route".to_owned());
        for number in [a, b] {
            returns.settled(number);
            returns.confirmed(key("x"), number);
        }
        let verdicts = returns.verdicts();
        assert_eq!(verdicts, [(1, Some("no route".to_owned())), (2, None)]);
        assert!(returns.returned.is_empty());
    }
}
