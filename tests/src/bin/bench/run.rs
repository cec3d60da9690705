//! One run: publish, wait until all has arrived, and say what came of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use tests::load::{Arrivals, Clock, LoadReceiver, Pace, Published, Publisher, Tally, Target};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::broker_alone::Samples;
use crate::figures::Latency;
use crate::ours::Rows;
use crate::subscribers::ONLY_PARTNER;
use crate::usage::{Cpu, CpuPerEvent, Memory};

/// Nothing more is expected once nothing has arrived for so long.
const QUIET: Duration = Duration::from_secs(20);
/// Confirms that may be outstanding in a flood.
const WINDOW: usize = 512;
/// Bytes of padding of an event, unless the scenario is about them.
pub const PADDING_BYTES: usize = 256;

/// What to publish.
pub struct Load {
    pub target: Target,
    pub pace: Pace,
    pub duration: Duration,
    pub count_max: u32,
    /// The number of the first event.
    pub first: u32,
    pub partner: Box<dyn FnMut(u32) -> i64 + Send>,
}

impl Load {
    /// As fast as the window allows, all for one partner.
    pub fn flood(target: Target, duration: Duration) -> Self {
        Self::new(target, Pace::Window(WINDOW), duration)
    }

    /// At a pace, all for one partner.
    pub fn steady(target: Target, per_second: u32, duration: Duration) -> Self {
        Self::new(target, Pace::PerSecond(per_second), duration)
    }

    fn new(target: Target, pace: Pace, duration: Duration) -> Self {
        Self {
            target,
            pace,
            duration,
            count_max: u32::MAX,
            first: 0,
            partner: Box::new(|_| ONLY_PARTNER),
        }
    }

    pub async fn publish(self, clock: Clock) -> Published {
        let mut publisher = Publisher::new(self.target, clock);
        let (first, pace, partner) = (self.first, self.pace, self.partner);
        publisher
            .run(first, pace, self.duration, self.count_max, partner)
            .await
    }
}

/// Publishes two loads side by side, in tasks of their own: in one, each would count the other's work as latency.
pub async fn publish_both(one: Load, other: Load, clock: Clock) -> (Published, Published) {
    let [mut one, mut other] = [one, other].map(|load| {
        let mut task = JoinSet::new();
        task.spawn(load.publish(clock));
        task
    });
    let published = tokio::join!(one.join_next(), other.join_next());
    (published.0.unwrap().unwrap(), published.1.unwrap().unwrap())
}

/// What a run came to.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Outcome {
    pub tally: Tally,
    pub per_second: f64,
    pub latency: Latency,
    /// Of the broker alone at the same time, where that was measured.
    pub broker_alone: Option<Latency>,
    pub cpu: CpuPerEvent,
    /// What Postgres says; nothing of the bare pipeline.
    pub rows: Rows,
    pub memory_mib: BTreeMap<String, Memory>,
    /// Whatever was lost, sent twice or recorded wrongly.
    pub faults: Vec<String>,
}

impl Outcome {
    /// What arrived of what was published; a fault unless all of it did, once. Latencies are those of the webhooks that
    /// count.
    pub fn of(
        what: &str,
        published: &Published,
        arrivals: &Arrivals,
        webhooks: impl Fn(i64) -> Range<u32>,
        counts: impl Fn(u32) -> bool,
    ) -> Self {
        let mut outcome = Self {
            tally: arrivals.tally(published, webhooks),
            per_second: arrivals.per_second(),
            latency: Latency::of(arrivals.latencies_us(published, counts)),
            ..Self::default()
        };
        let tally = outcome.tally;
        outcome.hold_against(what, &tally);
        outcome
    }

    /// Takes the faults of a run before this one over, such as a warm-up's.
    pub fn after(mut self, earlier: Self) -> Self {
        self.faults.extend(earlier.faults);
        self
    }

    /// Keeps the rows; a fault unless they say what they should.
    pub fn hold_rows_against(&mut self, rows: Rows, expected: Rows) {
        if rows != expected {
            self.faults.push(format!(
                "rows of deliveries: {rows:?} instead of {expected:?}"
            ));
        }
        self.rows = rows;
    }

    /// Keeps what the broker alone took, of messages that were due when `counts` says.
    pub fn set_broker_alone(&mut self, samples: &Samples, counts: impl Fn(u64) -> bool) {
        self.broker_alone = Some(samples.latency(counts));
        if samples.lost > 0 {
            let fault = format!("lost by the broker alone: {}", samples.lost);
            self.faults.push(fault);
        }
    }

    /// A fault unless everything arrived once.
    pub fn hold_against(&mut self, what: &str, tally: &Tally) {
        if !tally.is_sound() {
            self.faults.push(format!("{what}: {tally:?}"));
        }
    }
}

/// What was published, once all of it has arrived or nothing comes any more.
pub struct Run {
    published: Published,
    expected: usize,
    cpu: CpuPerEvent,
}

/// Publishes one load and waits for all of it; `webhooks` tells the numbers of a partner's webhooks.
pub async fn publish(
    load: Load,
    webhooks: impl Fn(i64) -> Range<u32>,
    receiver: &LoadReceiver,
    pids: &[u32],
    folder: &Path,
) -> Run {
    let _of_before = receiver.take();
    let before = Cpu::now(pids, folder);
    let published = load.publish(receiver.clock()).await;
    let partners = published.partners.iter();
    let expected = partners.map(|&partner| webhooks(partner).len()).sum();
    until_accepted(receiver, expected).await;
    Run {
        cpu: Cpu::now(pids, folder).since(before, published.partners.len()),
        published,
        expected,
    }
}

impl Run {
    /// Deliveries that were to come.
    pub fn expected(&self) -> usize {
        self.expected
    }

    pub fn outcome(&self, arrivals: &Arrivals, webhooks: impl Fn(i64) -> Range<u32>) -> Outcome {
        Outcome {
            cpu: self.cpu,
            ..Outcome::of("arrivals", &self.published, arrivals, webhooks, |_| true)
        }
    }
}

/// Waits until the receiver has accepted so many requests, or has had none for a while.
pub async fn until_accepted(receiver: &LoadReceiver, expected: usize) {
    let (mut seen, mut at) = (receiver.accepted(), Instant::now());
    while receiver.accepted() < expected as u64 {
        sleep(Duration::from_millis(20)).await;
        if receiver.accepted() != seen {
            (seen, at) = (receiver.accepted(), Instant::now());
        } else if at.elapsed() > QUIET {
            return;
        }
    }
}

/// The webhooks of whichever partner it is, where there is only one.
pub fn first_webhooks(count: u32) -> impl Fn(i64) -> Range<u32> {
    move |_| 0..count
}
