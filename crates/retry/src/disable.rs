//! Disables webhooks at which nothing but failures happened for days.
//!
//! Reads `webhook_health`; writes `webhooks`, its history and the outbox, from which management-api's relay tells the
//! dispatchers. Woken by a timer. A webhook that was changed since is left alone: its count began anew.

use std::time::Duration;

use domain::webhook::DisabledReason;
use store::{Store, StoreError, webhook};

use crate::cadence::{Rest, Step};
use crate::metrics::Metrics;

/// Webhooks disabled by one step.
const BATCH: u32 = 100;

/// What disabling needs.
#[derive(Clone)]
pub struct Disabling {
    pub store: Store,
    pub metrics: Metrics,
    /// How long there must have been nothing but failures.
    pub lasting: Duration,
    /// How many there must have been.
    pub failures: u32,
}

impl Step for Disabling {
    const NAME: &'static str = "disable";

    async fn step(&self) -> Result<Rest, StoreError> {
        let mut connection = self.store.get().await?;
        let failing = webhook::failing(&mut connection, self.lasting, self.failures, BATCH).await?;
        for found in &failing {
            let disabled = webhook::disable(
                &mut connection,
                found.id,
                found.version,
                DisabledReason::Failing,
                "retry",
            )
            .await?;
            if disabled {
                self.metrics.disabled(found);
            }
        }
        Ok(Rest::after(failing.len(), BATCH.into()))
    }
}
