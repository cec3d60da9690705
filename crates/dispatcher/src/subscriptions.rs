//! The cache of subscriptions, by partner and then by event type: matching costs the same with ten webhooks as with
//! a million.
//!
//! Filled from Postgres on demand. Emptied for a partner by [`crate::changes`] when the broker announces a change,
//! wholly after a reconnect, and by age after 30 s whatever breaks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::event::EventType;
use domain::id::{PartnerId, WebhookId};
use domain::webhook::{HealthVersion, Subscription};
use moka::sync::Cache;
use store::keyring::Keyring;
use store::subscription::{PartnerSubscriptions, Unreadable};
use store::{Store, StoreError};

use crate::batch::{Answer, BatchQueue, Batcher, batches};
use crate::metrics::Metrics;

/// How long an entry counts when no announcement of a change arrives.
const ENTRY_LIVES: Duration = Duration::from_secs(30);
/// Partners in one statement.
const LOAD_MAX: usize = 200;
/// Loads of one partner that may be overtaken by changes before the last is used uncached.
const LOADS_MAX: usize = 5;
/// Counters of changes; partners share them by their ids.
const EPOCHS: usize = 4096;

/// What an event of a partner is matched against.
#[derive(Debug, Default)]
pub struct Partner {
    by_type: HashMap<EventType, Vec<Arc<Subscription>>>,
    /// Since which version what happened at a webhook counts.
    health_versions: HashMap<WebhookId, HealthVersion>,
    /// Active webhooks that can't be signed for, because a stored value can't be read. Their deliveries wait.
    unreadable: Vec<Unreadable>,
}

impl Partner {
    /// Active webhooks that subscribe to the type. A suspended partner has none.
    #[must_use]
    pub fn matching(&self, event_type: &EventType) -> &[Arc<Subscription>] {
        self.by_type.get(event_type).map_or(&[], Vec::as_slice)
    }

    /// Those of them that can't be used now.
    pub fn unreadable(&self, event_type: &EventType) -> impl Iterator<Item = &Unreadable> {
        self.unreadable
            .iter()
            .filter(move |u| u.events.iter().any(|e| e == event_type.as_str()))
    }

    /// Since which version what happened at the webhook counts; `None` when it has no active subscription.
    #[must_use]
    pub fn health_version(&self, webhook_id: WebhookId) -> Option<HealthVersion> {
        self.health_versions.get(&webhook_id).copied()
    }

    fn weight(&self) -> u32 {
        let subscriptions: usize = self.by_type.values().map(Vec::len).sum();
        u32::try_from(subscriptions + 1).unwrap_or(u32::MAX)
    }
}

impl From<PartnerSubscriptions> for Partner {
    fn from(stored: PartnerSubscriptions) -> Self {
        let mut partner = Self::default();
        if stored.suspended {
            return partner;
        }
        for subscription in stored.subscriptions.into_iter().map(Arc::new) {
            partner
                .health_versions
                .insert(subscription.webhook_id, subscription.health_version);
            for event_type in &subscription.events {
                partner
                    .by_type
                    .entry(event_type.clone())
                    .or_default()
                    .push(subscription.clone());
            }
        }
        partner.unreadable = stored.unreadable;
        partner
    }
}

#[derive(Clone)]
struct Entry {
    epoch: u64,
    partner: Arc<Partner>,
}

/// The cache; cheap to clone.
#[derive(Clone)]
pub struct Subscriptions {
    cache: Cache<PartnerId, Entry>,
    epochs: Arc<Epochs>,
    loads: Batcher<PartnerId, Option<Arc<Partner>>>,
}

/// The task that loads has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderGone;

/// Loads what is missing.
pub struct Loader {
    queue: BatchQueue<PartnerId, Option<Arc<Partner>>>,
    statements: Statements,
}

struct Statements {
    store: Store,
    keyring: Arc<Keyring>,
    metrics: Metrics,
}

