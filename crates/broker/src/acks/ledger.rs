//! Which tags of one channel are settled, and what to tell the broker: pure.
//!
//! Tags count 1, 2, 3 … on a channel, in the order of delivery. An ack never waits for an older delivery: everything
//! up to the lowest tag still held goes as one cumulative ack, every other one by itself.

use std::collections::BTreeMap;

/// What to tell the broker, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Before the acks: a cumulative ack would cover them.
    pub nacks: Vec<(u64, bool)>,
    /// Up to and including this tag, which is one of those to be acked: the broker refuses any other.
    pub cumulative: Option<u64>,
    pub singles: Vec<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    acks: Vec<u64>,
    nacks: Vec<(u64, bool)>,
    /// All tags up to this one are settled.
    floor: u64,
    /// Settled runs beyond, as first and last tag. Never more of them than deliveries that are held, plus one.
    runs: BTreeMap<u64, u64>,
}

impl Ledger {
    /// Notes an ack. Returns whether the tag was still held.
    pub fn ack(&mut self, tag: u64) -> bool {
        let held = self.settle(tag);
        if held {
            self.acks.push(tag);
        }
        held
    }

    /// Notes a nack. Returns whether the tag was still held.
    pub fn nack(&mut self, tag: u64, requeue: bool) -> bool {
        let held = self.settle(tag);
        if held {
            self.nacks.push((tag, requeue));
        }
        held
    }

    /// Takes what was noted since the last time.
    pub fn take(&mut self) -> Batch {
        let mut acks = std::mem::take(&mut self.acks);
        acks.sort_unstable();
        let below = acks.partition_point(|tag| *tag <= self.floor);
        let singles = acks.split_off(below);
        Batch {
            nacks: std::mem::take(&mut self.nacks),
            cumulative: acks.last().copied(),
            singles,
        }
    }

    fn settle(&mut self, tag: u64) -> bool {
        let before = self.runs.range(..=tag).next_back();
        let joins_before = match before {
            Some((_, &last)) if tag <= last => return false,
            Some((&first, &last)) if last + 1 == tag => Some(first),
            _ => None,
        };
        if tag <= self.floor {
            return false;
        }
        let last = self.runs.remove(&(tag + 1)).unwrap_or(tag);
        if tag == self.floor + 1 {
            self.floor = last;
        } else {
            self.runs.insert(joins_before.unwrap_or(tag), last);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(nacks: &[(u64, bool)], cumulative: Option<u64>, singles: &[u64]) -> Batch {
        Batch {
            nacks: nacks.to_vec(),
            cumulative,
            singles: singles.to_vec(),
        }
    }

    #[test]
    fn a_closed_run_from_the_bottom_is_one_cumulative_ack() {
        let mut ledger = Ledger::default();
        for tag in [3, 1, 2] {
            assert!(ledger.ack(tag));
        }
        assert_eq!(ledger.take(), batch(&[], Some(3), &[]));
        assert_eq!(ledger.take(), Batch::default());
    }

    #[test]
    fn an_ack_does_not_wait_for_an_older_delivery_that_is_held() {
        let mut ledger = Ledger::default();
        for tag in [1, 2, 4, 6] {
            ledger.ack(tag);
        }
        assert_eq!(ledger.take(), batch(&[], Some(2), &[4, 6]));
        ledger.ack(5);
        assert_eq!(ledger.take(), batch(&[], None, &[5]));
        // The last one held: what lies beyond was acked already, and the broker knows no tag but 3.
        ledger.ack(3);
        assert_eq!(ledger.take(), batch(&[], Some(3), &[]));
        ledger.ack(7);
        assert_eq!(ledger.take(), batch(&[], Some(7), &[]));
    }

    #[test]
    fn nacks_go_first_and_are_never_the_tag_of_a_cumulative_ack() {
        let mut ledger = Ledger::default();
        ledger.ack(1);
        ledger.nack(2, true);
        ledger.nack(3, false);
        assert_eq!(ledger.take(), batch(&[(2, true), (3, false)], Some(1), &[]));
        ledger.nack(4, true);
        ledger.ack(5);
        assert_eq!(ledger.take(), batch(&[(4, true)], Some(5), &[]));
    }

    #[test]
    fn a_tag_is_settled_once() {
        let mut ledger = Ledger::default();
        assert!(ledger.ack(1));
        assert!(!ledger.ack(1) && !ledger.nack(1, true));
        assert!(ledger.ack(3));
        assert!(!ledger.ack(3));
        assert_eq!(ledger.take(), batch(&[], Some(1), &[3]));
        assert!(!ledger.ack(3) && !ledger.ack(0));
        assert_eq!(ledger.take(), Batch::default());
    }

    /// Plays a broker: every tag is outstanding until it is settled, and an unknown tag is an error.
    #[test]
    fn in_any_order_the_broker_hears_of_every_tag_exactly_once() {
        const TAGS: u64 = 500;
        for seed in 0..200u64 {
            let mut order: Vec<u64> = (1..=TAGS).collect();
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = |n: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % n
            };
            for i in (1..order.len()).rev() {
                // Near neighbours change places more often than far ones, as they do in life.
                let reach = 1 + random(1 + seed);
                let j = i.saturating_sub(usize::try_from(random(reach)).unwrap());
                order.swap(i, j);
            }
            let mut ledger = Ledger::default();
            let mut outstanding: std::collections::BTreeSet<u64> = (1..=TAGS).collect();
            let mut held: std::collections::BTreeSet<u64> = outstanding.clone();
            for (i, tag) in order.into_iter().enumerate() {
                held.remove(&tag);
                if random(10) == 0 {
                    ledger.nack(tag, true);
                } else {
                    ledger.ack(tag);
                }
                if random(7) != 0 && i + 1 != usize::try_from(TAGS).unwrap() {
                    continue;
                }
                let batch = ledger.take();
                for (tag, _) in batch.nacks {
                    assert!(outstanding.remove(&tag));
                }
                if let Some(upto) = batch.cumulative {
                    assert!(outstanding.contains(&upto));
                    outstanding.retain(|tag| *tag > upto);
                }
                for tag in batch.singles {
                    assert!(outstanding.remove(&tag));
                }
                assert_eq!(outstanding, held);
                assert!(ledger.runs.len() <= held.len() + 1);
            }
            assert!(outstanding.is_empty());
        }
    }
}
