//! Writes what was decided and what happened, in batches, and has announced what is scheduled.
//!
//! Reads nothing. Writes through [`store::record`], disables webhooks that are gone, and hands scheduled deliveries
//! to [`crate::announce`]. Woken by whatever comes in: a batch is all that gathered while the previous one was
//! written, so an idle dispatcher records at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use domain::attempt::Attempt;
use domain::id::{EventId, PartnerId, WebhookId};
use domain::webhook::DisabledReason;
use runtime::Backoff;
use store::record::{Batch, EndedAttempt, Marking, ParkedDelivery, Recorded, RecordedEvent};
use store::{Store, StoreError};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::announce::Announcer;
use crate::batch::wait_after;
use crate::blockage::Blockage;
use crate::metrics::Metrics;
use crate::service::NAME;

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
}

/// The writers behind it.
pub struct RecordQueue {
    receiver: Mutex<mpsc::Receiver<Item>>,
    batch_max: usize,
    store: Store,
    announcer: Announcer,
    blockage: Blockage,
    metrics: Metrics,
}

/// Makes both ends. A batch holds at most `batch_max` items.
#[must_use]
pub fn recorder(
    store: Store,
    announcer: Announcer,
    blockage: Blockage,
    metrics: Metrics,
    batch_max: usize,
) -> (Recorder, Arc<RecordQueue>) {
    let (sender, receiver) = mpsc::channel(batch_max);
    let queue = RecordQueue {
        receiver: Mutex::new(receiver),
        batch_max,
        store,
        announcer,
        blockage,
        metrics,
    };
    (Recorder { sender }, Arc::new(queue))
}

impl Recorder {
    /// Records an event; returns once it is committed. `None` when the writers have ended.
    pub async fn event(&self, event: RecordedEvent) -> Option<Recording> {
        let (sender, receiver) = oneshot::channel();
        self.sender
            .send(Item::Event(Box::new(event), sender))
            .await
            .ok()?;
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
            if items.is_empty()
                && self
                    .receiver
                    .lock()
                    .await
                    .recv_many(&mut items, self.batch_max)
                    .await
                    == 0
            {
                return;
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
        loop {
            let result = self.try_commit(batch).await;
            match &result {
                Ok(_) | Err(StoreError::Data(_)) => {
                    self.blockage.end();
                    return result;
                }
                // Over with the next try.
                Err(StoreError::Transient(_)) => {}
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
        self.metrics
            .record_seconds
            .observe(started.elapsed().as_secs_f64());
        let rows = batch
            .events
            .iter()
            .map(|e| 1 + e.deliveries.len())
            .sum::<usize>()
            + batch.ended.len()
            + batch.parked.len();
        self.metrics.record_rows.observe(rows as f64);
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
            self.disable(webhook_id, version).await;
        }
    }

    /// Should this fail, the next event finds the webhook gone again.
    async fn disable(&self, webhook_id: WebhookId, version: i32) {
        let disabled = async {
            let mut connection = self.store.get().await?;
            store::webhook::disable(
                &mut connection,
                webhook_id,
                version,
                DisabledReason::Gone,
                NAME,
            )
            .await
        };
        match disabled.await {
            Ok(true) => {
                self.metrics.webhooks_gone.inc();
                tracing::info!(%webhook_id, "the receiver answered 410 Gone: webhook disabled");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%webhook_id, error = runtime::exit::chain(&error), "can't disable a webhook that is gone")
            }
        }
    }
}

/// Takes out events whose partner and id stand in the batch before: one statement can't touch a claim twice.
fn take_repeated(items: &mut Vec<Item>) -> Vec<Item> {
    let mut seen: HashSet<(PartnerId, EventId)> = HashSet::new();
    items
        .extract_if(.., |item| match item {
            Item::Event(event, _) => !seen.insert((event.partner_id, event.event_id.clone())),
            Item::Ended(_) | Item::Parked(..) => false,
        })
        .collect()
}

/// A batch with the ways back to those who wait for it, in the same order.
struct Pending {
    batch: Batch,
    events: Vec<oneshot::Sender<Recording>>,
    parked: Vec<oneshot::Sender<()>>,
}

impl Pending {
    fn new(items: Vec<Item>) -> Self {
        let mut pending = Self {
            batch: Batch::default(),
            events: Vec::new(),
            parked: Vec::new(),
        };
        for item in items {
            match item {
                Item::Event(event, reply) => {
                    pending.batch.events.push(*event);
                    pending.events.push(reply);
                }
                Item::Ended(ended) => pending.batch.ended.push(*ended),
                Item::Parked(parked, reply) => {
                    pending.batch.parked.push(parked);
                    pending.parked.push(reply);
                }
            }
        }
        pending
    }

    fn len(&self) -> usize {
        self.batch.events.len() + self.batch.ended.len() + self.batch.parked.len()
    }

    fn into_halves(self) -> [Self; 2] {
        let events = self
            .batch
            .events
            .into_iter()
            .zip(self.events)
            .map(|(e, r)| Item::Event(Box::new(e), r));
        let ended = self
            .batch
            .ended
            .into_iter()
            .map(|e| Item::Ended(Box::new(e)));
        let parked = self
            .batch
            .parked
            .into_iter()
            .zip(self.parked)
            .map(|(p, r)| Item::Parked(p, r));
        let mut items: Vec<_> = events.chain(ended).chain(parked).collect();
        let half = items.split_off(items.len() / 2);
        [Self::new(half), Self::new(items)]
    }

    fn drop_bytes(&mut self) {
        let firsts = self
            .batch
            .events
            .iter_mut()
            .flat_map(|e| &mut e.deliveries)
            .filter_map(|d| d.attempt.as_mut());
        for attempt in firsts.chain(self.batch.ended.iter_mut().map(|e| &mut e.attempt)) {
            if let Some(response) = attempt.response.as_mut() {
                response.headers = Bytes::new();
                response.body = Bytes::new();
            }
        }
    }
}

/// Webhooks that answered 410, with the version that was sent.
fn gone(batch: &Batch) -> HashSet<(WebhookId, i32)> {
    let first = batch.events.iter().flat_map(|e| &e.deliveries);
    let first = first.filter(|d| d.attempt.as_ref().is_some_and(Attempt::is_gone));
    let later = batch.ended.iter().filter(|e| e.attempt.is_gone());
    first
        .map(|d| (d.webhook_id, d.webhook_version))
        .chain(later.map(|e| (e.webhook_id, e.sent_version)))
        .collect()
}
