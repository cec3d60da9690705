//! One attempt as every lane makes it: admitted, sent, judged.
//!
//! [`crate::fan_out`] makes first attempts and [`crate::due`] later ones; what they record is theirs.

use std::sync::Arc;
use std::time::Duration;

use broker::Link;
use bytes::Bytes;
use domain::attempt::Attempt;
use domain::delivery::ParkReason;
use domain::retry_policy::{Next, RetryPolicy};
use domain::webhook::Subscription;
use store::health::BreakerRow;
use store::record::Step;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::blockage::Blockage;
use crate::deliver::{Request, Sender};
use crate::isolation::{
    Admission, BreakerChange, BreakerState, Feedback, Gate, Lane, Parking, Permit, Target,
};
use crate::metrics::Metrics;
use crate::pulse::Pulse;

/// What is sent, and to whom.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub subscription: Arc<Subscription>,
    pub event_id: Arc<str>,
    pub event_type: Arc<str>,
    pub body: Bytes,
}

/// What became of a delivery's turn.
#[derive(Clone, Debug)]
pub enum Verdict {
    Ended { step: Step, attempt: Box<Attempt> },
    PutOff(PutOff),
}

/// A delivery that is not tried now.
#[derive(Clone, Copy, Debug)]
pub struct PutOff {
    pub wait: Duration,
    pub reason: ParkReason,
}

impl PutOff {
    /// Whether it is put off for a reason of ours alone, so that its message can go back unrecorded.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.reason == ParkReason::HandedOver
    }
}

impl From<PutOff> for Step {
    fn from(PutOff { wait, reason }: PutOff) -> Self {
        Self::Parked { wait, reason }
    }
}

/// Everything that attempts need; shared by all lanes.
pub struct Attempts {
    pub gate: Gate,
    pub sender: Sender,
    pub policy: RetryPolicy,
    pub pulse: Pulse,
    pub blockage: Blockage,
    pub breakers: mpsc::Sender<BreakerRow>,
    pub metrics: Metrics,
    /// Nothing new is begun once this is cancelled.
    pub draining: CancellationToken,
    /// Longest wait for a slot when there is no reason to park: well below the broker's consumer timeout.
    pub wait_max: Duration,
}

/// How long what waits for Postgres may go on waiting for it once the dispatcher is told to end. Postgres answers far
/// sooner, or is away.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far a delivery has come already, for its schedule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Attempts before this one.
    pub attempts: u32,
    pub parkings: u32,
}

impl Attempts {
    /// What comes before anything is sent, unless the dispatcher is told to end and it takes too long.
    pub async fn while_patient<T>(&self, before: impl Future<Output = T>) -> Option<T> {
        let impatience = async {
            self.draining.cancelled().await;
            tokio::time::sleep(PATIENCE).await;
        };
        tokio::select! {
            biased;
            outcome = before => Some(outcome),
            () = impatience => None,
        }
    }

    /// Waits for a slot, and before that until what is sent can be recorded. The error tells how long to put the delivery
    /// off instead: for its own sake, or because its message goes back to where it came from.
    pub async fn admit(
        &self,
        lane: Lane,
        target: Target,
        progress: Progress,
        link: &Link,
    ) -> Result<Permit, PutOff> {
        if self.draining.is_cancelled() {
            return Err(self.hand_over());
        }
        let admission = async {
            self.blockage.over().await;
            tokio::time::timeout(self.wait_max, self.gate.admit(lane, target)).await
        };
        let admission = tokio::select! {
            // Nearly always there is a slot at once, and nobody has to be told to listen for the others.
            biased;
            admission = admission => admission,
            () = self.draining.cancelled() => return Err(self.hand_over()),
            () = link.lost() => return Err(self.hand_over()),
        };
        match admission {
            Ok(Admission::Go(permit)) => Ok(permit),
            Ok(Admission::Park(parking)) => Err(self.park(&parking, progress)),
            Err(_) => Err(self.hand_over()),
        }
    }

    /// Makes the attempt that was admitted. The link is the one over which its message came.
    pub async fn send(
        &self,
        lane: Lane,
        permit: Permit,
        outgoing: &Outgoing,
        link: &Link,
        progress: Progress,
    ) -> Verdict {
        if !self.pulse.may_send(link) {
            return Verdict::PutOff(self.hand_over());
        }
        let attempt = self.request(outgoing, progress).await;
        runtime::fail_point!("deliver.answered");
        self.observe(lane_name(lane), &attempt);
        match permit.finish(&attempt) {
            Feedback::Counted { breaker } => {
                self.write(breaker, &attempt);
                let step = self.next(progress.attempts.saturating_add(1), &attempt);
                Verdict::Ended {
                    step,
                    attempt: Box::new(attempt),
                }
            }
            Feedback::Ours(parking) => Verdict::PutOff(self.park(&parking, progress)),
        }
    }

