//! The dispatcher: takes events from the broker, matches them with webhooks, sends signed requests, and records what
//! came of them.
//!
//! An event's way through this crate: [`consume`] -> [`fan_out`] -> [`first_attempts`] -> [`attempt`] -> [`deliver`]
//! -> [`record`] -> [`announce`]. What failed comes back through [`due`]. [`service`] builds it all.

pub mod announce;
pub mod attempt;
pub mod batch;
pub mod blockage;
pub mod catalogue;
pub mod changes;
pub mod claims;
pub mod config;
pub mod consume;
pub mod deliver;
pub mod due;
pub mod fan_out;
pub mod first_attempts;
pub mod gone;
pub mod graveyard;
pub mod isolation;
pub mod metrics;
pub mod presence;
pub mod pulse;
pub mod record;
pub mod service;
pub mod subscriptions;
pub mod test_call;

pub use config::Config;
pub use service::{Service, build};
