//! Moves what ended in the queues `rejected` and `dead` into rows, where people can list it, send it again and drop it.
//!
//! Reads both queues; writes `dead_letters`. A message is acknowledged once its row is committed, so that one which is
//! delivered twice may be written twice, unless we sent it there ourselves and gave it an id. `hookctl` reads the rows;
//! [`crate::trim`] keeps their age and size within caps.

use broker::topology::{DEAD_QUEUE, REJECTED_QUEUE};
use broker::{Broker, Consumer, DeadLetter, Delivery, Line};
use futures_util::FutureExt as _;
use runtime::{Backoff, Shutdown};
use store::dead_letter::{self, NewDeadLetter};
use store::{Store, StoreError};

use crate::metrics::Metrics;
use crate::presence::{PostgresIsUp, until_up};

/// Both lines.
pub const LINES: [Line; 2] = [Line::Rejected, Line::Dead];

/// What moving one line's messages needs.
#[derive(Clone)]
pub struct DeadLetters {
    pub store: Store,
    pub metrics: Metrics,
    pub line: Line,
    /// Messages moved by one transaction, and delivered at a time.
    pub batch: u16,
}

impl DeadLetters {
    /// Moves messages over all links to come, until the service ends. Nothing is consumed while Postgres is away.
    pub async fn run(&self, broker: &Broker, up: &PostgresIsUp, shutdown: &Shutdown) {
        let queue = queue(self.line);
        let mut backoff = Backoff::default();
        while until_up(up, shutdown).await {
            let link = tokio::select! {
                () = shutdown.begun() => return,
                link = broker.link() => link,
            };
            let Some(link) = link else { return };
            let ended = match link.consume(queue, self.batch, "retry.dead_letters").await {
                Ok(consumer) => self.work(consumer, shutdown, &mut backoff).await,
                Err(error) => {
                    tracing::warn!(queue, error = %error.line(), "can't consume");
                    Ok(())
                }
            };
            if let Err(error) = ended {
                self.metrics.step_failed("dead_letters", &error);
                tokio::select! {
                    () = shutdown.begun() => return,
                    () = tokio::time::sleep(backoff.next_delay()) => {}
                }
            }
        }
    }

    /// Moves what one consumer gets, until its link is lost, Postgres fails, or the service ends. What was not moved
    /// goes back to its queue with the consumer.
    async fn work(
        &self,
        mut consumer: Consumer,
        shutdown: &Shutdown,
        backoff: &mut Backoff,
    ) -> Result<(), StoreError> {
        loop {
            let first = tokio::select! {
                () = shutdown.begun() => break,
                delivery = consumer.next() => match delivery {
                    Some(delivery) => delivery,
                    None => return Ok(()),
                },
            };
            let mut batch = vec![first];
            while batch.len() < usize::from(self.batch)
                && let Some(Some(delivery)) = consumer.next().now_or_never()
            {
                batch.push(delivery);
            }
            self.keep(batch).await?;
            backoff.reset();
        }
        consumer.cancel().await;
        consumer.flush().await;
        Ok(())
    }

    /// Writes a batch and acknowledges it.
    ///
    /// # Errors
    /// When Postgres fails; the messages then go back to their queue.
    pub async fn keep(&self, batch: Vec<Delivery>) -> Result<(), StoreError> {
        let rows: Vec<_> = batch
            .iter()
            .map(|delivery| row(DeadLetter::read(self.line, delivery)))
            .collect();
        let mut connection = self.store.get().await?;
        match dead_letter::insert(&mut connection, &rows).await {
            Ok(_) => {}
            Err(StoreError::Data(_)) => {
                for row in &rows {
                    self.keep_alone(&mut connection, row).await?;
                }
            }
            Err(error) => return Err(error),
        }
        drop(connection);
        self.metrics
            .dead_letters_moved(self.line.as_str(), batch.len());
        for delivery in batch {
            delivery.receipt.ack();
        }
        Ok(())
    }

