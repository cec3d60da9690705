//! Writes what was decided and what happened, in batches, and has announced what is scheduled.
//!
//! Reads nothing. Writes through [`store::record`], hands scheduled deliveries to [`crate::announce`], and names webhooks
//! that are gone to [`crate::gone`]. Woken by whatever comes in: a batch is all that came while the previous one was
//! written, and what comes within 10 ms until it is worth a commit (see [`mod@gather`]).

mod coming;
mod gather;
mod pending;

use std::sync::Arc;
use std::time::Instant;

use runtime::Backoff;
use store::record::{Batch, EndedAttempt, Marking, ParkedDelivery, Recorded, RecordedEvent};
use store::{Store, StoreError};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::announce::Announcer;
use crate::batch::wait_after;
use crate::blockage::Blockage;
use crate::gone::GoneWebhooks;
use crate::metrics::Metrics;

pub use coming::Coming;
use coming::OnTheirWay;
use gather::gather;
use pending::{Pending, gone, take_repeated};

/// What became of an event, or the words with which Postgres refused its rows for good.
pub type Recording = Result<Marking, String>;

/// Something to record.
#[derive(Debug)]
enum Item {
    Event(Box<RecordedEvent>, oneshot::Sender<Recording>),
    Ended(Box<EndedAttempt>),
    Parked(ParkedDelivery, oneshot::Sender<()>),
}

/// The handle of those who have something to record; cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    sender: mpsc::Sender<Item>,
    on_their_way: OnTheirWay,
}

/// The writers behind it.
pub struct RecordQueue {
    receiver: Mutex<mpsc::Receiver<Item>>,
    on_their_way: OnTheirWay,
    batch_max: usize,
    store: Store,
    announcer: Announcer,
    gone: GoneWebhooks,
    blockage: Blockage,
    metrics: Metrics,
}

/// Makes both ends. A batch holds at most `batch_max` items.
#[must_use]
pub fn recorder(
    store: Store,
    announcer: Announcer,
    gone: GoneWebhooks,
    blockage: Blockage,
    metrics: Metrics,
    batch_max: usize,
) -> (Recorder, Arc<RecordQueue>) {
    let (sender, receiver) = mpsc::channel(batch_max);
    let on_their_way = OnTheirWay::default();
    let queue = RecordQueue {
        receiver: Mutex::new(receiver),
        on_their_way: on_their_way.clone(),
        batch_max,
        store,
        announcer,
        gone,
        blockage,
        metrics,
    };
    let recorder = Recorder {
        sender,
        on_their_way,
    };
    (recorder, Arc::new(queue))
}

impl Recorder {
    /// Says that there will be an event to record.
    pub fn expect_event(&self) -> Coming {
        self.on_their_way.enter()
    }

    /// Records an event; returns once it is committed. `None` when the writers have ended.
    pub async fn event(&self, coming: Coming, event: RecordedEvent) -> Option<Recording> {
        let (sender, receiver) = oneshot::channel();
        let item = Item::Event(Box::new(event), sender);
        // Before it is sent: a writer that takes it must not wait for it.
        drop(coming);
        self.sender.send(item).await.ok()?;
        receiver.await.ok()
    }

    /// Records the end of an attempt whose delivery has a row. Returns at once: should it be lost, the lease ends.
    pub async fn ended(&self, ended: EndedAttempt) {
        // The writers end last, so there is nobody to tell.
        let _ = self.sender.send(Item::Ended(Box::new(ended))).await;
    }

    /// Puts a delivery off; returns once it is committed, or is not the caller's to put off any more.
    pub async fn parked(&self, parked: ParkedDelivery) {
        let (sender, receiver) = oneshot::channel();
        if self.sender.send(Item::Parked(parked, sender)).await.is_ok() {
            let _ = receiver.await;
        }
    }
}

impl RecordQueue {
    /// Writes until nothing more can come. Any number of writers may run on one queue.
    pub async fn run(self: Arc<Self>) {
        // An event that stands in the batch already, under another key.
        let mut put_back = Vec::new();
        loop {
            let mut items = std::mem::take(&mut put_back);
            if items.is_empty() {
                let mut receiver = self.receiver.lock().await;
                let gathered = gather(&mut receiver, &self.on_their_way, self.batch_max).await;
                let Some(gathered) = gathered else { return };
                items = gathered;
            }
            put_back = take_repeated(&mut items);
            self.write(items).await;
        }
    }

    async fn write(&self, items: Vec<Item>) {
        let mut parts = vec![Pending::new(items)];
        while let Some(pending) = parts.pop() {
            match self.commit(&pending.batch).await {
                Ok(recorded) => self.tell(pending, recorded).await,
                Err(_) if pending.len() > 1 => parts.extend(pending.into_halves()),
                Err(error) => self.write_without_bytes(pending, &error).await,
            }
        }
    }

    /// Commits, however long Postgres is away. The only error is one of the data.
    async fn commit(&self, batch: &Batch) -> Result<Recorded, StoreError> {
        let mut backoff = Backoff::default();
        let mut given_up_before = false;
        loop {
            let result = self.try_commit(batch).await;
            match &result {
                Ok(_) | Err(StoreError::Data(_)) => {
                    self.blockage.end();
                    return result;
                }
                // Over with the next try, unless somebody holds a lock for long.
                Err(StoreError::Transient(_)) if !given_up_before => given_up_before = true,
                Err(error) => self.blockage.begin(runtime::exit::chain(error)),
            }
            if let Err(error) = &result {
                wait_after("record", error, &mut backoff).await;
            }
        }
    }

    async fn try_commit(&self, batch: &Batch) -> Result<Recorded, StoreError> {
        let started = Instant::now();
        let mut connection = self.store.get().await?;
        let recorded = store::record::record(&mut connection, batch).await?;
        let rows = batch
            .events
            .iter()
            .map(|e| 1 + e.deliveries.len())
            .sum::<usize>()
            + batch.ended.len()
            + batch.parked.len();
        self.metrics
            .batch("record", rows, started.elapsed().as_secs_f64());
        Ok(recorded)
    }

    /// The row at fault stands alone. What a receiver sent is left out first: nothing else comes unchecked.
    async fn write_without_bytes(&self, mut pending: Pending, error: &StoreError) {
        let error = runtime::exit::chain(error);
        tracing::error!(
            error,
            "Postgres refused a row; recording it without the captured bytes"
        );
        pending.drop_bytes();
        match self.commit(&pending.batch).await {
            Ok(recorded) => self.tell(pending, recorded).await,
            Err(error) => {
                let error = runtime::exit::chain(&error);
                tracing::error!(error, "Postgres refused a row for good");
                for reply in pending.events {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// After the commit: whoever waits may acknowledge, and what is scheduled is announced.
    async fn tell(&self, pending: Pending, recorded: Recorded) {
        runtime::fail_point!("record.committed");
        for (event, reply) in pending.batch.events.iter().zip(pending.events) {
            let marking = recorded
                .markings
                .get(&event.key)
                .copied()
                .unwrap_or(Marking::TakenOver);
            // Whoever waited may be gone; the rows are there all the same.
            let _ = reply.send(Ok(marking));
        }
        for reply in pending.parked {
            let _ = reply.send(());
        }
        self.announcer.announce(recorded.scheduled);
        for (webhook_id, version) in gone(&pending.batch) {
            self.gone.disable(webhook_id, version);
        }
    }
}
