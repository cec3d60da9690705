//! Says when an event is due, from a thread of its own: the runtime's timers count whole milliseconds and round them up,
//! which would be much of what is measured.

use std::thread;
use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::Clock;

/// Sends the instants of so many events, each when it has come. The thread ends with the last, or when nobody listens.
pub(super) fn start(clock: Clock, per_second: u32, count: u64) -> UnboundedReceiver<u64> {
    let (due, dues) = unbounded_channel();
    let start_us = clock.now_us();
    let pace = move || {
        for place in 0..count {
            let due_us = start_us + place * 1_000_000 / u64::from(per_second);
            thread::sleep(clock.at(due_us).saturating_duration_since(Instant::now()));
            if due.send(due_us).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("pacer".to_owned());
    let _ends_by_itself = thread.spawn(pace).expect("a thread");
    dues
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_due_before_its_time_and_the_last_is_the_last() {
        let clock = Clock::start();
        let mut dues = start(clock, 1_000, 20);
        let mut seen = Vec::new();
        while let Some(due_us) = dues.recv().await {
            assert!(clock.now_us() >= due_us);
            seen.push(due_us);
        }
        assert_eq!(seen.len(), 20);
        assert!(seen.windows(2).all(|pair| pair[1] - pair[0] == 1_000));
    }
}