    /// A message that Postgres does not take as it is must not hold up the others, nor be lost: its body and its place
    /// are kept, and the texts of strangers are not.
    async fn keep_alone(
        &self,
        connection: &mut store::Connection,
        row: &NewDeadLetter,
    ) -> Result<(), StoreError> {
        match dead_letter::insert(connection, std::slice::from_ref(row)).await {
            Ok(_) => Ok(()),
            Err(StoreError::Data(error)) => {
                tracing::warn!(%error, "a dead letter is kept without the texts that came with it");
                dead_letter::insert(connection, &[bare(row)])
                    .await
                    .map(drop)
            }
            Err(error) => Err(error),
        }
    }
}

/// The queue of a line.
#[must_use]
pub fn queue(line: Line) -> &'static str {
    match line {
        Line::Rejected => REJECTED_QUEUE,
        Line::Dead => DEAD_QUEUE,
    }
}

/// `store` and `broker` don't know each other.
#[must_use]
pub fn stored(line: Line) -> dead_letter::Line {
    match line {
        Line::Rejected => dead_letter::Line::Rejected,
        Line::Dead => dead_letter::Line::Dead,
    }
}

fn row(letter: DeadLetter) -> NewDeadLetter {
    NewDeadLetter {
        line: stored(letter.line),
        message_id: letter.message_id,
        code: letter.code,
        reason: letter.reason,
        exchange: letter.exchange,
        routing_key: letter.routing_key,
        event_id: letter.event_id,
        event_type: letter.event_type,
        partner_id: letter.partner_id,
        app_id: letter.app_id,
        content_type: letter.content_type,
        traceparent: letter.trace.traceparent().map(str::to_owned),
        tracestate: letter.trace.tracestate().map(str::to_owned),
        body: letter.body.into(),
    }
}

fn bare(row: &NewDeadLetter) -> NewDeadLetter {
    NewDeadLetter {
        line: row.line,
        message_id: None,
        code: "unstorable".to_owned(),
        reason: "Postgres did not take the texts that came with the message.".to_owned(),
        exchange: row.exchange.clone(),
        routing_key: row.routing_key.clone(),
        event_id: None,
        event_type: None,
        partner_id: None,
        app_id: None,
        content_type: None,
        traceparent: None,
        tracestate: None,
        body: row.body.clone(),
    }
}

#[cfg(test)]
mod tests {
    use broker::{Exchange, Message};
    use domain::rejection::{Rejection, RejectionCode};

    use super::*;

    #[test]
    fn a_rejected_event_becomes_a_row_with_all_that_a_person_wants_to_know() {
        let body = br#"{"id":"evt_1","type":"listing.unknown","partner_id":42}"#.as_slice();
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let published = Message::new(Exchange::Events, "listing.unknown", body)
            .app_id("listings")
            .header("partner_id", "42")
            .header("traceparent", parent);
        let event = Delivery::detached("q", published).unwrap();
        let rejection = Rejection::new(RejectionCode::UnknownType, "No such type.");
        let rejected = DeadLetter::rejected(&event, &rejection).message();
        let delivery = Delivery::detached(REJECTED_QUEUE, rejected).unwrap();

        let row = row(DeadLetter::read(Line::Rejected, &delivery));
        assert_eq!(row.line, dead_letter::Line::Rejected);
        assert!(row.message_id.is_some());
        assert_eq!(
            (row.code.as_str(), row.reason.as_str()),
            ("unknown_type", "No such type.")
        );
        assert_eq!(row.exchange, "vellocity.events");
        assert_eq!(row.routing_key, "listing.unknown");
        assert_eq!(row.event_id.as_deref(), Some("evt_1"));
        assert_eq!(row.event_type.as_deref(), Some("listing.unknown"));
        assert_eq!(row.partner_id.as_deref(), Some("42"));
        assert_eq!(row.app_id.as_deref(), Some("listings"));
        assert_eq!(row.traceparent.as_deref(), Some(parent));
        assert_eq!(row.body, body);
        for delivery in [event, delivery] {
            delivery.receipt.ack();
        }
    }
}
