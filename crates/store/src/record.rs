//! What was decided and what happened, in one transaction a batch.
//!
//! Reads and writes `claims`, `events`, `deliveries`, `attempts` and `webhook_health`. The dispatcher calls it with
//! all that has gathered since its last batch, acknowledges the events that are recorded, and then announces what is
//! scheduled. A batch that is recorded again, because the answer to its COMMIT was lost, changes nothing twice.

mod attempt_columns;
mod batch;
mod ended;
mod events;
mod new_deliveries;
mod parked;
mod scheduled_row;

pub use batch::{Batch, EndedAttempt, NewDelivery, ParkedDelivery, RecordedEvent, Step, Trace};
pub use new_deliveries::FIRST_TURN;

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use domain::attempt::Attempt;
use domain::id::{DeliveryId, EventKey, PartnerId, WebhookId};
use domain::webhook::HealthVersion;
use futures_util::future::{join3, try_join4};

use crate::StoreError;
use crate::health::{self, AttemptResult};
use crate::pool::Pipeline;

/// What became of an event of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marking {
    /// Recorded, by this batch or before: its message can be acknowledged.
    Recorded,
    /// Somebody else took the claim over and has not recorded it: nothing was written.
    TakenOver,
    /// The id is recorded for other content: a crash of Postgres had lost the claim, and another event came first.
    /// Nothing was written.
    Conflict,
}

/// A delivery that waits, to be announced after the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    pub delivery_id: DeliveryId,
    pub webhook_id: WebhookId,
    pub partner_id: PartnerId,
    pub turn: i32,
    pub next_attempt_at: DateTime<Utc>,
    pub attempts: i32,
    pub parkings: i32,
    /// Whether it was put off rather than tried.
    pub parked: bool,
    pub trace: Trace,
}

/// What a batch changed.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    pub markings: HashMap<EventKey, Marking>,
    pub scheduled: Vec<Scheduled>,
    /// Ended and parked deliveries whose turn was still the one given, and that turn; the others were left alone.
    pub applied: HashSet<(DeliveryId, i32)>,
}

/// Records a batch, in a transaction of its own: not within another one.
///
/// # Errors
/// [`StoreError::Data`] when a row is at fault: the batch is then to be split until that row stands alone. Otherwise
/// Postgres failed, and the same batch can be given again.
pub async fn record(
    connection: &mut AsyncPgConnection,
    batch: &Batch,
) -> Result<Recorded, StoreError> {
    match record_at_once(connection, batch).await? {
        Some(recorded) => Ok(recorded),
        None => {
            connection
                .transaction(async |connection| record_in_steps(connection, batch).await)
                .await
        }
    }
}

/// Two round trips, for a batch all of whose events are the caller's: the rows are sent before it is known that they
/// may be. `None` when one is somebody else's or recorded already; nothing is written then.
async fn record_at_once(
    connection: &mut AsyncPgConnection,
    batch: &Batch,
) -> Result<Option<Recorded>, StoreError> {
    let events: Vec<&RecordedEvent> = batch.events.iter().collect();
    let pipeline = Pipeline::new(connection);
    let connection = pipeline.connection();
    // Sent in the order in which they stand here.
    let (begun, marked, rows) = join3(
        pipeline.begin(),
        events::mark(connection, &batch.events),
        Rows::write(connection, &events, batch),
    )
    .await;
    let outcome = begun.and(marked).map(|marked| (marked.len(), rows));
    match outcome {
        Ok((marked, _)) if marked < events.len() => {
            pipeline.rollback().await?;
            Ok(None)
        }
        Ok((_, Ok(rows))) => {
            let health = health::fold(rows.results(&events, batch));
            pipeline
                .commit_after(async |connection| health::merge(connection, &health).await)
                .await?;
            let markings = events.iter().map(|e| (e.key, Marking::Recorded));
            Ok(Some(rows.into_recorded(markings.collect())))
        }
        Ok((_, Err(error))) | Err(error) => {
            // What failed first says more than a connection that can't be rolled back, and is dropped.
            let _ = pipeline.rollback().await;
            Err(error)
        }
    }
}

async fn record_in_steps(
    connection: &AsyncPgConnection,
    batch: &Batch,
) -> Result<Recorded, StoreError> {
    let (marked, markings) = events::markings(connection, &batch.events).await?;
    let new = batch.events.iter().filter(|e| marked.contains(&e.key));
    let new: Vec<&RecordedEvent> = new.collect();
    let rows = Rows::write(connection, &new, batch).await?;
    health::merge(connection, &health::fold(rows.results(&new, batch))).await?;
    Ok(rows.into_recorded(markings))
}

/// What the statements on a batch's rows gave back.
struct Rows {
    scheduled: Vec<Scheduled>,
    applied: HashSet<(DeliveryId, i32)>,
}

impl Rows {
    /// Writes everything but the health of webhooks.
    async fn write(
        connection: &AsyncPgConnection,
        new: &[&RecordedEvent],
        batch: &Batch,
    ) -> Result<Self, StoreError> {
        let ((), mut scheduled, ended, parked) = try_join4(
            events::insert(connection, new),
            new_deliveries::insert(connection, new),
            ended::update(connection, &batch.ended),
            parked::update(connection, &batch.parked),
        )
        .await?;
        let mut applied = HashSet::with_capacity(ended.len() + parked.len());
        for row in ended.into_iter().chain(parked) {
            applied.insert(row.applied());
            scheduled.extend(row.into_scheduled());
        }
        Ok(Self { scheduled, applied })
    }

    /// Of the attempts that this batch really added.
    fn results(&self, new: &[&RecordedEvent], batch: &Batch) -> Vec<AttemptResult> {
        let first = new
            .iter()
            .flat_map(|event| &event.deliveries)
            .filter_map(|delivery| {
                let attempt = delivery.attempt.as_ref()?;
                Some(result(
                    delivery.webhook_id,
                    delivery.health_version,
                    attempt,
                ))
            });
        let later = batch
            .ended
            .iter()
            .filter(|end| self.applied.contains(&(end.delivery_id, end.turn)))
            .map(|end| result(end.webhook_id, end.health_version, &end.attempt));
        first.chain(later).collect()
    }

    fn into_recorded(self, markings: HashMap<EventKey, Marking>) -> Recorded {
        Recorded {
            markings,
            scheduled: self.scheduled,
            applied: self.applied,
        }
    }
}

fn result(
    webhook_id: WebhookId,
    health_version: HealthVersion,
    attempt: &Attempt,
) -> AttemptResult {
    AttemptResult {
        webhook_id,
        health_version,
        started_at: attempt.started_at,
        delivered: attempt.is_delivered(),
        response_code: attempt.status().map(i32::from),
    }
}