    /// A test call: past breaker and cap, and nothing is learned from it.
    pub async fn send_test(&self, outgoing: &Outgoing) -> Attempt {
        let attempt = self.request(outgoing, Progress::default()).await;
        self.observe("test", &attempt);
        attempt
    }

    /// Sends, in a span as the conventions for HTTP clients have it; URLs may hold secrets and stay out.
    async fn request(&self, outgoing: &Outgoing, progress: Progress) -> Attempt {
        let url = outgoing.subscription.url.url();
        let span = tracing::info_span!(
            "POST",
            otel.kind = "client",
            http.request.method = "POST",
            // Signed: OpenTelemetry knows no other integers.
            http.request.resend_count = i64::from(progress.attempts),
            server.address = url.host_str().unwrap_or_default(),
            server.port = url.port_or_known_default().map(i64::from),
            http.response.status_code = Empty,
            "error.type" = Empty,
        );
        let attempt = self
            .sender
            .send(&outgoing.request())
            .instrument(span.clone())
            .await;
        if let Some(status) = attempt.status() {
            span.record("http.response.status_code", i64::from(status));
        }
        if let Some(failure) = attempt.failure() {
            span.record("error.type", failure.kind.as_str());
        }
        attempt
    }

    /// What follows the attempt of that number.
    #[must_use]
    pub fn next(&self, number: u32, attempt: &Attempt) -> Step {
        match self.policy.after_attempt(number, attempt, rand::random()) {
            Next::Delivered => Step::Delivered,
            Next::Exhausted => Step::Exhausted,
            Next::Retry {
                after,
                extend_expiry_by,
            } => Step::Retry {
                after,
                extend_expiry_by,
            },
        }
    }

    /// Parks for what the schedule says, spread over the webhook's backlog.
    #[must_use]
    pub fn park(&self, parking: &Parking, progress: Progress) -> PutOff {
        let step = self
            .policy
            .park_for(progress.attempts, progress.parkings, rand::random());
        let wait = step.max(parking.at_least) + parking.backlog_spread.mul_f64(rand::random());
        self.parked(wait, parking.reason)
    }

    /// Parks what can't be used for a reason of ours.
    #[must_use]
    pub fn park_unreadable(&self, progress: Progress) -> PutOff {
        let wait = self
            .policy
            .park_for(progress.attempts, progress.parkings, rand::random());
        self.parked(wait, ParkReason::Unreadable)
    }

    /// This process can't go on with it now; any other can, at once.
    fn hand_over(&self) -> PutOff {
        self.parked(Duration::ZERO, ParkReason::HandedOver)
    }

    fn parked(&self, wait: Duration, reason: ParkReason) -> PutOff {
        self.metrics
            .attempts
            .parked
            .with_label_values(&[reason.as_str()])
            .inc();
        PutOff { wait, reason }
    }

    fn observe(&self, lane: &str, attempt: &Attempt) {
        let result = attempt
            .failure()
            .map_or("delivered", |failure| failure.kind.as_str());
        self.metrics
            .attempts
            .ended
            .with_label_values(&[lane, result])
            .inc();
        self.metrics
            .attempts
            .seconds
            .with_label_values(&[lane])
            .observe(attempt.timings.total.as_secs_f64());
    }

    /// Only shown to people: when the writer is behind, the next change tells more anyway.
    fn write(&self, change: Option<BreakerChange>, attempt: &Attempt) {
        let Some(change) = change else { return };
        let (state, open_for) = match change.state {
            BreakerState::Closed => (None, Duration::ZERO),
            BreakerState::Open { open_for } => (Some("open"), open_for),
        };
        let row = BreakerRow {
            webhook_id: change.webhook_id,
            state,
            // What the attempt that opened it came to.
            reason: attempt
                .failure()
                .map_or_else(String::new, |f| f.message.clone()),
            until: chrono::Utc::now() + open_for,
        };
        let _ = self.breakers.try_send(row);
    }
}

impl Outgoing {
    fn request(&self) -> Request<'_> {
        Request {
            url: &self.subscription.url,
            signer: &self.subscription.signer,
            event_type: &self.event_type,
            delivery_id: &self.event_id,
            body: self.body.clone(),
        }
    }

    /// Whom the gate is asked for.
    #[must_use]
    pub fn target(&self) -> Target {
        Target {
            webhook_id: self.subscription.webhook_id,
            partner_id: self.subscription.partner_id,
            epoch: self.subscription.health_version.0.into(),
        }
    }
}

fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::First => "first",
        Lane::Due => "due",
    }
}
