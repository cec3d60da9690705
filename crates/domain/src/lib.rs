//! The words and the rules of the product: no IO, no clock, no randomness of its own.
//!
//! Everything here is a pure value or a pure function. What time it is and how a jitter falls is passed in by
//! the caller, so that every rule can be tested with a table.

pub mod api_key;
pub mod attempt;
pub mod content_hash;
pub mod delivery;
pub mod event;
pub mod id;
pub mod limits;
pub mod network;
pub mod plan;
pub mod printable;
pub mod rejection;
pub mod retry_policy;
pub mod secret;
pub mod signature;
pub mod webhook;
pub mod webhook_url;