/// Makes both. The cache holds about as many subscriptions, partners counting as one more.
#[must_use]
pub fn subscriptions(
    store: Store,
    keyring: Arc<Keyring>,
    metrics: Metrics,
    cached_max: u64,
) -> (Subscriptions, Loader) {
    let (loads, queue) = batches(LOAD_MAX);
    let cache = Cache::builder()
        .max_capacity(cached_max)
        .weigher(|_, entry: &Entry| entry.partner.weight())
        .time_to_live(ENTRY_LIVES)
        .build();
    let subscriptions = Subscriptions {
        cache,
        epochs: Arc::new(Epochs::default()),
        loads,
    };
    (
        subscriptions,
        Loader {
            queue,
            statements: Statements {
                store,
                keyring,
                metrics,
            },
        },
    )
}

impl Subscriptions {
    /// The partner's subscriptions; `None` when Postgres knows no such partner.
    ///
    /// # Errors
    /// When nobody loads any more: nothing can be said then.
    pub async fn of(&self, partner_id: PartnerId) -> Result<Option<Arc<Partner>>, LoaderGone> {
        let mut loaded = None;
        for _ in 0..LOADS_MAX {
            let epoch = self.epochs.of(partner_id);
            if let Some(entry) = self
                .cache
                .get(&partner_id)
                .filter(|entry| entry.epoch == epoch)
            {
                return Ok(Some(entry.partner));
            }
            let Some(partner) = self.loads.ask(partner_id).await.ok_or(LoaderGone)? else {
                return Ok(None);
            };
            // A change came while it was loaded: this may be the state before it.
            if self.epochs.of(partner_id) == epoch {
                self.cache.insert(
                    partner_id,
                    Entry {
                        epoch,
                        partner: partner.clone(),
                    },
                );
                return Ok(Some(partner));
            }
            loaded = Some(partner);
        }
        Ok(loaded)
    }

    /// Forgets a partner; a load that has begun already is thrown away.
    pub fn forget(&self, partner_id: PartnerId) {
        self.epochs.raise(partner_id);
        self.cache.invalidate(&partner_id);
    }

    /// Forgets everything: changes may have been announced that nobody heard.
    pub fn forget_all(&self) {
        self.epochs.raise_all();
        self.cache.invalidate_all();
    }
}

impl Loader {
    /// Loads until nobody asks any more.
    pub async fn run(self) {
        self.queue.run(self.statements).await;
    }
}

impl Answer<PartnerId, Option<Arc<Partner>>> for Statements {
    const WHAT: &'static str = "load subscriptions";

    async fn answer(
        &self,
        partners: &[PartnerId],
    ) -> Result<Vec<Option<Arc<Partner>>>, StoreError> {
        load(self, partners).await
    }
}

async fn load(
    by: &Statements,
    asked: &[PartnerId],
) -> Result<Vec<Option<Arc<Partner>>>, StoreError> {
    let distinct: Vec<_> = asked
        .iter()
        .copied()
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    let mut connection = by.store.get().await?;
    let found = store::subscription::load_many(&mut connection, &by.keyring, &distinct).await?;
    by.metrics.subscription_loads.inc_by(distinct.len() as u64);
    for unreadable in found.values().flat_map(|partner| &partner.unreadable) {
        tracing::error!(webhook_id = %unreadable.webhook_id, reason = unreadable.reason, "a webhook can't be used: its deliveries wait");
    }
    let partners: HashMap<_, _> = found
        .into_iter()
        .map(|(id, stored)| (id, Arc::new(Partner::from(stored))))
        .collect();
    Ok(asked.iter().map(|id| partners.get(id).cloned()).collect())
}

/// Counts changes, so that what was loaded before one is recognised. Two partners that share a counter only cost
/// each other a load.
struct Epochs(Box<[AtomicU64]>);

impl Default for Epochs {
    fn default() -> Self {
        Self((0..EPOCHS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Epochs {
    fn counter(&self, partner_id: PartnerId) -> Option<&AtomicU64> {
        self.0.get(partner_id.0.unsigned_abs() as usize % EPOCHS)
    }

    fn of(&self, partner_id: PartnerId) -> u64 {
        self.counter(partner_id)
            .map_or(0, |counter| counter.load(Ordering::Acquire))
    }

    fn raise(&self, partner_id: PartnerId) {
        if let Some(counter) = self.counter(partner_id) {
            counter.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn raise_all(&self) {
        for counter in &self.0 {
            counter.fetch_add(1, Ordering::AcqRel);
        }
    }
}
