//! Breaks the system under load and counts what arrives: what `make chaos` runs.
//!
//! ```text
//! publisher -> the fleet (two of each service, PostgreSQL, RabbitMQ) -> receiver
//!     |                          ^                                        |
//!     |                    faults, one after the other                    |
//!     +-> ledger <--------------------------------------------------------+
//! ```
//!
//! [`mod@plan`] says which faults strike and when, from a seed. [`strike`] does them. [`publisher`] and [`partners`] write
//! into the [`ledger`] what was confirmed and what arrived, while [`changes`] uses the REST API. In the end [`rows`] reads
//! what Postgres says, [`account`] holds all of it against each other, and [`report`] prints it.

pub mod account;
pub mod changes;
pub mod clock;
pub mod fault;
pub mod ledger;
pub mod partners;
pub mod plan;
pub mod publisher;
mod refusal;
pub mod report;
mod rows;
mod settings;
pub mod strike;
mod watch;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::fleet::Fleet;
use crate::machine::Machine;
use crate::service::Kind;
use account::Strike;
use changes::{Arrivals, Changes};
use clock::{Clock, Ms};
use ledger::Ledger;
use partners::Partners;
use plan::Step;
use publisher::{Load, Publisher};
use strike::{Striker, Struck};
use watch::Watch;

pub use fault::Fault;
pub use plan::{Length, plan};
pub use report::Report;

const PADDING_BYTES: usize = 256;
/// Strikes and their repairs take seconds; one that hangs is a failure.
const STRIKE_WITHIN: Duration = Duration::from_secs(150);

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    pub length: Length,
    pub seed: u64,
    /// Only these faults; all of them where it is empty.
    pub only: Vec<Fault>,
    pub events_per_second: u32,
    /// Gets a line for people now and then.
    pub progress: fn(&str),
}

/// After this no fault strikes any more. What remains is to settle, which takes a minute where all is well, so that all of it
/// takes less than 45.
const FAULTS_WITHIN: Duration = Duration::from_secs(38 * 60);

/// Everything that is there while faults strike.
struct Scene {
    clock: Clock,
    fleet: Arc<Fleet>,
    ledger: Arc<Mutex<Ledger>>,
    partners: Partners,
    changes: Changes,
    publisher: Publisher,
    striker: Striker,
    watch: Watch,
    options: Options,
}

/// Runs a plan on a fleet in this folder, and tells what came of it.
///
/// # Panics
/// When the fleet can't be started, or a part does not start again.
pub async fn run(options: Options, folder: &Path) -> Report {
    let started = Instant::now();
    let steps = plan(options.length, options.seed, &options.only);
    (options.progress)(&format!("seed {}, {} faults", options.seed, steps.len()));
    let mut fleet = Fleet::start_in(folder).await;
    settings::apply(&mut fleet, options.length);
    for kind in [Kind::ManagementApi, Kind::Dispatcher, Kind::Retry] {
        for _ in 0..2 {
            fleet.add(kind).await;
        }
    }
    let scene = Scene::set(fleet, options).await;
    let mut strikes = Vec::new();
    let mut problems = Vec::new();
    scene
        .watch
        .until_recovered(&scene.ledger, scene.clock)
        .await;
    sleep(steps.first().map_or(Duration::ZERO, |step| step.lead)).await;
    for (number, step) in steps.iter().enumerate() {
        if started.elapsed() > FAULTS_WITHIN {
            let left = steps.len() - number;
            problems.push(format!(
                "{left} faults did not strike within {FAULTS_WITHIN:?}"
            ));
            break;
        }
        match scene.step(step).await {
            Ok(strike) => {
                scene.tell(number + 1, steps.len(), &strike);
                strikes.push(strike);
            }
            Err(problem) => {
                (scene.options.progress)(&format!("{}: {problem}", step.fault));
                problems.push(format!("{}: {problem}", step.fault));
            }
        }
    }
    scene.finish(strikes, problems, started).await
}

impl Scene {
    async fn set(fleet: Fleet, options: Options) -> Self {
        let clock = Clock::start();
        let fleet = Arc::new(fleet);
        let store = fleet.database.store();
        let apis: Vec<_> = fleet.parts_of(Kind::ManagementApi).cloned().collect();
        let ledger = Arc::new(Mutex::new(Ledger::new(partners::shape())));
        let arrivals = Arc::new(Arrivals::default());
        let origin = apis[0].api_origin();
        let partners =
            Partners::create(&store, &origin, ledger.clone(), arrivals.clone(), clock).await;
        let receiver = partners.receiver.url("");
        let changes = Changes::start(&store, apis, &fleet.amqp_url, &receiver, arrivals).await;
        let load = Load {
            amqp_url: fleet.amqp_url.clone(),
            events_per_second: options.events_per_second,
            partners: partners.ids.clone(),
            event_type: partners::TYPE,
            padding_bytes: PADDING_BYTES,
        };
        let publisher = Publisher::start(load, ledger.clone(), clock);
        Self {
            clock,
            striker: Striker::new(fleet.clone(), ledger.clone(), clock),
            watch: Watch::new(fleet.clone()),
            fleet,
            ledger,
            partners,
            changes,
            publisher,
            options,
        }
    }

