//! Disables webhooks whose receiver answered 410 Gone.
//!
//! [`crate::record`] names them after its commit and goes on: each one takes a transaction that waits for whoever holds the
//! webhook's row, and everybody's events wait for the next record. Writes through [`store::webhook::disable`].

use domain::id::WebhookId;
use domain::webhook::DisabledReason;
use store::Store;
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::service::NAME;

/// Webhooks that wait to be disabled.
const WAITING_MAX: usize = 1000;

/// The handle of those who find webhooks gone; cheap to clone.
#[derive(Clone, Debug)]
pub struct GoneWebhooks(mpsc::Sender<(WebhookId, i32)>);

/// The task behind it.
pub struct GoneQueue {
    receiver: mpsc::Receiver<(WebhookId, i32)>,
    store: Store,
    metrics: Metrics,
}

/// Makes both ends.
#[must_use]
pub fn gone_webhooks(store: Store, metrics: Metrics) -> (GoneWebhooks, GoneQueue) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let queue = GoneQueue {
        receiver,
        store,
        metrics,
    };
    (GoneWebhooks(sender), queue)
}

impl GoneWebhooks {
    /// Has a webhook disabled, unless it was changed since that version. Returns at once: should it be forgotten, the next
    /// event finds the webhook gone again.
    pub fn disable(&self, webhook_id: WebhookId, version: i32) {
        let _ = self.0.try_send((webhook_id, version));
    }
}

impl GoneQueue {
    /// Disables one after the other until nobody names any more.
    pub async fn run(mut self) {
        while let Some((webhook_id, version)) = self.receiver.recv().await {
            self.disable(webhook_id, version).await;
        }
    }

    async fn disable(&self, webhook_id: WebhookId, version: i32) {
        let disabled = async {
            let mut connection = self.store.get().await?;
            let reason = DisabledReason::Gone;
            store::webhook::disable(&mut connection, webhook_id, version, reason, NAME).await
        };
        match disabled.await {
            Ok(true) => {
                self.metrics.webhooks_gone.inc();
                tracing::info!(%webhook_id, "the receiver answered 410 Gone: webhook disabled");
            }
            Ok(false) => {}
            Err(error) => {
                let error = runtime::exit::chain(&error);
                tracing::warn!(%webhook_id, error, "can't disable a webhook that is gone");
            }
        }
    }
}
