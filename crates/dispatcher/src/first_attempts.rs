//! The first attempts of one event, side by side.
//!
//! They run within the event's task while it is held for their answers. What takes longer is moved to a task of its
//! own, and recorded when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker::Link;
use bytes::Bytes;
use domain::attempt::Attempt;
use domain::event::Event;
use domain::id::DeliveryId;
use domain::webhook::Subscription;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use store::record::{EndedAttempt, FIRST_TURN, Marking, ParkedDelivery, Step};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::attempt::{Attempts, Outgoing, Progress, PutOff, Verdict};
use crate::isolation::Lane;
use crate::record::{Recorder, Recording};

/// The message that an event came with.
#[derive(Clone)]
pub struct Origin {
    pub link: Arc<Link>,
    pub taken_at: std::time::Instant,
}

/// A delivery that is to be attempted.
#[derive(Clone)]
pub struct Target {
    pub delivery_id: DeliveryId,
    pub subscription: Arc<Subscription>,
}

/// How far a first attempt has come.
pub enum State {
    Running,
    Ended { step: Step, attempt: Box<Attempt> },
    PutOff(PutOff),
}

impl From<Verdict> for State {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Ended { step, attempt } => Self::Ended { step, attempt },
            Verdict::PutOff(put_off) => Self::PutOff(put_off),
        }
    }
}

/// An attempt, with its place among the targets.
type Running = FuturesUnordered<BoxFuture<'static, (usize, Verdict)>>;

pub struct FirstAttempts {
    targets: Vec<Target>,
    states: Vec<State>,
    /// Set once an attempt is past the gate.
    sent: Vec<Arc<AtomicBool>>,
    running: Running,
}

