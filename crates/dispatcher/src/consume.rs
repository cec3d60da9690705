//! What all consumers of the dispatcher have in common: one task a message, over all links to come.

use std::sync::Arc;

use broker::{Broker, BrokerError, Consumer, Delivery, Link};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Handles one message; settles its receipt, or drops it to put the message back. It is told how many others of the same
/// queue are being handled.
pub trait Handle: Send + Sync + 'static {
    fn handle(
        self: Arc<Self>,
        message: Delivery,
        link: Arc<Link>,
        beside: usize,
    ) -> impl Future<Output = ()> + Send;
}

/// A queue and how much of it may be out at a time.
#[derive(Clone, Debug)]
pub struct Source {
    pub queue: String,
    pub prefetch: u16,
}

/// Consumes the sources on every link until `draining`. Then no more is taken, what is being handled is finished,
/// and the rest goes back.
pub async fn consume<H: Handle>(
    handler: Arc<H>,
    sources: Vec<Source>,
    broker: Broker,
    work: TaskTracker,
    draining: CancellationToken,
) {
    while let Some(Some(link)) = draining.run_until_cancelled(broker.link()).await {
        let mut consumers = JoinSet::new();
        match start(&link, &sources).await {
            Ok(started) => {
                for consumer in started {
                    consumers.spawn(take(
                        consumer,
                        handler.clone(),
                        work.clone(),
                        draining.clone(),
                    ));
                }
            }
            Err(error) => tracing::warn!(error = error.line(), "can't consume"),
        }
        consumers.join_all().await;
    }
}

async fn start(link: &Arc<Link>, sources: &[Source]) -> Result<Vec<Consumer>, BrokerError> {
    let mut consumers = Vec::with_capacity(sources.len());
    for source in sources {
        consumers.push(
            link.consume(&source.queue, source.prefetch, "dispatcher")
                .await?,
        );
    }
    Ok(consumers)
}

/// Hands out one consumer's messages. When its link is lost, what is being handled goes on without it.
async fn take<H: Handle>(
    mut consumer: Consumer,
    handler: Arc<H>,
    work: TaskTracker,
    draining: CancellationToken,
) {
    let tasks = TaskTracker::new();
    while let Some(Some(message)) = draining.run_until_cancelled(consumer.next()).await {
        // In a box, since it is large and would be moved thrice on its way into the task, and once more at its end.
        let handling = Box::pin(handler.clone().handle(
            message,
            consumer.link().clone(),
            tasks.len(),
        ));
        tasks.spawn(work.track_future(handling));
    }
    if consumer.link().is_lost() {
        return;
    }
    consumer.cancel().await;
    tasks.close();
    tasks.wait().await;
    consumer.flush().await;
}
