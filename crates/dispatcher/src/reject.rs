//! Turns away events that can't be used.
//!
//! Publishes them to `rejected` with a code and a sentence. Where the broker refuses, the row that the retry service
//! would have made of it is written here. Only what the broker or Postgres has confirmed is acknowledged.

use broker::dead_letter::DeadLetter;
use broker::{Delivery, Publisher};
use domain::rejection::Rejection;
use store::Store;
use store::dead_letter::{Line, NewDeadLetter};

use crate::metrics::Metrics;

pub struct Rejecter {
    pub publisher: Publisher,
    pub store: Store,
    pub metrics: Metrics,
}

impl Rejecter {
    /// Settles the message; it goes back to its queue when nobody confirmed its rejection.
    pub async fn reject(&self, message: Delivery, rejection: &Rejection) {
        tracing::info!(code = %rejection.code, reason = rejection.reason, routing_key = message.routing_key, "event rejected");
        let letter = DeadLetter::rejected(&message, rejection);
        if self.is_kept(&letter).await {
            self.metrics
                .rejections
                .with_label_values(&[rejection.code.as_str()])
                .inc();
            message.receipt.ack();
        }
    }

    async fn is_kept(&self, letter: &DeadLetter) -> bool {
        let Err(refused) = self.publisher.publish(letter.message()).await else {
            return true;
        };
        match self.write(letter).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%refused, error = runtime::exit::chain(&error), "nobody keeps a rejected event");
                false
            }
        }
    }

    async fn write(&self, letter: &DeadLetter) -> Result<(), store::StoreError> {
        let mut connection = self.store.get().await?;
        store::dead_letter::insert(&mut connection, &[row(letter)]).await?;
        Ok(())
    }
}

fn row(letter: &DeadLetter) -> NewDeadLetter {
    NewDeadLetter {
        line: Line::Rejected,
        message_id: letter.message_id.clone(),
        code: letter.code.clone(),
        reason: letter.reason.clone(),
        exchange: letter.exchange.clone(),
        routing_key: letter.routing_key.clone(),
        event_id: letter.event_id.clone(),
        event_type: letter.event_type.clone(),
        partner_id: letter.partner_id.clone(),
        app_id: letter.app_id.clone(),
        content_type: letter.content_type.clone(),
        traceparent: letter.trace.traceparent().map(str::to_owned),
        tracestate: letter.trace.tracestate().map(str::to_owned),
        body: letter.body.to_vec(),
    }
}
