//! The short plan of `make chaos` on servers of its own: every fault once, under load, with what the services promise
//! held against what arrived.

use std::path::Path;

use tests::chaos::{self, Fault, Length, Options};

/// Anybody who changes it gets another order and other moments.
const SEED: u64 = 20;
/// What two cores bear with debug builds, however busy.
const EVENTS_PER_SECOND: u32 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_stopped_or_starved_nothing_is_lost() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos");
    let options = Options {
        length: Length::Short,
        seed: SEED,
        only: Vec::new(),
        events_per_second: EVENTS_PER_SECOND,
        progress: |line| eprintln!("{line}"),
    };
    let report = chaos::run(options, &folder).await;
    assert!(report.passed(), "{}", report.table());
    assert_eq!(report.strikes.len(), Fault::ALL.len());
    assert!(
        report.account.total().confirmed > 1_000,
        "{}",
        report.table()
    );
}
