//! Acknowledgements. Each consumer has a channel of its own and one task that does everything on it: settles
//! deliveries in batches, and raises the prefetch.
//!
//! A [`Receipt`] tells the task what became of its delivery; the task takes all that is waiting, asks [`ledger`] what
//! to say, and says it. So acks are batched by load alone, without a timer. The task ends with its link, and with it
//! every receipt that is still out: the broker has put those messages back already.

mod ledger;
mod settler;

use tokio::sync::{mpsc, oneshot};

pub(crate) use settler::Settler;

pub(crate) enum Command {
    Ack(u64),
    Nack { tag: u64, requeue: bool },
    Cancel(Option<oneshot::Sender<()>>),
    Flush(oneshot::Sender<()>),
}

/// Unbounded, but never longer than the prefetch window: each delivery is settled once.
pub(crate) type Commands = mpsc::UnboundedSender<Command>;

/// The duty to settle one delivery. Dropped without a word it puts the message back into its queue.
#[derive(Debug)]
#[must_use = "a receipt that is dropped puts its message back into the queue"]
pub struct Receipt {
    tag: u64,
    commands: Option<Commands>,
}

impl Receipt {
    pub(crate) fn new(tag: u64, commands: Commands) -> Self {
        Self {
            tag,
            commands: Some(commands),
        }
    }

    pub(crate) fn detached() -> Self {
        Self {
            tag: 0,
            commands: None,
        }
    }

    /// The delivery tag: counts from 1 for each consumer and link.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// The message is done with.
    pub fn ack(mut self) {
        let tag = self.tag;
        self.send(Command::Ack(tag));
    }

    /// Puts the message back into its queue. It counts towards the delivery limit.
    pub fn requeue(mut self) {
        let tag = self.tag;
        self.send(Command::Nack { tag, requeue: true });
    }

    /// Sends the message to the dead letters, if its queue has any.
    pub fn reject(mut self) {
        let tag = self.tag;
        self.send(Command::Nack {
            tag,
            requeue: false,
        });
    }

    fn send(&mut self, command: Command) {
        if let Some(commands) = self.commands.take() {
            // Of an older generation: nobody is left to hear it, and nobody has to.
            let _ = commands.send(command);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let tag = self.tag;
        self.send(Command::Nack { tag, requeue: true });
    }
}
