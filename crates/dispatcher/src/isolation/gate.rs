//! The shell around the ledger: one short lock, the clock, and the waiting.
//!
//! It has no tasks of its own. Whoever gives a slot back hands it on; whoever waits looks after itself from time to
//! time. The lock is held for a few hash look-ups and never across an await.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::attempt::Attempt;
use domain::delivery::ParkReason;
use tokio::sync::oneshot;
use tokio::time;

use super::Lane;
use super::config::Limits;
use super::ledger::{Answer, Feedback, Grant, Ledger, Parking, Snapshot, Target, Ticket, Verdict};
use super::webhook::Report;

/// Whether an attempt may be made. Cheap to clone; all clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    shared: Arc<Shared>,
}

/// What the gate says.
#[derive(Debug)]
#[must_use]
pub enum Admission {
    Go(Permit),
    /// No attempt is made and none is used up.
    Park(Parking),
}

/// One slot, held while a request is in flight. Dropped without [`Permit::finish`] it is given back, and nothing is
/// learnt.
#[derive(Debug)]
#[must_use = "dropping it gives the slot back"]
pub struct Permit {
    shared: Arc<Shared>,
    /// Taken when it is given back.
    grant: Option<Grant>,
}

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger<oneshot::Sender<Admission>>>,
    look_after: Duration,
}

impl Gate {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            shared: Arc::new(Shared {
                look_after: limits.wait_for_slot,
                ledger: Mutex::new(Ledger::new(limits, now())),
            }),
        }
    }

    /// Waits for a slot: behind the webhook's own cap or the suspects' share for `wait_for_slot_ms`, behind the whole
    /// budget, the partner's share or our own network for as long as it takes. Can be dropped at any time.
    pub async fn admit(&self, lane: Lane, target: Target) -> Admission {
        let mut told = None;
        let answer = self.shared.with(|ledger, now| {
            ledger.admit(lane, &target, now, || {
                let (tell, verdict) = oneshot::channel();
                told = Some(verdict);
                tell
            })
        });
        match (answer, told) {
            (Answer::Go(grant), _) => Admission::Go(Permit::new(&self.shared, grant)),
            (Answer::Park(parking), _) => Admission::Park(parking),
            (Answer::Wait(ticket), Some(verdict)) => {
                let place = Place {
                    shared: &self.shared,
                    ticket,
                };
                place.wait(verdict).await
            }
            (Answer::Wait(_), None) => unheard(),
        }
    }

    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.with(|ledger, _| ledger.snapshot())
    }
}

impl Permit {
    fn new(shared: &Arc<Shared>, grant: Grant) -> Self {
        Self {
            shared: Arc::clone(shared),
            grant: Some(grant),
        }
    }

    /// Gives the slot back with what came of the attempt, as soon as that is known.
    pub fn finish(mut self, attempt: &Attempt) -> Feedback {
        let report = Report::from(attempt);
        // Only a failure can open a breaker, which is all that chance is for.
        let chance = if report.trouble { rand::random() } else { 0.5 };
        match self.grant.take() {
            Some(grant) => self
                .shared
                .with(|ledger, now| ledger.finish(&grant, &report, now, chance)),
            None => Feedback::Counted { breaker: None },
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            self.shared.with(|ledger, now| ledger.release(&grant, now));
        }
    }
}

impl Shared {
    /// One step of the ledger. Those about whom it decided are told after the lock is free: a verdict that nobody
    /// takes any more is a permit that is dropped, which needs the lock again.
    fn with<R>(
        self: &Arc<Self>,
        step: impl FnOnce(&mut Ledger<oneshot::Sender<Admission>>, Instant) -> R,
    ) -> R {
        let now = now();
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let result = step(&mut ledger, now);
        let settled = ledger.take_settled();
        drop(ledger);
        for (tell, verdict) in settled {
            let admission = match verdict {
                Verdict::Go(grant) => Admission::Go(Permit::new(self, grant)),
                Verdict::Park(parking) => Admission::Park(parking),
            };
            drop(tell.send(admission));
        }
        result
    }
}

/// A place in the line, left when it is dropped.
struct Place<'a> {
    shared: &'a Arc<Shared>,
    ticket: Ticket,
}

impl Place<'_> {
    async fn wait(self, mut verdict: oneshot::Receiver<Admission>) -> Admission {
        loop {
            match time::timeout(self.shared.look_after, &mut verdict).await {
                Ok(Ok(admission)) => return admission,
                Ok(Err(_)) => return unheard(),
                Err(_) => {
                    let parking = self
                        .shared
                        .with(|ledger, now| ledger.look(&self.ticket, now));
                    if let Some(parking) = parking {
                        return Admission::Park(parking);
                    }
                }
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.with(|ledger, _| ledger.leave(&self.ticket));
    }
}

/// Nobody is left without a verdict; if it were so, parking is what loses nothing.
fn unheard() -> Admission {
    Admission::Park(Parking {
        reason: ParkReason::Budget,
        at_least: Duration::ZERO,
        backlog_spread: Duration::ZERO,
    })
}

/// Tokio's clock, so that tests can move it.
fn now() -> Instant {
    time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
