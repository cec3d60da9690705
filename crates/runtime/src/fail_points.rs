//! Named steps at which a test stops a process, to see what arrives all the same. They exist only with the feature
//! `fail-points`, which no release is built with.
//!
//! A service marks a step with [`fail_point!`](crate::fail_point). `FAILPOINTS` in the environment of a process says what
//! happens there, in the words of the crate `fail`: `record.committed=return(abort)`, or
//! `1*off->1*return(hold)` for the second time that the step is reached. Its pauses would block a thread of the runtime, so
//! `hold` is made here: that step waits, everything else goes on, until the process gets SIGUSR1.

#[cfg(feature = "fail-points")]
use tokio::signal::unix::{SignalKind, signal};

/// Marks a step within an `async` function. Nothing at all without the feature `fail-points`.
#[cfg(feature = "fail-points")]
#[macro_export]
macro_rules! fail_point {
    ($name:literal) => {
        $crate::fail_points::reach($name).await
    };
}

/// Marks a step within an `async` function. Nothing at all without the feature `fail-points`.
#[cfg(not(feature = "fail-points"))]
#[macro_export]
macro_rules! fail_point {
    ($name:literal) => {};
}

/// Reads `FAILPOINTS`. Its points count for as long as the value lives.
#[cfg(feature = "fail-points")]
#[must_use]
pub fn arm() -> fail::FailScenario<'static> {
    let scenario = fail::FailScenario::setup();
    let armed: Vec<_> = fail::list().into_iter().map(|(name, _)| name).collect();
    if !armed.is_empty() {
        eprintln!("fail points armed: {}", armed.join(", "));
    }
    scenario
}

/// Does what was configured for the point, if anything was.
///
/// # Panics
/// When that is neither `abort` nor `hold`.
#[cfg(feature = "fail-points")]
pub async fn reach(point: &'static str) {
    match configured(point).as_deref() {
        None => {}
        Some("abort") => {
            eprintln!("fail point {point}: abort");
            std::process::abort();
        }
        Some("hold") => hold(point).await,
        Some(other) => panic!("fail point {point}: {other} is neither abort nor hold"),
    }
}

#[cfg(feature = "fail-points")]
fn configured(point: &'static str) -> Option<String> {
    fail::fail_point!(point, |word| Some(word.unwrap_or_default()));
    None
}

#[cfg(feature = "fail-points")]
async fn hold(point: &'static str) {
    match signal(SignalKind::user_defined1()) {
        Ok(mut told) => {
            eprintln!("fail point {point}: held");
            told.recv().await;
            eprintln!("fail point {point}: goes on");
        }
        Err(error) => panic!("fail point {point}: {error}"),
    }
}
