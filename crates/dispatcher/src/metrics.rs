//! Everything that the dispatcher counts, made and registered in one place.

mod maker;

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use crate::isolation::{EgressState, Snapshot};
use maker::Maker;

/// Seconds, from what loopback takes to the time-out of an attempt.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Rows in a batch.
const ROWS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0];

#[derive(Clone, Debug)]
pub struct Metrics {
    pub events: Events,
    pub attempts: Attempts,
    pub announcements: Announcements,
    pub isolation: Isolation,
    batches: Batches,
    /// Loads of subscriptions from Postgres, in statements' rows.
    pub subscription_loads: IntCounter,
    /// Webhooks disabled after a 410.
    pub webhooks_gone: IntCounter,
    /// Generations dropped because this process had stood still.
    pub stalls: IntCounter,
}

#[derive(Clone, Debug)]
pub struct Events {
    /// Events taken from the broker, by what became of them: recorded, duplicate, in_progress, rejected, dead,
    /// put_back.
    pub taken: IntCounterVec,
    /// Events rejected, by code.
    pub rejected: IntCounterVec,
    /// Seconds from taking an event from the broker to the start of a first attempt.
    pub first_attempt_delay_seconds: Histogram,
}

#[derive(Clone, Debug)]
pub struct Attempts {
    /// Attempts ended, by lane (first, due, test) and result (delivered, or the kind of the failure).
    pub ended: IntCounterVec,
    /// Seconds that an attempt took, by lane.
    pub seconds: HistogramVec,
    /// Deliveries parked, by reason.
    pub parked: IntCounterVec,
}

#[derive(Clone, Debug)]
pub struct Announcements {
    /// Announcements taken, by what became of them: started, parked, ended, early, stale,
    /// unreadable, missing, malformed, put_back.
    pub taken: IntCounterVec,
    /// Announcements published after a commit, by result: confirmed, left_to_sweep.
    pub sent: IntCounterVec,
}

#[derive(Clone, Debug)]
struct Batches {
    /// Rows in a batch, by step (claim, record).
    rows: HistogramVec,
    /// Seconds that a batch took in Postgres, by step.
    seconds: HistogramVec,
}

#[derive(Clone, Debug)]
pub struct Isolation {
    /// Requests in flight, by lane.
    in_flight: IntGaugeVec,
    /// Requests in flight to webhooks under suspicion, by lane.
    suspects_in_flight: IntGaugeVec,
    /// Attempts that wait for a slot, by lane.
    waiting: IntGaugeVec,
    open_breakers: IntGauge,
    tracked_webhooks: IntGauge,
    /// 1 while our own network is held to be at fault.
    egress_paused: IntGauge,
}

impl Metrics {
    /// Makes and registers all of them.
    ///
    /// # Errors
    /// When a name is taken already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let make = Maker(registry);
        Ok(Self {
            events: Events::new(&make)?,
            attempts: Attempts::new(&make)?,
            announcements: Announcements::new(&make)?,
            isolation: Isolation::new(&make)?,
            batches: Batches::new(&make)?,
            subscription_loads: make
                .counter("subscription_loads_total", "Partners loaded from Postgres.")?,
            webhooks_gone: make.counter("webhooks_gone_total", "Webhooks disabled after a 410.")?,
            stalls: make.counter(
                "stalls_total",
                "Broker generations dropped after this process stood still.",
            )?,
        })
    }

    /// Notes a batch that Postgres took.
    pub fn batch(&self, step: &str, rows: usize, seconds: f64) {
        self.batches
            .rows
            .with_label_values(&[step])
            .observe(rows as f64);
        self.batches
            .seconds
            .with_label_values(&[step])
            .observe(seconds);
    }
}

impl Events {
    fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            taken: make.counters(
                "events_total",
                "Events taken from the broker by result.",
                &["result"],
            )?,
            rejected: make.counters(
                "events_rejected_total",
                "Events rejected by code.",
                &["code"],
            )?,
            first_attempt_delay_seconds: make.histogram(
                "event_to_first_attempt_seconds",
                "Time from taking an event to its first attempts.",
                SECONDS,
            )?,
        })
    }
}

impl Attempts {
    fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            ended: make.counters(
                "attempts_total",
                "Attempts by lane and result.",
                &["lane", "result"],
            )?,
            seconds: make.histograms(
                "attempt_duration_seconds",
                "Duration of attempts by lane.",
                &["lane"],
                SECONDS,
            )?,
            parked: make.counters(
                "deliveries_parked_total",
                "Deliveries parked by reason.",
                &["reason"],
            )?,
        })
    }
}

impl Announcements {
    fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            taken: make.counters(
                "announcements_taken_total",
                "Announcements of due deliveries by result.",
                &["result"],
            )?,
            sent: make.counters(
                "announcements_sent_total",
                "Announcements handed to the retry service by result.",
                &["result"],
            )?,
        })
    }
}

impl Batches {
    fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            rows: make.histograms("batch_rows", "Rows in a batch by step.", &["step"], ROWS)?,
            seconds: make.histograms(
                "batch_seconds",
                "Duration of a batch in Postgres by step.",
                &["step"],
                SECONDS,
            )?,
        })
    }
}

impl Isolation {
    fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            in_flight: make.gauges(
                "requests_in_flight",
                "Requests in flight by lane.",
                &["lane"],
            )?,
            suspects_in_flight: make.gauges(
                "suspect_requests_in_flight",
                "Requests in flight to webhooks under suspicion by lane.",
                &["lane"],
            )?,
            waiting: make.gauges(
                "attempts_waiting",
                "Attempts that wait for a slot by lane.",
                &["lane"],
            )?,
            open_breakers: make.gauge("open_breakers", "Webhooks whose breaker is not closed.")?,
            tracked_webhooks: make.gauge(
                "tracked_webhooks",
                "Webhooks whose state is kept in memory.",
            )?,
            egress_paused: make.gauge(
                "egress_paused",
                "1 while our own network is held to be at fault.",
            )?,
        })
    }

    /// Takes over what the gate sees now.
    pub fn show(&self, seen: &Snapshot) {
        let gauges = [
            (&self.in_flight, seen.in_flight),
            (&self.suspects_in_flight, seen.suspects_in_flight),
            (&self.waiting, seen.waiting),
        ];
        for (gauge, lanes) in gauges {
            gauge.with_label_values(&["first"]).set(count(lanes.first));
            gauge.with_label_values(&["due"]).set(count(lanes.due));
        }
        self.open_breakers.set(count(seen.open_breakers));
        self.tracked_webhooks.set(count(seen.tracked_webhooks));
        self.egress_paused
            .set(i64::from(seen.egress == EgressState::Paused));
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
