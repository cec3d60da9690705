//! Conditions with a deadline. The only place of all tests where time is let pass.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Long enough for a busy machine with two cores; a test that passes never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Asks until the condition has a value, and returns it.
///
/// # Panics
/// With `what` when there is none within [`DEADLINE`].
pub async fn eventually<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    within(DEADLINE, what, condition).await
}

/// [`eventually`] with a deadline of one's own.
///
/// # Panics
/// With `what` when there is no value in time.
pub async fn within<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        // A condition that hangs is one that does not hold.
        let left = deadline.saturating_sub(started.elapsed());
        match tokio::time::timeout(left.max(FIRST_PAUSE), condition()).await {
            Ok(Some(value)) => return value,
            Ok(None) => {}
            Err(_) => panic!("not within {deadline:?} (the question hangs): {what}"),
        }
        assert!(
            started.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Asks until the answer is the expected one; tells the last one when it never is.
///
/// # Panics
/// When it is not within [`DEADLINE`].
pub async fn until_equal<T: PartialEq + Debug>(
    what: &str,
    expected: T,
    mut question: impl AsyncFnMut() -> T,
) {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let answer = question().await;
        if answer == expected {
            return;
        }
        assert!(
            started.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}: {answer:?} instead of {expected:?}"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Lets a span of time pass that is part of what is tested, such as "published 1 s later". Never for something to
/// happen: that is what conditions are for.
pub async fn let_pass(span: Duration) {
    tokio::time::sleep(span).await;
}
