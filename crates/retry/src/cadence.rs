//! Runs the step of a loop again and again until the service ends. A step that fails is told, counted, and tried again
//! after a growing pause; Postgres coming back needs nobody to do anything.

use std::time::Duration;

use runtime::{Backoff, Shutdown};
use store::StoreError;

use crate::metrics::Metrics;

/// What a step leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: the next round comes in its time.
    Nothing,
    /// As much as one step takes, so that there may be more: the next step follows at once.
    More,
}

impl Rest {
    /// [`Rest::More`] when a step did as much as its limit allows.
    #[must_use]
    pub fn after(done: usize, limit: i64) -> Self {
        if i64::try_from(done).is_ok_and(|done| done < limit) {
            Self::Nothing
        } else {
            Self::More
        }
    }
}

/// One turn of a loop. Tests call it directly.
pub trait Step {
    /// How logs and metrics call it.
    const NAME: &'static str;

    /// Does what there is to do now, up to a limit.
    fn step(&self) -> impl Future<Output = Result<Rest, StoreError>> + Send;
}

/// Runs a step every `period`. It is never cut short: a shutdown that begins meanwhile ends the loop after it.
pub async fn repeat<S: Step>(step: &S, period: Duration, metrics: &Metrics, shutdown: &Shutdown) {
    let mut backoff = Backoff::default();
    while !shutdown.has_begun() {
        let pause = match step.step().await {
            Ok(Rest::More) => {
                backoff.reset();
                continue;
            }
            Ok(Rest::Nothing) => {
                backoff.reset();
                period
            }
            Err(error) => {
                metrics.step_failed(S::NAME, &error);
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = shutdown.begun() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Two full steps, a failed one, and one that ends the service.
    struct Scripted {
        steps: AtomicU32,
        shutdown: Shutdown,
    }

    impl Step for Scripted {
        const NAME: &'static str = "scripted";

        async fn step(&self) -> Result<Rest, StoreError> {
            match self.steps.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Ok(Rest::More),
                2 => Err(StoreError::Corrupt("test".to_owned())),
                _ => {
                    self.shutdown.begin();
                    Ok(Rest::Nothing)
                }
            }
        }
    }

    #[test]
    fn a_step_at_its_limit_may_have_left_something() {
        assert_eq!(Rest::after(499, 500), Rest::Nothing);
        assert_eq!(Rest::after(500, 500), Rest::More);
        assert_eq!(Rest::after(0, 500), Rest::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_step_is_followed_at_once_and_a_failed_one_is_tried_again() {
        let shutdown = Shutdown::new();
        let scripted = Scripted {
            steps: AtomicU32::new(0),
            shutdown: shutdown.clone(),
        };
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let begun = tokio::time::Instant::now();
        repeat(&scripted, Duration::from_secs(100), &metrics, &shutdown).await;
        assert_eq!(scripted.steps.into_inner(), 4);
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}
