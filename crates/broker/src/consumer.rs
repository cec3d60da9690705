//! Deliveries of one queue, on a channel of their own.
//!
//! Belongs to one [`Link`] and ends with it. A consumer that ends for any reason but [`Consumer::cancel`] takes its
//! link along (the queue was deleted, the broker's consumer time-out struck, the broker refused an acknowledgement):
//! the next link checks the topology and everything starts from there.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::StreamExt;
use futures_util::stream::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::acks::{Command, Commands, Receipt, Settler};
use crate::delivery::Delivery;
use crate::error::BrokerError;
use crate::link::Link;

/// A stream of deliveries. `None`: cancelled and drained, or the link is lost.
///
/// The prefetch starts at 16 (or less) and doubles with each window that was acked in full, up to what was asked for.
/// Dropping the consumer cancels it; what was delivered and not taken from it goes back into the queue as soon as the
/// last receipt is settled.
pub struct Consumer {
    link: Arc<Link>,
    queue: Arc<str>,
    /// The broker's consumer whose deliveries are being handed out.
    round: Option<lapin::Consumer>,
    /// Its successors, made with another prefetch.
    rounds: mpsc::UnboundedReceiver<lapin::Consumer>,
    commands: Commands,
    cancelled: Arc<AtomicBool>,
    lost: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Consumer {
    pub(crate) async fn start(
        link: Arc<Link>,
        channel: lapin::Channel,
        queue: &str,
        prefetch: u16,
        tag: &str,
    ) -> Result<Self, BrokerError> {
        let (commands, orders) = mpsc::unbounded_channel();
        let (next, rounds) = mpsc::unbounded_channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let settler = Settler::start(
            link.clone(),
            channel,
            queue,
            tag,
            prefetch,
            next,
            cancelled.clone(),
        )
        .await?;
        link.tracker().spawn(settler.run(orders));
        Ok(Self {
            lost: Box::pin(link.lost_token().cancelled_owned()),
            link,
            queue: queue.into(),
            round: None,
            rounds,
            commands,
            cancelled,
        })
    }

    /// The queue that is consumed; for a private queue the name that the broker gave it.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The link that this consumer belongs to.
    #[must_use]
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The next delivery. Can be dropped without losing one.
    pub async fn next(&mut self) -> Option<Delivery> {
        StreamExt::next(self).await
    }

    /// Asks the broker for no more. What has arrived already still comes out of the stream, which then ends.
    pub async fn cancel(&self) {
        let (done, cancelled) = oneshot::channel();
        let _ = self.commands.send(Command::Cancel(Some(done)));
        // An error means that the link is lost, which ends the consumer just as well.
        let _ = cancelled.await;
    }

    /// Waits until the broker has read everything that was settled before this call, or the link is lost. A busy quorum
    /// queue may still forget the latest when the connection goes at once: then they are delivered again.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let _ = self.commands.send(Command::Flush(done));
        let _ = flushed.await;
    }

    fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        loop {
            let Some(round) = &mut self.round else {
                match self.rounds.try_recv() {
                    Ok(round) => self.round = Some(round),
                    Err(_) if self.cancelled.load(Ordering::Relaxed) => return Poll::Ready(None),
                    Err(_) => {
                        let why = format!("RabbitMQ ended the consumer of {}", self.queue);
                        self.link.declare_lost(why);
                        return Poll::Ready(None);
                    }
                }
                continue;
            };
            match ready!(round.poll_next_unpin(cx)) {
                Some(Ok(delivery)) => {
                    let tag = delivery.delivery_tag;
                    let receipt = Receipt::new(tag, self.commands.clone());
                    let delivery = Delivery::new(self.queue.clone(), delivery, receipt);
                    return Poll::Ready(Some(delivery));
                }
                Some(Err(error)) => {
                    self.link.declare_lost(error.to_string());
                    return Poll::Ready(None);
                }
                None => self.round = None,
            }
        }
    }
}

impl Stream for Consumer {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        // What is still in the buffer of a lost link will be delivered again: handing it out would be work for nothing.
        if self.link.is_lost() || self.lost.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        self.poll_round(cx)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Cancel(None));
    }
}
