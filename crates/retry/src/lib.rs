//! The retry service: what failed waits in delay buckets until it is due, what was forgotten is announced again, and
//! what nobody can use ends in rows for people. It also keeps the tables: partitions, retention, and what is trimmed.
//!
//! ```text
//! dispatcher ──[deliveries failed]──> place ──[delay buckets]──> [deliveries due] ──> dispatcher
//!                                     sweep ──────────────────────────^
//! [rejected], [dead] ──> dead_letters ──> rows ──> hookctl
//! ```
//!
//! Postgres is the truth about deliveries and RabbitMQ the clock, so that everything here may be lost, late or done
//! twice without harm, and any number of retry services may run at once.

pub mod cadence;
mod config;
pub mod dead_letters;
pub mod disable;
mod error;
pub mod heartbeat;
pub mod metrics;
pub mod partitions;
pub mod place;
mod presence;
mod service;
pub mod sweep;
pub mod trim;
pub mod waiting;

pub use config::{Config, DeadLetterCaps, Section, Settings};
pub use error::Error;
pub use service::{SERVICE, Service, build, build_as};
