//! The task that owns a consumer's channel. Woken by receipts and by the consumer's handle; tells the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use tokio::sync::{mpsc, oneshot};

use super::Command;
use super::ledger::{Batch, Ledger};
use crate::error::BrokerError;
use crate::link::Link;

/// Most commands that one batch is made of.
const BATCH_MAX: usize = 1024;
/// Deliveries in flight on a new consumer. All of them count towards the delivery limit if the link breaks, so that
/// a consumer that keeps breaking is given few.
pub(crate) const PREFETCH_START: u16 = 16;

/// How long a channel of the broker holds acknowledgements back from a queue that is busy.
const HELD_BACK: Duration = Duration::from_millis(200);

pub(crate) struct Settler {
    link: Arc<Link>,
    channel: Channel,
    queue: String,
    tag: String,
    /// Number of the broker's consumer: a change of prefetch counts for new ones only, so that each has its own.
    round: u32,
    prefetch: u16,
    prefetch_max: u16,
    /// Acks since the prefetch was changed last.
    acked: u32,
    ledger: Ledger,
    /// Where a new round's deliveries are handed to the consumer's handle.
    rounds: mpsc::UnboundedSender<lapin::Consumer>,
    cancelled: Arc<AtomicBool>,
}

impl Settler {
    /// Starts to consume.
    pub async fn start(
        link: Arc<Link>,
        channel: Channel,
        queue: &str,
        tag: &str,
        prefetch: u16,
        rounds: mpsc::UnboundedSender<lapin::Consumer>,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Self, BrokerError> {
        let prefetch_max = prefetch.max(1);
        let mut settler = Self {
            link,
            channel,
            queue: queue.to_owned(),
            tag: tag.to_owned(),
            round: 0,
            prefetch: prefetch_max.min(PREFETCH_START),
            prefetch_max,
            acked: 0,
            ledger: Ledger::default(),
            rounds,
            cancelled,
        };
        settler.next_round().await?;
        Ok(settler)
    }

    /// Works until the link is lost, or nobody is left who could say anything.
    pub async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let link = self.link.clone();
        let work = async {
            let mut buffer = Vec::new();
            while commands.recv_many(&mut buffer, BATCH_MAX).await > 0 {
                gather(&mut commands, &mut buffer).await;
                if let Err(error) = self.step(&mut buffer).await {
                    link.declare_lost(error.line());
                    return;
                }
            }
            // What was delivered and not settled goes back into the queue with the channel.
            let _ = self.channel.close(200, "done".into()).await;
        };
        tokio::select! {
            biased;
            () = link.lost() => {}
            () = work => {}
        }
    }

    async fn step(&mut self, commands: &mut Vec<Command>) -> Result<(), BrokerError> {
        let mut waiting = Vec::new();
        let mut cancel = false;
        let mut flush = false;
        for command in commands.drain(..) {
            match command {
                Command::Ack(tag) => self.acked += u32::from(self.ledger.ack(tag)),
                Command::Nack { tag, requeue } => {
                    self.ledger.nack(tag, requeue);
                }
                Command::Cancel(done) => {
                    cancel = true;
                    waiting.extend(done);
                }
                Command::Flush(done) => {
                    flush = true;
                    waiting.push(done);
                }
            }
        }
        self.settle()
            .await
            .map_err(|e| BrokerError::amqp("take acknowledgements", e))?;
        if cancel {
            self.cancel().await?;
        } else {
            self.raise_prefetch().await?;
        }
        if flush {
            // The broker reads a channel in order: with its answer it has read the acknowledgements. Its channel may
            // hold some of them back for as long as the queue is busy, and forgets those when the connection goes.
            self.set_qos().await?;
            tokio::time::sleep(HELD_BACK).await;
        }
        waiting.into_iter().for_each(done);
        Ok(())
    }

    /// Frames are queued in the order in which these futures are first polled, which is the order of the batch.
    async fn settle(&mut self) -> lapin::Result<()> {
        let Batch {
            nacks,
            cumulative,
            singles,
        } = self.ledger.take();
        let channel = &self.channel;
        try_join_all(nacks.into_iter().map(|(tag, requeue)| {
            // Not a nack: from 4.3 on that does not count towards the delivery limit, and a message that nobody can
            // handle would come back for ever.
            channel.basic_reject(tag, BasicRejectOptions { requeue })
        }))
        .await?;
        let acks = cumulative.into_iter().map(|tag| (tag, true));
        let acks = acks.chain(singles.into_iter().map(|tag| (tag, false)));
        try_join_all(
            acks.map(|(tag, multiple)| channel.basic_ack(tag, BasicAckOptions { multiple })),
        )
        .await?;
        Ok(())
    }

    /// Doubles the prefetch with each window that was acked in full, up to the most.
    async fn raise_prefetch(&mut self) -> Result<(), BrokerError> {
        let is_acked = self.acked >= self.prefetch.into();
        if self.cancelled.load(Ordering::Relaxed) || !is_acked {
            return Ok(());
        }
        if self.prefetch == self.prefetch_max {
            self.acked = 0;
            return Ok(());
        }
        self.prefetch = self.prefetch.saturating_mul(2).min(self.prefetch_max);
        let former = self.round_tag();
        self.next_round().await?;
        self.stop_round(&former).await
    }

    async fn next_round(&mut self) -> Result<(), BrokerError> {
        self.acked = 0;
        self.round += 1;
        self.set_qos().await?;
        let consumer = self
            .channel
            .basic_consume(
                self.queue.as_str().into(),
                self.round_tag().as_str().into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(|e| self.error("let us consume", e))?;
        // The handle may be gone already; then the consumer is dropped here, which cancels it.
        let _ = self.rounds.send(consumer);
        Ok(())
    }

    async fn set_qos(&self) -> Result<(), BrokerError> {
        self.channel
            .basic_qos(self.prefetch, BasicQosOptions::default())
            .await
            .map_err(|e| self.error("set the prefetch of", e))
    }

    fn error(&self, action: &str, source: lapin::Error) -> BrokerError {
        BrokerError::amqp(format!("{action} {}", self.queue), source)
    }

    async fn stop_round(&self, tag: &str) -> Result<(), BrokerError> {
        self.channel
            .basic_cancel(tag.into(), BasicCancelOptions::default())
            .await
            .map_err(|e| self.error("cancel the consumer of", e))
    }

    async fn cancel(&mut self) -> Result<(), BrokerError> {
        if self.cancelled.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.stop_round(&self.round_tag()).await
    }

    fn round_tag(&self) -> String {
        format!("{}.{}", self.tag, self.round)
    }
}

/// Lets those run who are about to settle as well: a batch of rows that is committed wakes hundreds of them, and for the
/// broker each acknowledgement is a command by itself. Where nobody else is ready to run, it is over at once.
async fn gather(commands: &mut mpsc::UnboundedReceiver<Command>, buffer: &mut Vec<Command>) {
    while buffer.len() < BATCH_MAX {
        tokio::task::yield_now().await;
        let before = buffer.len();
        while buffer.len() < BATCH_MAX
            && let Ok(command) = commands.try_recv()
        {
            buffer.push(command);
        }
        if buffer.len() == before {
            return;
        }
    }
}

fn done(waiting: oneshot::Sender<()>) {
    // Whoever waited may have gone away.
    let _ = waiting.send(());
}
