//! Load: a publisher that keeps a pace or a window, a receiver that is fast enough not to be what is measured, and the
//! comparison of what one published with what the other received.
//!
//! Both know an event by a number: it stands in the event's id, which comes back in the header of each delivery, so that
//! a million arrivals fit in little memory.

mod arrivals;
mod pacer;
pub mod publisher;
pub mod receiver;
mod request;

use std::time::Instant;

pub use arrivals::{Arrival, Arrivals, Tally};
pub use publisher::{Pace, Published, Publisher, Target};
pub use receiver::LoadReceiver;
pub use request::Behaviour;

const ID_PREFIX: &str = "evt_load_";

/// The id of the event with that number.
#[must_use]
pub fn event_id(number: u32) -> String {
    format!("{ID_PREFIX}{number:010}")
}

/// The number of an event that has an id of ours.
#[must_use]
pub fn number_of(event_id: &[u8]) -> Option<u32> {
    let digits = event_id.strip_prefix(ID_PREFIX.as_bytes())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The instant from which publisher and receiver count microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since the start.
    #[must_use]
    pub fn now_us(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The instant so many microseconds after the start.
    #[must_use]
    pub fn at(self, us: u64) -> Instant {
        self.0 + std::time::Duration::from_micros(us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_by_the_number_in_its_id() {
        assert_eq!(number_of(event_id(42).as_bytes()), Some(42));
        assert_eq!(number_of(event_id(u32::MAX).as_bytes()), Some(u32::MAX));
        assert_eq!(number_of(b"evt_other"), None);
    }
}
