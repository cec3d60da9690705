//! Deliveries after their event was recorded: starting an attempt, finding overdue ones, and showing them.

mod show;
mod start;
mod sweep;

pub use show::{AttemptView, DeliveryFilter, DeliveryView, attempts, find, list, of_event};
pub use start::{StartRequest, Started, Starting, start};
pub use sweep::{Overdue, oldest_waiting, sweep};
