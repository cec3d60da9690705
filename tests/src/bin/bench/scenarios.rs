//! What is measured, a file each.

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

use crate::report;

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

type Findings<'a> = Pin<Box<dyn Future<Output = report::Findings> + 'a>>;

/// One or a few lines of the table.
pub struct Scenario {
    pub name: &'static str,
    /// Whether it belongs to a short run.
    pub in_short: bool,
    pub run: for<'a> fn(&'a Context) -> Findings<'a>,
}

impl Scenario {
    const fn new(name: &'static str, run: for<'a> fn(&'a Context) -> Findings<'a>) -> Self {
        Self {
            name,
            in_short: false,
            run,
        }
    }

    const fn also_short(mut self) -> Self {
        self.in_short = true;
        self
    }
}

/// What is measured, in the order of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario::new("flood-1", |context| {
        Box::pin(floods::flood(context, 1, 0.70))
    })
    .also_short(),
    Scenario::new("flood-10", |context| {
        Box::pin(floods::flood(context, 10, 0.75))
    })
    .also_short(),
    Scenario::new("broker", |context| Box::pin(steady::broker(context))),
    Scenario::new("steady-100", |context| {
        Box::pin(steady::steady(context, 100, 1.6, 2.0))
    })
    .also_short(),
    Scenario::new("steady-1000", |context| {
        Box::pin(steady::steady(context, 1_000, 2.0, 1.3))
    })
    .also_short(),
    Scenario::new("claim-1000", |context| {
        Box::pin(steady::claim(context, 1_000))
    }),
    Scenario::new("isolation-three", |context| {
        Box::pin(isolation::three(context))
    })
    .also_short(),
    Scenario::new("isolation-two-hundred", |context| {
        Box::pin(isolation::two_hundred(context))
    }),
    Scenario::new("partner-flood", |context| {
        Box::pin(partner_flood::flood(context))
    }),
    Scenario::new("parked-100k", |context| Box::pin(parked::parked(context))),
    Scenario::new("partners", |context| Box::pin(partners::many(context))),
    Scenario::new("dispatchers", |context| {
        Box::pin(dispatchers::dispatchers(context))
    }),
    Scenario::new("payloads", |context| Box::pin(floods::payloads(context))),
];
