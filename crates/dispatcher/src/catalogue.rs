//! The catalogue of event types, with the schemas that events' data are held against.
//!
//! Read from Postgres and kept for 30 s. That a type is unknown is never said from memory: a type that is not here
//! is looked for in Postgres first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use domain::event::{Event, EventType};
use domain::rejection::{Rejection, RejectionCode};
use jsonschema::Validator;
use runtime::Backoff;
use serde_json::Value;
use store::event_type::CatalogueEntry;
use store::{Store, StoreError};
use tokio::sync::Mutex;

use crate::batch::wait_after;

/// Age from which the catalogue is read again.
const LIVES: Duration = Duration::from_secs(30);
/// Longest description of a violation, in characters: it may quote the schema.
const VIOLATION_CHARS_MAX: usize = 300;

struct Loaded {
    /// When the statement began that found this.
    at: Instant,
    schemas: HashMap<EventType, Arc<Schema>>,
}

/// What an event's data must be like.
enum Schema {
    /// Any object, which data always is.
    Any,
    Checked(Box<Validator>),
}

pub struct Catalogue {
    loaded: ArcSwap<Option<Loaded>>,
    loading: Mutex<()>,
    store: Store,
}

impl Catalogue {
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            loaded: ArcSwap::from_pointee(None),
            loading: Mutex::new(()),
            store,
        }
    }

    /// Checks the event's type and data.
    ///
    /// # Errors
    /// When the type is unknown, or the data breaks its schema.
    pub async fn check(&self, event: &Event) -> Result<(), Rejection> {
        let asked_at = Instant::now();
        let schema = match self.find(&event.event_type, asked_at.checked_sub(LIVES)) {
            Some(schema) => Some(schema),
            None => {
                self.load_since(asked_at).await;
                self.find(&event.event_type, None)
            }
        };
        match schema.as_deref() {
            None => Err(Rejection::new(
                RejectionCode::UnknownType,
                format!(
                    "The type {} is not in the catalogue of event types.",
                    event.event_type
                ),
            )),
            Some(Schema::Any) => Ok(()),
            Some(Schema::Checked(validator)) => validate(validator, event),
        }
    }

    fn find(&self, event_type: &EventType, not_before: Option<Instant>) -> Option<Arc<Schema>> {
        let loaded = self.loaded.load();
        let loaded = (**loaded)
            .as_ref()
            .filter(|l| not_before.is_none_or(|at| l.at >= at))?;
        loaded.schemas.get(event_type).cloned()
    }

    /// Reads the catalogue, unless somebody did after `moment`. Waits for Postgres as long as it takes.
    async fn load_since(&self, moment: Instant) {
        let _one_at_a_time = self.loading.lock().await;
        if (**self.loaded.load())
            .as_ref()
            .is_some_and(|loaded| loaded.at >= moment)
        {
            return;
        }
        let mut backoff = Backoff::default();
        loop {
            let at = Instant::now();
            match self.load().await {
                Ok(entries) => {
                    self.loaded.store(Arc::new(Some(Loaded {
                        at,
                        schemas: compile(entries),
                    })));
                    return;
                }
                Err(error) => wait_after("read the catalogue", &error, &mut backoff).await,
            }
        }
    }

    async fn load(&self) -> Result<Vec<CatalogueEntry>, StoreError> {
        let mut connection = self.store.get().await?;
        store::event_type::list(&mut connection).await
    }
}

fn compile(entries: Vec<CatalogueEntry>) -> HashMap<EventType, Arc<Schema>> {
    entries
        .into_iter()
        .map(|entry| {
            let schema = schema_of(&entry);
            (entry.name, Arc::new(schema))
        })
        .collect()
}

/// A schema that can't be used is ours to mend, and no reason to turn events away.
fn schema_of(entry: &CatalogueEntry) -> Schema {
    let Ok(schema) = serde_json::from_str::<Value>(entry.schema.get()) else {
        return Schema::Any;
    };
    if schema == serde_json::json!({"type": "object"}) {
        return Schema::Any;
    }
    match jsonschema::validator_for(&schema) {
        Ok(validator) => Schema::Checked(Box::new(validator)),
        Err(error) => {
            tracing::error!(event_type = %entry.name, %error, "the schema of an event type can't be used");
            Schema::Any
        }
    }
}

fn validate(validator: &Validator, event: &Event) -> Result<(), Rejection> {
    let data: Value = serde_json::from_slice(&event.data).map_err(|_| {
        let reason =
            "data holds a string that is no Unicode text, such as half of a surrogate pair.";
        Rejection::new(RejectionCode::InvalidData, reason)
    })?;
    let Some(violation) = validator.iter_errors(&data).next() else {
        return Ok(());
    };
    let place = violation.instance_path().to_string();
    // Masked: a reason never repeats what an event holds.
    let what: String = violation
        .masked()
        .to_string()
        .chars()
        .take(VIOLATION_CHARS_MAX)
        .collect();
    let reason = format!(
        "The event's data{place} breaks the schema of {}: {what}.",
        event.event_type
    );
    Err(Rejection::new(RejectionCode::SchemaViolation, reason))
}
