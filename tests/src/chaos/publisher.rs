//! A careful product team: publishes at a steady rate, and publishes again under the same id whatever was not
//! confirmed, through any number of broken connections.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::clock::Clock;
use super::ledger::Ledger;
use crate::amqp::{Amqp, Confirm, Message};
use crate::wait;

/// Unconfirmed publishes at the same time.
const WINDOW: usize = 500;
const TICK: Duration = Duration::from_millis(5);
/// A connection on which nothing is confirmed for so long is given up.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Run,
    Pause,
}

pub struct Publisher {
    mode: watch::Sender<Mode>,
    /// Events that are due and not confirmed.
    open: watch::Receiver<usize>,
    _task: JoinSet<()>,
}

/// What is published, and where to.
pub struct Load {
    pub amqp_url: String,
    pub events_per_second: u32,
    /// In the order of the ledger's shape.
    pub partners: Vec<i64>,
    pub event_type: &'static str,
    pub padding_bytes: usize,
}

impl Publisher {
    #[must_use]
    pub fn start(load: Load, ledger: Arc<Mutex<Ledger>>, clock: Clock) -> Self {
        let (mode, modes) = watch::channel(Mode::Run);
        let (tell_open, open) = watch::channel(0);
        let worker = Worker {
            data: format!(r#"{{"padding":"{}"}}"#, "x".repeat(load.padding_bytes)),
            load,
            ledger,
            clock,
            modes,
            waiting: VecDeque::new(),
            in_flight: FuturesUnordered::new(),
            unconfirmed: BTreeSet::new(),
            progress: Instant::now(),
            tell_open,
        };
        let mut task = JoinSet::new();
        task.spawn(worker.run());
        Self {
            mode,
            open,
            _task: task,
        }
    }

    /// No further event becomes due; waits until all so far are confirmed.
    ///
    /// # Panics
    /// When they are not in time.
    pub async fn pause(&self) {
        self.mode.send_replace(Mode::Pause);
        wait::within(
            Duration::from_secs(90),
            "every event is confirmed",
            async || (*self.open.borrow() == 0).then_some(()),
        )
        .await;
    }

    pub fn resume(&self) {
        self.mode.send_replace(Mode::Run);
    }
}

type Confirmation = BoxFuture<'static, (u32, Option<Confirm>)>;

struct Worker {
    load: Load,
    data: String,
    ledger: Arc<Mutex<Ledger>>,
    clock: Clock,
    modes: watch::Receiver<Mode>,
    /// Due, or to be published again.
    waiting: VecDeque<u32>,
    in_flight: FuturesUnordered<Confirmation>,
    /// What is in flight, and what was refused and waits for the next tick.
    unconfirmed: BTreeSet<u32>,
    progress: Instant,
    tell_open: watch::Sender<usize>,
}

impl Worker {
    async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut owed = 0.0;
        let mut amqp = None;
        let mut retry_at = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => self.become_due(&mut owed),
                Some((number, confirm)) = self.in_flight.next() => self.note(number, confirm),
            }
            if amqp.is_none() && Instant::now() >= retry_at {
                amqp = self.connect().await;
                retry_at = Instant::now() + PAUSE;
            }
            if let Some(connected) = &amqp
                && !(self.publish(connected).await && self.makes_progress())
            {
                self.give_up(amqp.take()).await;
                retry_at = Instant::now() + PAUSE;
            }
            let open = self.waiting.len() + self.unconfirmed.len();
            self.tell_open
                .send_if_modified(|told| std::mem::replace(told, open) != open);
        }
    }

    fn become_due(&mut self, owed: &mut f64) {
        if *self.modes.borrow() == Mode::Pause {
            return;
        }
        *owed += f64::from(self.load.events_per_second) * TICK.as_secs_f64();
        let now = self.clock.now();
        let mut ledger = self.ledger.lock().unwrap();
        while *owed >= 1.0 {
            *owed -= 1.0;
            self.waiting.push_back(ledger.publish(now));
        }
    }

    /// What was refused stays unconfirmed, and so is published again when everything in flight is given up.
    fn note(&mut self, number: u32, confirm: Option<Confirm>) {
        match confirm {
            Some(Confirm::Confirmed) => {
                self.progress = Instant::now();
                self.unconfirmed.remove(&number);
                let now = self.clock.now();
                self.ledger.lock().unwrap().confirmed(number, now);
            }
            Some(Confirm::Refused) => self.ledger.lock().unwrap().refused(),
            Some(Confirm::Returned) | None => {}
        }
    }

    async fn connect(&mut self) -> Option<Amqp> {
        let connected = timeout(PATIENCE, Amqp::try_connect(&self.load.amqp_url)).await;
        self.progress = Instant::now();
        connected.ok()?.ok()
    }

    /// Whether the connection is still good.
    async fn publish(&mut self, amqp: &Amqp) -> bool {
        while self.in_flight.len() < WINDOW {
            let Some(number) = self.waiting.pop_front() else {
                break;
            };
            self.unconfirmed.insert(number);
            let message = self.message(number);
            match timeout(PATIENCE, amqp.begin_publish(&message)).await {
                Ok(Ok(confirm)) => {
                    let confirm = async move { (number, confirm.await.ok()) };
                    self.in_flight.push(Box::pin(confirm));
                }
                Ok(Err(_)) | Err(_) => return false,
            }
        }
        true
    }

    /// Whether something was confirmed lately, or nothing was refused.
    fn makes_progress(&mut self) -> bool {
        if self.unconfirmed.is_empty() {
            self.progress = Instant::now();
        }
        let refused = self.in_flight.is_empty() && !self.unconfirmed.is_empty();
        !refused && self.progress.elapsed() < PATIENCE
    }

    /// Whatever was not confirmed is published again on the next connection.
    async fn give_up(&mut self, amqp: Option<Amqp>) {
        self.in_flight.clear();
        self.waiting.extend(std::mem::take(&mut self.unconfirmed));
        if let Some(amqp) = amqp {
            let _closed = timeout(PAUSE, amqp.close()).await;
        }
    }

    fn message(&self, number: u32) -> Message {
        let partner = self.load.partners[number as usize % self.load.partners.len()];
        let id = event_id(number);
        Message::event(&id, self.load.event_type, partner, &self.data)
    }
}

/// The id of an event tells its number.
#[must_use]
pub fn event_id(number: u32) -> String {
    format!("{ID_PREFIX}{number}")
}

const ID_PREFIX: &str = "chaos-";

/// The number in an id of [`event_id`]; nothing for another id.
#[must_use]
pub fn number_of(event_id: &str) -> Option<u32> {
    event_id.strip_prefix(ID_PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_the_number_of_its_event() {
        for number in [0, 1, 31, 32, 1_000_000, u32::MAX] {
            assert_eq!(number_of(&event_id(number)), Some(number));
        }
        assert_eq!(number_of(&crate::stack::new_event_id()), None);
        assert_eq!(number_of("x"), None);
    }
}