    /// Some time of calm, the fault, and then until all is well.
    async fn step(&self, step: &Step) -> Result<Strike, String> {
        let window = self.clock.now();
        sleep(step.lead).await;
        let (struck, recovery) = match step.fault {
            Fault::WipeRabbitmq => self.wipe(step).await?,
            _ => (self.strike(step).await?, None),
        };
        let recovered = self.watch.until_recovered(&self.ledger, self.clock).await;
        let Struck {
            what,
            began,
            struck,
            ended,
        } = struck;
        Ok(Strike {
            fault: step.fault,
            twice: step.twice(),
            what,
            window,
            began,
            struck,
            ended,
            recovered,
            recovery,
        })
    }

    async fn strike(&self, step: &Step) -> Result<Struck, String> {
        let struck = timeout(STRIKE_WITHIN, self.striker.strike(step)).await;
        struck.map_err(|_| format!("not done within {STRIKE_WITHIN:?}"))?
    }

    /// The strike while nobody publishes and retries wait, and how long it took from then until the last of them had arrived.
    /// Whatever goes wrong, all goes on afterwards.
    async fn wipe(&self, step: &Step) -> Result<(Struck, Option<Ms>), String> {
        let _paused = self.changes.pause().await?;
        self.partners.outage.store(true, Ordering::Relaxed);
        let struck = self.strike_while_retries_wait(step).await;
        self.partners.outage.store(false, Ordering::Relaxed);
        let arrived = match &struck {
            Ok(_) => self.watch.until_final().await,
            Err(_) => Ok(()),
        };
        let now = self.clock.now();
        self.publisher.resume();
        let struck = struck?;
        arrived?;
        let took = now.saturating_sub(struck.ended);
        Ok((struck, Some(took)))
    }

    /// RabbitMQ holds nothing but retries that wait when it is struck.
    async fn strike_while_retries_wait(&self, step: &Step) -> Result<Struck, String> {
        sleep(step.lead).await;
        self.publisher.pause().await;
        let events = self.ledger.lock().unwrap().sent().len();
        self.watch.until_recorded(events).await?;
        let waiting = self.watch.until_retries_wait().await?;
        let struck = self.strike(step).await?;
        let what = format!("{} with {waiting} retries", struck.what);
        Ok(Struck { what, ..struck })
    }

    fn tell(&self, number: usize, of: usize, strike: &Strike) {
        let seconds = |from, to: u32| f64::from(to.saturating_sub(from)) / 1_000.0;
        let published = self.ledger.lock().unwrap().sent().len();
        (self.options.progress)(&format!(
            "{number}/{of} {} ({}): took {:.1} s, {} {:.1} s later; {published} events so far",
            strike.fault,
            strike.what,
            seconds(strike.began, strike.ended),
            if strike.recovered { "well" } else { "NOT well" },
            seconds(strike.ended, self.clock.now()),
        ));
    }

    /// Until nothing is left to be done.
    async fn settle(&self) -> Result<(), String> {
        let events = self.ledger.lock().unwrap().sent().len();
        self.watch.until_recorded(events).await?;
        self.watch.until_final().await?;
        self.watch.until_queues_are_empty().await
    }

    async fn finish(
        mut self,
        strikes: Vec<Strike>,
        mut problems: Vec<String>,
        started: Instant,
    ) -> Report {
        (self.options.progress)("no more faults: until everything is delivered");
        self.publisher.pause().await;
        let tally = self.changes.finish().await;
        if let Err(problem) = self.settle().await {
            problems.push(problem);
        }
        problems.extend(self.watch.leftovers().await);
        problems.extend(self.watch.made_twice().await);
        let sql = self.fleet.database.sql().await;
        let ledger = std::mem::take(&mut *self.ledger.lock().unwrap());
        let (webhooks, events) = (&self.partners.webhooks, ledger.sent().len());
        let mut rows = rows::read(&sql, webhooks, events, self.clock).await;
        problems.append(&mut rows.problems);
        let account = account::settle(&ledger, &rows.rows, &strikes);
        problems.extend(account.problems.iter().cloned());
        problems.extend(tally.problems.iter().cloned());
        let Self {
            fleet,
            striker,
            watch,
            options,
            ..
        } = self;
        drop((striker, watch));
        match Arc::try_unwrap(fleet) {
            Ok(fleet) => fleet.stop().await,
            Err(_) => problems.push("the fleet is still held by somebody".to_owned()),
        }
        Report {
            machine: Machine::look(),
            options,
            account,
            tally,
            strikes,
            problems,
            took: started.elapsed(),
        }
    }
}
