//! A batch on its way: its rows, and the ways back to those who wait for them.

use std::collections::HashSet;

use bytes::Bytes;
use domain::attempt::Attempt;
use domain::id::{EventId, PartnerId, WebhookId};
use store::record::Batch;
use tokio::sync::oneshot;

use super::{Item, Recording};

/// Takes out events whose partner and id stand in the batch before: one statement can't touch a claim twice.
pub(super) fn take_repeated(items: &mut Vec<Item>) -> Vec<Item> {
    let mut seen: HashSet<(PartnerId, EventId)> = HashSet::new();
    items
        .extract_if(.., |item| match item {
            Item::Event(event, _) => !seen.insert((event.partner_id, event.event_id.clone())),
            Item::Ended(_) | Item::Parked(..) => false,
        })
        .collect()
}

/// A batch with the ways back to those who wait for it, in the same order.
pub(super) struct Pending {
    pub(super) batch: Batch,
    pub(super) events: Vec<oneshot::Sender<Recording>>,
    pub(super) parked: Vec<oneshot::Sender<()>>,
}

impl Pending {
    pub(super) fn new(items: Vec<Item>) -> Self {
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

    pub(super) fn len(&self) -> usize {
        self.batch.events.len() + self.batch.ended.len() + self.batch.parked.len()
    }

    pub(super) fn into_halves(self) -> [Self; 2] {
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

    pub(super) fn drop_bytes(&mut self) {
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
pub(super) fn gone(batch: &Batch) -> HashSet<(WebhookId, i32)> {
    let first = batch.events.iter().flat_map(|e| &e.deliveries);
    let first = first.filter(|d| d.attempt.as_ref().is_some_and(Attempt::is_gone));
    let later = batch.ended.iter().filter(|e| e.attempt.is_gone());
    first
        .map(|d| (d.webhook_id, d.webhook_version))
        .chain(later.map(|e| (e.webhook_id, e.sent_version)))
        .collect()
}
