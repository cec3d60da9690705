//! How full the queues are.

use super::declare::passive;
use super::{Step, steps};
use crate::error::BrokerError;
use crate::link::Link;

/// One queue as the broker sees it at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDepth {
    pub name: String,
    /// Messages that wait to be delivered; those that a consumer holds do not count. `None`: there is no such queue.
    pub ready: Option<u32>,
    pub consumers: u32,
}

/// Depths of all queues, in the topology's order.
///
/// # Errors
/// When the link breaks. A queue that is missing is an answer.
pub async fn depths(link: &Link) -> Result<Vec<QueueDepth>, BrokerError> {
    let mut depths = Vec::new();
    let mut channel = link.open_channel().await?;
    for step in steps(link.config()) {
        let Step::Queue { name, .. } = step else {
            continue;
        };
        match passive(&channel, &name).await {
            Ok(queue) => depths.push(QueueDepth {
                ready: Some(queue.message_count()),
                consumers: queue.consumer_count(),
                name,
            }),
            Err(error) if error.is_amqp_soft_error() => {
                // The broker closes a channel that asked for a queue that is not there.
                channel = link.open_channel().await?;
                depths.push(QueueDepth {
                    name,
                    ready: None,
                    consumers: 0,
                });
            }
            Err(source) => return Err(BrokerError::amqp(format!("find {name}"), source)),
        }
    }
    Ok(depths)
}
