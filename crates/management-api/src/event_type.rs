//! The kinds of events that partners can subscribe to.

pub mod list;
