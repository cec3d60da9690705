//! Hears of subscription changes and drops their partners from the cache.
//!
//! Reads a queue of its own on `vellocity.subscriptions`; what was announced while there was no link is not heard,
//! so every new link begins with an empty cache.

use broker::subscription::{ALL_KEY, SubscriptionChange};
use broker::{Broker, Consumer, Exchange};
use tokio_util::sync::CancellationToken;

use crate::subscriptions::Subscriptions;

/// Listens on every link until told to stop.
pub async fn listen(subscriptions: Subscriptions, broker: Broker, stop: CancellationToken) {
    while let Some(Some(link)) = stop.run_until_cancelled(broker.link()).await {
        let consumer = link
            .consume_private(Exchange::Subscriptions, ALL_KEY, "subscription changes")
            .await;
        // Only now: an entry that was loaded before the queue was bound may have missed its change.
        subscriptions.forget_all();
        match consumer {
            Ok(consumer) => hear(&subscriptions, consumer, &stop).await,
            Err(error) => {
                tracing::warn!(error = error.line(), "can't listen to subscription changes")
            }
        }
    }
}

async fn hear(subscriptions: &Subscriptions, mut consumer: Consumer, stop: &CancellationToken) {
    while let Some(Some(message)) = stop.run_until_cancelled(consumer.next()).await {
        match SubscriptionChange::read(&message) {
            Ok(change) => subscriptions.forget(change.partner_id),
            // Whatever it was about, its partner is unknown.
            Err(error) => {
                tracing::warn!(error = error.line(), "a subscription change can't be read");
                subscriptions.forget_all();
            }
        }
        message.receipt.ack();
    }
}
