//! What is measured, in the order of the table.

mod dispatchers;
mod floods;
mod isolation;
mod pairs;
mod parked;
mod partner_flood;
mod partners;
mod steady;

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use crate::report::Findings;

/// What has arrived is recorded by then.
pub const RECORDED_WITHIN: Duration = Duration::from_secs(30);

/// Before the events that count: connections are made, caches filled.
const WARM_UP: Duration = Duration::from_secs(2);

/// What all scenarios are given.
pub struct Context {
    pub short: bool,
    pub pairs: usize,
    /// Of the servers, by which their processes are recognised.
    pub folder: PathBuf,
}

impl Context {
    fn flood_time(&self) -> Duration {
        Duration::from_secs(if self.short { 5 } else { 15 })
    }

    fn steady_time(&self) -> Duration {
        Duration::from_secs(if self.short { 8 } else { 20 })
    }
}

type Scenario = for<'a> fn(&'a Context) -> Pin<Box<dyn Future<Output = Findings> + 'a>>;

/// Name, whether it belongs to a short run, and what to do.
pub const SCENARIOS: &[(&str, bool, Scenario)] = &[
    ("flood-1", true, |context| {
        Box::pin(floods::flood(context, 1, 0.70))
    }),
    ("flood-10", true, |context| {
        Box::pin(floods::flood(context, 10, 0.75))
    }),
    ("steady-100", true, |context| {
        Box::pin(steady::steady(context, 100, 1.6, 2.0))
    }),
    ("steady-1000", true, |context| {
        Box::pin(steady::steady(context, 1_000, 2.0, 1.3))
    }),
    ("isolation-three", true, |context| {
        Box::pin(isolation::three(context))
    }),
    ("isolation-two-hundred", false, |context| {
        Box::pin(isolation::two_hundred(context))
    }),
    ("partner-flood", false, |context| {
        Box::pin(partner_flood::flood(context))
    }),
    ("parked-100k", false, |context| {
        Box::pin(parked::parked(context))
    }),
    ("partners", false, |context| {
        Box::pin(partners::many(context))
    }),
    ("dispatchers", false, |context| {
        Box::pin(dispatchers::dispatchers(context))
    }),
    ("payloads", false, |context| {
        Box::pin(floods::payloads(context))
    }),
];
