//! Delay buckets: one queue for each, where a message waits for the queue's time-to-live and then falls into
//! `vellocity.deliveries.due`. Which one to take is a pure function.
//!
//! One time-to-live a queue, since a queue expires its messages at its head only: a short delay behind a long one
//! would wait for it.

use std::time::Duration;

const SECOND: u32 = 1;
const MINUTE: u32 = 60;
const HOUR: u32 = 60 * 60;

/// Delays of all buckets in seconds, ascending. Those of 5 and 6 s take the first step of the default schedule, jitter
/// and all, in one hop each: it is what nearly all that is parked waits for.
const DELAYS_S: [u32; 19] = [
    SECOND,
    2 * SECOND,
    5 * SECOND,
    6 * SECOND,
    10 * SECOND,
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    24 * HOUR,
];

/// Times a message goes through a bucket before the wait is rounded up. Each costs the broker about 0.1 ms.
pub const HOPS_MAX: u32 = 3;

/// What a message may wait longer to be spared a hop: the smallest bucket could not end its wait more exactly.
const ROUNDED_UP: Duration = Duration::from_secs(SECOND as u64);

/// One of the fixed delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    delay_s: u32,
}

impl Bucket {
    const SMALLEST: Self = Self { delay_s: SECOND };
    const LARGEST: Self = Self { delay_s: 24 * HOUR };

    /// All buckets, the shortest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        DELAYS_S.into_iter().map(|delay_s| Self { delay_s })
    }

    #[must_use]
    pub fn delay(self) -> Duration {
        Duration::from_secs(self.delay_s.into())
    }

    /// The delay in milliseconds: the queue's time-to-live.
    #[must_use]
    pub fn delay_ms(self) -> i64 {
        i64::from(self.delay_s) * 1000
    }

    /// The key on `vellocity.delays` that leads here.
    #[must_use]
    pub fn routing_key(self) -> String {
        self.delay_ms().to_string()
    }

    #[must_use]
    pub fn queue(self) -> String {
        format!("vellocity.delay.{}.v1", self.delay_ms())
    }
}

/// The bucket for a message that has `remaining` to wait and has been through `hops` buckets so far.
///
/// The one that is just longer, up to a second; otherwise the largest that fits, and what is left goes through another
/// one afterwards; the third is rounded up, so that a message makes three hops and no more. A wait is never cut short; one
/// longer than the largest bucket comes back early from it, and is placed again.
#[must_use]
pub fn bucket(remaining: Duration, hops: u32) -> Bucket {
    let covering = Bucket::all().find(|b| b.delay() >= remaining);
    let is_close = |bucket: &Bucket| bucket.delay() - remaining <= ROUNDED_UP;
    if hops + 1 >= HOPS_MAX {
        covering.unwrap_or(Bucket::LARGEST)
    } else if let Some(close) = covering.filter(is_close) {
        close
    } else {
        Bucket::all()
            .rfind(|b| b.delay() <= remaining)
            .unwrap_or(Bucket::SMALLEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn delay_s(remaining_ms: u32, hops: u32) -> u64 {
        bucket(MS * remaining_ms, hops).delay().as_secs()
    }

    #[test]
    fn what_is_close_is_rounded_up_and_so_is_the_last_hop() {
        let cases = [
            // (remaining in ms, hops so far, bucket in s)
            (0, 0, 1),
            (1, 0, 1),
            (999, 0, 1),
            (1000, 0, 1),
            (1001, 0, 2),
            (3999, 0, 2),
            (4000, 0, 5),
            (5000, 0, 5),
            (5001, 0, 6),
            (6001, 0, 6),
            (8999, 0, 6),
            (9000, 0, 10),
            (28_999, 1, 15),
            (29_000, 1, 30),
            (3_600_000, 1, 3600),
            (3_598_999, 0, 1800),
            (86_400_000, 0, 86_400),
            (99_360_000, 0, 86_400),
            (0, 2, 1),
            (1001, 2, 2),
            (2_160_000, 2, 3600),
            (86_400_000, 2, 86_400),
            (86_400_001, 2, 86_400),
            (4999, 7, 5),
            (4999, u32::MAX - 1, 5),
        ];
        for (remaining, hops, expected) in cases {
            assert_eq!(delay_s(remaining, hops), expected, "{remaining} {hops}");
        }
    }

    #[test]
    fn every_wait_up_to_a_day_ends_after_three_hops_and_never_early() {
        let waits = (0..20_000).chain((20_000..=86_400_000).step_by(7919));
        for wait_ms in waits {
            let wait = MS * wait_ms;
            let mut waited = Duration::ZERO;
            let mut hops = 0;
            while waited < wait || hops == 0 {
                waited += bucket(wait - waited, hops).delay();
                hops += 1;
            }
            assert!(hops <= HOPS_MAX, "{wait:?} took {hops} hops");
            // At worst the third hop is doubled or nearly so, and it is the smallest part of the three.
            let late = waited - wait;
            assert!(
                late <= Duration::from_secs(1).max(wait / 2),
                "{wait:?} came {late:?} late"
            );
        }
    }

    #[test]
    fn the_first_step_of_the_default_schedule_takes_one_hop() {
        for wait_ms in 4250..=5750 {
            assert!(bucket(MS * wait_ms, 0).delay() >= MS * wait_ms);
        }
    }

    #[test]
    fn buckets_ascend_and_carry_their_delay_in_their_names() {
        let all: Vec<_> = Bucket::all().collect();
        assert!(all.is_sorted());
        assert_eq!(all.first().unwrap().queue(), "vellocity.delay.1000.v1");
        assert_eq!(all.last().unwrap().routing_key(), "86400000");
    }
}
