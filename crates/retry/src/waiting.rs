//! Measures how long the most overdue delivery waits, for the gauge on which an alert stands.
//!
//! Reads `deliveries`. Woken by a timer, beside the sweep and not within it: it looks at all that wait, and a sweep with
//! much to do takes hundreds of steps.

use chrono::Utc;
use store::{Store, StoreError, delivery};

use crate::cadence::{Rest, Step};
use crate::metrics::Metrics;

/// What measuring needs. No index helps: the one on what waits is in the order of the next announcement, where the most
/// overdue delivery may be the last.
#[derive(Clone)]
pub struct Waiting {
    pub store: Store,
    pub metrics: Metrics,
}

impl Step for Waiting {
    const NAME: &'static str = "waiting";

    async fn step(&self) -> Result<Rest, StoreError> {
        let mut connection = self.store.get().await?;
        let oldest = delivery::oldest_waiting(&mut connection).await?;
        let waiting = oldest.and_then(|oldest| (Utc::now() - oldest).to_std().ok());
        self.metrics.oldest_waiting(waiting.unwrap_or_default());
        Ok(Rest::Nothing)
    }
}