impl FirstAttempts {
    #[must_use]
    pub fn start(
        attempts: &Arc<Attempts>,
        event: &Event,
        body: &Bytes,
        targets: Vec<Target>,
        from: &Origin,
    ) -> Self {
        let event_id: Arc<str> = event.id.as_str().into();
        let event_type: Arc<str> = event.event_type.as_str().into();
        let running = Running::new();
        let mut sent = Vec::with_capacity(targets.len());
        for (place, target) in targets.iter().enumerate() {
            let outgoing = Outgoing {
                subscription: target.subscription.clone(),
                event_id: event_id.clone(),
                event_type: event_type.clone(),
                body: body.clone(),
            };
            let flag = Arc::new(AtomicBool::new(false));
            sent.push(flag.clone());
            let span = tracing::info_span!("delivery", delivery_id = %target.delivery_id, webhook_id = %target.subscription.webhook_id);
            let verdict = attempt(attempts.clone(), outgoing, from.clone(), flag).instrument(span);
            running.push(Box::pin(async move { (place, verdict.await) }) as BoxFuture<'static, _>);
        }
        let states = targets.iter().map(|_| State::Running).collect();
        Self {
            targets,
            states,
            sent,
            running,
        }
    }

    /// Runs until all have ended, or those that have not were sent and have been awaited for `hold`. An attempt that
    /// waits for its turn because we have too much to do is waited for: its event is not taken from the queue.
    pub async fn run(&mut self, hold: Duration) {
        let mut until = Instant::now() + hold;
        while !self.running.is_empty() {
            match tokio::time::timeout_at(until, self.running.next()).await {
                Ok(Some((place, verdict))) => self.set(place, verdict),
                Ok(None) => return,
                Err(_) if self.all_sent() => return,
                Err(_) => until = Instant::now() + hold,
            }
        }
    }

    fn set(&mut self, place: usize, verdict: Verdict) {
        if let Some(state) = self.states.get_mut(place) {
            *state = verdict.into();
        }
    }

    fn all_sent(&self) -> bool {
        let running = self
            .states
            .iter()
            .zip(&self.sent)
            .filter(|(state, _)| matches!(state, State::Running));
        running
            .map(|(_, sent)| sent)
            .all(|sent| sent.load(Ordering::Relaxed))
    }

    /// Whether nothing was sent, and something is handed over: the message may go back as it came.
    #[must_use]
    pub fn can_go_back(&self) -> bool {
        let handed_over = |state: &State| matches!(state, State::PutOff(p) if p.is_handed_over());
        let unsent = |state: &State| matches!(state, State::PutOff(_));
        self.states.iter().any(handed_over) && self.states.iter().all(unsent)
    }

    pub fn states(&self) -> impl Iterator<Item = (&Target, &State)> {
        self.targets.iter().zip(&self.states)
    }

    /// Those that are still under way.
    #[must_use]
    pub fn into_stragglers(self) -> Option<Stragglers> {
        (!self.running.is_empty()).then_some(Stragglers {
            targets: self.targets,
            running: self.running,
        })
    }
}

async fn attempt(
    attempts: Arc<Attempts>,
    outgoing: Outgoing,
    from: Origin,
    sent: Arc<AtomicBool>,
) -> Verdict {
    let progress = Progress::default();
    let permit = match attempts
        .admit(Lane::First, outgoing.target(), progress, &from.link)
        .await
    {
        Ok(permit) => permit,
        Err(put_off) => return Verdict::PutOff(put_off),
    };
    sent.store(true, Ordering::Relaxed);
    attempts
        .metrics
        .events
        .first_attempt_delay_seconds
        .observe(from.taken_at.elapsed().as_secs_f64());
    attempts
        .send(Lane::First, permit, &outgoing, &from.link, progress)
        .await
}

/// Attempts whose deliveries are recorded as in flight.
pub struct Stragglers {
    targets: Vec<Target>,
    running: Running,
}

impl Stragglers {
    /// Lets them go on in a task of their own, and returns once the event is recorded. What they come to is recorded
    /// after their rows are there; without rows it is nobody's.
    pub async fn follow(
        self,
        recorded: impl Future<Output = Option<Recording>>,
        recorder: Recorder,
        tracker: &TaskTracker,
    ) -> Option<Recording> {
        let (told, rows) = tokio::sync::oneshot::channel();
        tracker.spawn(self.finish(rows, recorder));
        let marking = recorded.await;
        if marking == Some(Ok(Marking::Recorded)) {
            // The task waits for this for as long as it lives.
            let _ = told.send(());
        }
        marking
    }

    async fn finish(mut self, rows: tokio::sync::oneshot::Receiver<()>, recorder: Recorder) {
        let mut ended = Vec::new();
        let mut rows = std::pin::pin!(rows);
        let mut recorded = false;
        while !self.running.is_empty() || !ended.is_empty() {
            tokio::select! {
                told = &mut rows, if !recorded => match told {
                    Ok(()) => recorded = true,
                    Err(_) => return,
                },
                Some(verdict) = self.running.next(), if !self.running.is_empty() => ended.push(verdict),
            }
            if recorded {
                for (place, verdict) in ended.drain(..) {
                    if let Some(target) = self.targets.get(place) {
                        record(target, verdict, &recorder).await;
                    }
                }
            }
        }
    }
}

async fn record(target: &Target, verdict: Verdict, recorder: &Recorder) {
    let delivery_id = target.delivery_id;
    match verdict {
        Verdict::Ended { step, attempt } => {
            let ended = EndedAttempt {
                delivery_id,
                turn: FIRST_TURN,
                number: 1,
                webhook_id: target.subscription.webhook_id,
                sent_version: target.subscription.version,
                health_version: target.subscription.health_version,
                step,
                attempt: *attempt,
            };
            recorder.ended(ended).await;
        }
        Verdict::PutOff(PutOff { wait, reason }) => {
            recorder
                .parked(ParkedDelivery {
                    delivery_id,
                    turn: FIRST_TURN,
                    wait,
                    reason,
                })
                .await;
        }
    }
}
