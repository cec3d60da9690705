//! Postgres: the truth about partners, webhooks, events and deliveries. The only crate that imports diesel.
//!
//! Query functions are free functions that take a connection, one file a noun; who calls them owns the transaction.

pub mod api_key;
pub mod claim;
pub mod dead_letter;
pub mod delivery;
pub mod error;
pub mod event_type;
pub mod health;
pub mod idempotency;
pub mod keyring;
pub mod migrations;
pub mod outbox;
pub mod partition;
pub mod partner;
pub mod pool;
mod prepared;
pub mod rate_limit;
pub mod record;
pub mod schema;
pub mod service_instance;
pub mod subscription;
pub mod webhook;

pub use error::StoreError;
pub use pool::{Config, Connection, Session, Store, Transaction};
