//! What the tests of the whole are made of: a database and a virtual host for each of them, the services in this
//! process or as processes of their own, receivers, a name server, and conditions with deadlines instead of sleeps.
//!
//! `make test` starts one PostgreSQL and one RabbitMQ and tells where they are in `TEST_POSTGRES_URL`,
//! `TEST_RABBITMQ_URL` and `TEST_RABBITMQ_MANAGEMENT_URL`. Everything in here works with each test in a process of its
//! own (nextest) and with all of them in one (cargo test), and takes away what it made, whatever happens: by `Drop`
//! when a test ends, and by the next run when it was killed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "whatever fails in the harness is a failed test"
)]

pub mod amqp;
pub mod chaos;
pub mod client;
pub mod database;
pub mod dns;
mod ending;
pub mod fail_points;
pub mod fleet;
pub mod load;
pub mod logs;
pub mod machine;
pub mod owner;
pub mod partner;
pub mod ports;
pub mod postgres_proxy;
pub mod process;
pub mod receiver;
pub mod servers;
pub mod service;
pub mod settings;
pub mod signature;
pub mod stack;
pub mod vhost;
pub mod wait;

pub use amqp::{Amqp, Message};
pub use client::{Client, Response};
pub use database::Database;
pub use fail_points::FailPoints;
pub use partner::{Partner, Webhook};
pub use postgres_proxy::PostgresProxy;
pub use process::Process;
pub use receiver::{Answer, Receiver};
pub use service::Service;
pub use settings::Settings;
pub use stack::Stack;
pub use vhost::Vhost;
pub use wait::eventually;
