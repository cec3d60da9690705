//! Announces deliveries again that are overdue: their announcement was lost, or whoever had them is gone.
//!
//! Reads and stamps `deliveries`; publishes to `vellocity.deliveries.due.v1`, straight to the dispatchers. Woken by a
//! timer. Any number of retry services may sweep at once, since each takes rows that no other one holds.

use std::time::Duration;

use broker::announcement::{Announcement, Reason};
use broker::trace::Trace;
use broker::{Broker, Publisher};
use futures_util::future::join_all;
use store::delivery::{self, Overdue};
use store::{Store, StoreError};

use crate::cadence::{Rest, Step};
use crate::metrics::Metrics;

/// Announcements without an attempt from which on an alert is raised. It ends nothing: the delivery goes on.
const UNHEARD_FROM: i32 = 10;

/// What sweeping needs.
#[derive(Clone)]
pub struct Sweep {
    pub store: Store,
    pub broker: Broker,
    pub publisher: Publisher,
    pub metrics: Metrics,
    /// How long a delivery may be overdue.
    pub overdue: Duration,
    /// Deliveries announced by one step.
    pub batch: i64,
}

impl Step for Sweep {
    const NAME: &'static str = "sweep";

    async fn step(&self) -> Result<Rest, StoreError> {
        // A stamp without an announcement would only make the row wait longer.
        if !self.broker.state().is_ready() {
            return Ok(Rest::Nothing);
        }
        let mut connection = self.store.get().await?;
        let rows = delivery::sweep(&mut connection, self.overdue, self.batch).await?;
        drop(connection);
        if rows.is_empty() {
            return Ok(Rest::Nothing);
        }
        join_all(rows.iter().map(|row| self.announce(row))).await;
        self.metrics.swept(rows.len());
        Ok(Rest::after(rows.len(), self.batch))
    }
}

impl Sweep {
    async fn announce(&self, row: &Overdue) {
        if row.announcements >= UNHEARD_FROM {
            self.metrics.unheard(row);
        }
        let trace = Trace::new(
            row.trace.traceparent.as_deref(),
            row.trace.tracestate.as_deref(),
        );
        runtime::fail_point!("sweep.publish");
        if let Err(error) = self
            .publisher
            .publish(announcement(row).to_due(&trace))
            .await
        {
            self.metrics.publish_failed(&error);
        }
        runtime::fail_point!("sweep.published");
    }
}

fn announcement(row: &Overdue) -> Announcement {
    Announcement {
        delivery_id: row.delivery_id,
        webhook_id: row.webhook_id,
        partner_id: row.partner_id,
        turn: row.turn,
        not_before_ms: row.next_attempt_at.timestamp_millis(),
        attempts: row.attempts,
        parkings: row.parkings,
        reason: Reason::Sweep,
        hops: 0,
    }
}
