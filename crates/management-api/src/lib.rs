//! The management API: the REST gateway by which partners keep their webhooks.
//!
//! Reads and writes partners' rows in Postgres, each change with its entry in the outbox, and publishes those to
//! RabbitMQ for the dispatchers. It sends no webhook itself: a test call is a question to a dispatcher.
//!
//! ```text
//! routes -> request (id, admission, limits) -> webhook/<verb> | event_type/list -> store
//!                                                   │ wakes                │ asks
//!                                                 relay -> RabbitMQ      test_desk -> RabbitMQ -> a dispatcher
//! ```

mod admission;
mod answer;
mod config;
mod error;
mod event_type;
mod gateway;
mod heartbeat;
mod idempotency;
mod metrics;
pub mod migrate;
mod relay;
mod request;
mod routes;
mod service;
mod test_desk;
mod watch;
mod webhook;

pub use config::{Api, Config, LISTS};
pub use relay::{Relay, Step};
pub use service::{Service, build, build_as};

/// The name of this service in logs, metrics and `service_instances`.
pub const SERVICE: &str = "management-api";
