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

const fn short(name: &'static str, run: for<'a> fn(&'a Context) -> Findings<'a>) -> Scenario {
    Scenario {
        name,
        in_short: true,
        run,
    }
}

const fn long(name: &'static str, run: for<'a> fn(&'a Context) -> Findings<'a>) -> Scenario {
    Scenario {
        name,
        in_short: false,
        run,
    }
}

/// What is measured, in the order of the table.
pub const SCENARIOS: &[Scenario] = &[
    short("flood-1", |context| {
        Box::pin(floods::flood(context, 1, 0.70))
    }),
    short("flood-10", |context| {
        Box::pin(floods::flood(context, 10, 0.75))
    }),
    short("steady-100", |context| {
        Box::pin(steady::steady(context, 100, 1.6, 2.0))
    }),
    short("steady-1000", |context| {
        Box::pin(steady::steady(context, 1_000, 2.0, 1.3))
    }),
    long("claim-1000", |context| {
        Box::pin(steady::claim(context, 1_000))
    }),
    short("isolation-three", |context| {
        Box::pin(isolation::three(context))
    }),
    long("isolation-two-hundred", |context| {
        Box::pin(isolation::two_hundred(context))
    }),
    long("partner-flood", |context| {
        Box::pin(partner_flood::flood(context))
    }),
    long("parked-100k", |context| Box::pin(parked::parked(context))),
    long("partners", |context| Box::pin(partners::many(context))),
    long("dispatchers", |context| {
        Box::pin(dispatchers::dispatchers(context))
    }),
    long("payloads", |context| Box::pin(floods::payloads(context))),
];
