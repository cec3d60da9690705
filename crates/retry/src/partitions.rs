//! Keeps the days of events, deliveries and attempts: makes those to come, and drops those whose time is over.
//!
//! Reads and changes the tables themselves. Woken by a timer; retry services that do it at once wait for each other or
//! leave it to the one that is at it. `migrate` makes the first days.

use store::partition::{self, Retention};
use store::{Store, StoreError};

use crate::cadence::{Rest, Step};
use crate::metrics::Metrics;

/// What keeping partitions needs.
#[derive(Clone)]
pub struct Partitions {
    pub store: Store,
    pub metrics: Metrics,
    pub days_ahead: u32,
    /// Fewer days than this raise an alert.
    pub alert_below_days: u32,
    pub retention: Retention,
}

impl Step for Partitions {
    const NAME: &'static str = "partitions";

    async fn step(&self) -> Result<Rest, StoreError> {
        let mut connection = self.store.get().await?;
        let made = partition::create(&mut connection, self.days_ahead).await;
        // Told even where making them fails: that is what the alert is for.
        let days = partition::days_ahead(&mut connection).await?;
        self.metrics.partitions_ahead(days, self.alert_below_days);
        let made = made?;
        if made > 0 {
            tracing::info!(tables = made, days_ahead = days, "made partitions");
        }
        drop(connection);
        let dropped = partition::drop_expired(&self.store, self.retention).await?;
        self.metrics.partitions_dropped(&dropped);
        Ok(Rest::Nothing)
    }
}
