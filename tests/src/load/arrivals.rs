//! What a receiver saw, and how it agrees with what was published.

use std::collections::HashMap;
use std::ops::Range;

use super::Published;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub at_us: u64,
    pub event: u32,
    pub webhook: u32,
    /// Whether it was, or will be, answered with a success.
    pub accepted: bool,
}

/// All requests so far.
#[derive(Clone, Debug, Default)]
pub struct Arrivals(pub Vec<Arrival>);

/// Published and accepted, event by event and webhook by webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    pub events: usize,
    /// Deliveries that the events' partners have webhooks for.
    pub expected: usize,
    /// Those of them that were accepted at least once.
    pub distinct: usize,
    /// Accepted requests that repeat an earlier one.
    pub duplicates: usize,
    /// Deliveries that nobody asked for: an event that was not published, or another partner's webhook.
    pub strangers: usize,
}

impl Tally {
    /// Everything arrived, once, and nothing else.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.distinct == self.expected && self.duplicates == 0 && self.strangers == 0
    }
}

impl Arrivals {
    /// Some of them.
    #[must_use]
    pub fn only(&self, which: impl Fn(&Arrival) -> bool) -> Self {
        let chosen = self.0.iter().filter(|arrival| which(arrival));
        Self(chosen.copied().collect())
    }

    /// Holds them against what was published; `webhooks` tells the numbers of a partner's webhooks.
    #[must_use]
    pub fn tally(&self, published: &Published, webhooks: impl Fn(i64) -> Range<u32>) -> Tally {
        let keys = self.accepted_keys();
        let belongs = |&(event, webhook): &(u32, u32)| {
            let partner = published.partner(event);
            partner.is_some_and(|partner| webhooks(partner).contains(&webhook))
        };
        let distinct = keys.iter().filter(|key| belongs(key)).count();
        let expected = published
            .partners
            .iter()
            .map(|&partner| webhooks(partner).len());
        Tally {
            events: published.partners.len(),
            expected: expected.sum(),
            distinct,
            duplicates: self.accepted().count() - keys.len(),
            strangers: keys.len() - distinct,
        }
    }

    /// Different deliveries a second between the first arrival and the last.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        let times = || self.accepted().map(|arrival| arrival.at_us);
        match (times().min(), times().max()) {
            (Some(first), Some(last)) if last > first => {
                self.accepted_keys().len() as f64 * 1e6 / (last - first) as f64
            }
            _ => 0.0,
        }
    }

    /// When the last one came; `None` of none.
    #[must_use]
    pub fn last_us(&self) -> Option<u64> {
        self.0.iter().map(|arrival| arrival.at_us).max()
    }

    /// From the instant when an event was due to its first arrival at each webhook, for the webhooks that count.
    #[must_use]
    pub fn latencies_us(&self, published: &Published, counts: impl Fn(u32) -> bool) -> Vec<u64> {
        let mut first: HashMap<(u32, u32), u64> = HashMap::with_capacity(self.0.len());
        for arrival in self.0.iter().filter(|arrival| counts(arrival.webhook)) {
            let at_us = first
                .entry((arrival.event, arrival.webhook))
                .or_insert(arrival.at_us);
            *at_us = (*at_us).min(arrival.at_us);
        }
        let latency = |((event, _), at_us): ((u32, u32), u64)| {
            Some(at_us.saturating_sub(published.due_us(event)?))
        };
        first.into_iter().filter_map(latency).collect()
    }

    fn accepted(&self) -> impl Iterator<Item = &Arrival> {
        self.0.iter().filter(|arrival| arrival.accepted)
    }

    /// Event and webhook of all that was accepted, sorted, each once.
    fn accepted_keys(&self) -> Vec<(u32, u32)> {
        let mut keys: Vec<_> = self.accepted().map(|a| (a.event, a.webhook)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(event: u32, webhook: u32, accepted: bool) -> Arrival {
        Arrival {
            at_us: u64::from(event) * 500_000,
            event,
            webhook,
            accepted,
        }
    }

    /// Two events of partner 1, one of partner 2, from number 1 on; each partner has one webhook with its number.
    fn published() -> Published {
        Published {
            first: 1,
            due_us: vec![400_000, 900_000, 1_400_000],
            partners: vec![1, 1, 2],
            again: 0,
        }
    }

    fn webhooks(partner: i64) -> Range<u32> {
        let webhook = u32::try_from(partner).unwrap();
        webhook..webhook + 1
    }

    #[test]
    fn all_that_was_published_and_accepted_once_is_sound() {
        let arrivals = Arrivals(vec![
            arrival(1, 1, false),
            arrival(1, 1, true),
            arrival(2, 1, true),
            arrival(3, 2, true),
        ]);
        let tally = arrivals.tally(&published(), webhooks);
        assert_eq!((tally.expected, tally.distinct), (3, 3));
        assert!(tally.is_sound());
        assert!((arrivals.per_second() - 3.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_missing_repeated_or_nobodys_is_told_apart() {
        let arrivals = Arrivals(vec![
            arrival(1, 1, true),
            arrival(1, 1, true),
            arrival(2, 1, false),
            arrival(3, 1, true),
            arrival(9, 1, true),
        ]);
        let tally = arrivals.tally(&published(), webhooks);
        assert_eq!((tally.expected, tally.distinct), (3, 1));
        assert_eq!((tally.duplicates, tally.strangers), (1, 2));
        assert!(!tally.is_sound());
    }

    #[test]
    fn latency_counts_from_due_to_the_first_arrival() {
        let mut late = arrival(1, 1, true);
        late.at_us = 700_000;
        let arrivals = Arrivals(vec![late, arrival(1, 1, true), arrival(3, 2, true)]);
        let latencies = arrivals.latencies_us(&published(), |webhook| webhook == 1);
        assert_eq!(latencies, [100_000]);
    }
}
