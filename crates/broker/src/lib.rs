//! RabbitMQ: the topology, the connection, publishing with confirms, consuming with acknowledgements, and the form of
//! every message that goes through it. The only crate that imports lapin.
//!
//! [`Broker::start`] keeps a [`Link`] alive: one connection to publish and one to consume, made anew with a higher
//! generation whenever anything about it breaks. [`Publisher`]s outlive links. A [`Consumer`] belongs to one link and
//! ends with it, and so do the [`Receipt`]s of its deliveries: an acknowledgement of an older generation goes nowhere,
//! since the broker has put those messages back already.

mod acks;
pub mod announcement;
mod config;
mod consumer;
pub mod dead_letter;
pub mod delay;
mod delivery;
pub mod envelope;
mod error;
pub mod interactive;
mod link;
mod message;
mod publisher;
pub mod subscription;
mod supervisor;
pub mod topology;
pub mod trace;
mod transport;

pub use acks::Receipt;
pub use config::{Config, TopologyMode};
pub use consumer::Consumer;
pub use dead_letter::{DeadLetter, Line};
pub use delivery::{Delivery, HeaderValue, Headers, Properties};
pub use error::{BrokerError, PublishError};
pub use link::Link;
pub use message::Message;
pub use publisher::Publisher;
pub use supervisor::{Broker, State};
pub use topology::Exchange;
