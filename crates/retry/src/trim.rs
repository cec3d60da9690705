//! Trims what is needed no longer: old claims, answers kept for an `Idempotency-Key`, windows of rate limits, breakers
//! of dispatchers that are gone, services that are, and dead letters beyond their caps.
//!
//! Deletes in small batches, so that no lock is held for long and autovacuum keeps up. Woken by a timer; any number of
//! retry services may do it at once.

use std::time::Duration;

use store::{
    Store, StoreError, claim, dead_letter, health, idempotency, rate_limit, service_instance,
};

use crate::cadence::{Rest, Step};
use crate::config::DeadLetterCaps;
use crate::dead_letters::{LINES, stored};
use crate::metrics::Metrics;

/// A service that gave no sign of life for so long is forgotten.
const SILENT: Duration = Duration::from_secs(60 * 60);

/// What trimming needs.
#[derive(Clone)]
pub struct Trimming {
    pub store: Store,
    pub metrics: Metrics,
    /// Rows that one statement deletes.
    pub batch: u32,
}

impl Step for Trimming {
    const NAME: &'static str = "trim";

    async fn step(&self) -> Result<Rest, StoreError> {
        let mut connection = self.store.get().await?;
        let conn = &mut *connection;
        let trimmed = [
            ("claims", claim::trim(conn, self.batch.into()).await?),
            (
                "idempotency_keys",
                idempotency::trim(conn, self.batch).await?,
            ),
            ("rate_limits", rate_limit::trim(conn, self.batch).await?),
            ("webhook_breakers", health::trim_breakers(conn).await?),
            (
                "service_instances",
                service_instance::trim(conn, SILENT).await?,
            ),
        ];
        for (table, rows) in trimmed {
            self.metrics.trimmed(table, rows);
        }
        let most = trimmed.iter().map(|(_, rows)| *rows).max().unwrap_or(0);
        Ok(Rest::after(most, self.batch.into()))
    }
}

/// What keeping dead letters within their caps needs. Apart from the others, since it looks at all rows each time.
#[derive(Clone)]
pub struct Capping {
    pub store: Store,
    pub metrics: Metrics,
    pub caps: DeadLetterCaps,
    pub batch: u32,
}

impl Step for Capping {
    const NAME: &'static str = "cap_dead_letters";

    async fn step(&self) -> Result<Rest, StoreError> {
        let mut connection = self.store.get().await?;
        let mut most = 0;
        for line in LINES {
            let DeadLetterCaps { age, bytes } = self.caps;
            let rows =
                dead_letter::trim(&mut connection, stored(line), age, bytes, self.batch).await?;
            self.metrics.dead_letters_dropped(line.as_str(), rows);
            most = most.max(rows);
        }
        Ok(Rest::after(most, self.batch.into()))
    }
}
