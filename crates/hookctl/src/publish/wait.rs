//! What became of an event: rejected, a duplicate, or delivered to webhooks.
//!
//! Reads `claims`, `dead_letters` and `deliveries` again and again. Which rows there were before the event was
//! published is noted first, so that an earlier event of the same id is not taken for it.

use std::time::Duration;

use domain::content_hash::{ContentHash, content_hash};
use domain::delivery::DeliveryStatus;
use domain::id::{EventId, PartnerId};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use store::claim::{self, Known};
use store::dead_letter::{self, Line, Summary};
use store::delivery::{self, DeliveryView};
use store::{Connection, Store};
use tokio::time::Instant;

use super::Outgoing;
use crate::answer::Answer;
use crate::deliveries;
use crate::error::{Error, exit};

/// Pauses between two looks: short for what is quick, longer for what takes its time.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How things stood before the event was published.
pub struct Watch {
    store: Store,
    /// Partner and id, where they can be those of an event at all.
    key: Option<(PartnerId, EventId)>,
    id: String,
    traceparent: String,
    content_hash: Option<ContentHash>,
    /// The claim that was there already.
    prior: Option<Known>,
    last_rejected: i64,
}

/// What is known of the event.
pub enum Fate {
    Rejected(Box<Summary>),
    /// It had been recorded before; the deliveries are those of that time.
    Duplicate(Vec<DeliveryView>),
    /// With a delivery for every webhook that matched, all of them ended.
    Finished(Vec<DeliveryView>),
    /// Not all deliveries have ended in time, or nothing is known of the event at all.
    Unfinished(Vec<DeliveryView>),
}

impl Watch {
    /// Notes how things stand.
    ///
    /// # Errors
    /// When Postgres can't be asked.
    pub async fn begin(store: Store, event: &Outgoing) -> Result<Self, Error> {
        let mut conn = store.get().await?;
        let key = event
            .id
            .parse()
            .ok()
            .map(|id| (PartnerId(event.partner_id), id));
        let prior = match &key {
            Some((partner, id)) => claim::look_up(&mut conn, *partner, id).await?,
            None => None,
        };
        let newest = dead_letter::list(&mut conn, Line::Rejected, None, 1).await?;
        drop(conn);
        Ok(Self {
            store,
            key,
            id: event.id.clone(),
            traceparent: event.trace.traceparent().unwrap_or_default().to_owned(),
            content_hash: hash(event),
            prior,
            last_rejected: newest.first().map_or(0, |row| row.id),
        })
    }

    /// Looks until the event has ended in one way or another, or `limit` has passed.
    ///
    /// # Errors
    /// When Postgres can't be asked.
    pub async fn until(self, limit: Duration) -> Result<Fate, Error> {
        let deadline = Instant::now() + limit;
        let mut pause = PAUSE_MIN;
        loop {
            let fate = self.look().await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !matches!(fate, Fate::Unfinished(_)) {
                return Ok(fate);
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = pause.mul_f64(1.5).min(PAUSE_MAX);
        }
    }

    async fn look(&self) -> Result<Fate, Error> {
        let mut conn = self.store.get().await?;
        if let Some(prior) = self.duplicate_of() {
            let deliveries = delivery::of_event(&mut conn, prior.event_key).await?;
            return Ok(Fate::Duplicate(deliveries));
        }
        let found = dead_letter::of_trace(
            &mut conn,
            Line::Rejected,
            self.last_rejected,
            &self.traceparent,
        )
        .await?;
        // A trace that was given may have other events in it.
        let ours = |row: &Summary| row.event_id.as_ref().is_none_or(|id| *id == self.id);
        if let Some(row) = found.into_iter().find(ours) {
            return Ok(Fate::Rejected(Box::new(row)));
        }
        self.deliveries(&mut conn).await
    }

    /// The claim of the same event, recorded before this copy was published.
    fn duplicate_of(&self) -> Option<&Known> {
        self.prior.as_ref().filter(|prior| {
            prior.recorded
                && Some(prior.content_hash.as_slice())
                    == self.content_hash.as_ref().map(|h| h.as_slice())
        })
    }

    async fn deliveries(&self, conn: &mut Connection) -> Result<Fate, Error> {
        let claim = match &self.key {
            Some((partner, id)) => claim::look_up(conn, *partner, id).await?,
            None => None,
        };
        let was_before = |claim: &Known| {
            self.prior
                .as_ref()
                .is_some_and(|prior| prior.recorded && prior.event_key == claim.event_key)
        };
        match claim {
            Some(claim) if claim.recorded && !was_before(&claim) => {
                let deliveries = delivery::of_event(conn, claim.event_key).await?;
                if deliveries.iter().all(deliveries::is_final) {
                    Ok(Fate::Finished(deliveries))
                } else {
                    Ok(Fate::Unfinished(deliveries))
                }
            }
            _ => Ok(Fate::Unfinished(Vec::new())),
        }
    }
}

/// As the dispatcher hashes it; `None` for what it will reject.
fn hash(event: &Outgoing) -> Option<ContentHash> {
    let event_type = event.event_type.parse().ok()?;
    let data: Box<RawValue> = serde_json::from_slice(&event.data).ok()?;
    content_hash(&event_type, &data).ok()
}

impl Fate {
    #[must_use]
    pub fn answer(&self, event: &Outgoing) -> Answer {
        let id = &event.id;
        let (outcome, rest, exit_code) = match self {
            Self::Rejected(row) => (
                "rejected",
                json!({"rejection": {"code": row.code, "reason": row.reason}}),
                exit::REFUSED,
            ),
            Self::Duplicate(deliveries) => ("duplicate", listed(deliveries), exit::OK),
            Self::Finished(deliveries) => {
                let delivered = DeliveryStatus::Delivered.as_str();
                let all = deliveries.iter().all(|d| d.status == delivered);
                let code = if all { exit::OK } else { exit::REFUSED };
                ("finished", listed(deliveries), code)
            }
            Self::Unfinished(deliveries) => ("unfinished", listed(deliveries), exit::REFUSED),
        };
        let mut document = json!({"id": id, "confirmed": true, "outcome": outcome});
        if let (Some(document), Value::Object(rest)) = (document.as_object_mut(), rest) {
            document.extend(rest);
        }
        Answer::new(document, format!("{id} confirmed\n{}", self.text())).with_exit_code(exit_code)
    }

    fn text(&self) -> String {
        match self {
            Self::Rejected(row) => format!("rejected: {} ({})\n", row.reason, row.code),
            Self::Duplicate(deliveries) => format!(
                "a duplicate of an event that was recorded before\n{}",
                deliveries::table(deliveries).render_or("no webhook matched then")
            ),
            Self::Finished(deliveries) => {
                deliveries::table(deliveries).render_or("no webhook matched")
            }
            Self::Unfinished(deliveries) => format!(
                "not finished in time\n{}",
                deliveries::table(deliveries).render_or("nothing is known of it yet")
            ),
        }
    }
}

fn listed(deliveries: &[DeliveryView]) -> Value {
    json!({"deliveries": deliveries.iter().map(deliveries::document).collect::<Vec<_>>()})
}
