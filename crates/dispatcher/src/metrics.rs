//! Everything that the dispatcher counts, made and registered in one place.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// Seconds, from what loopback takes to the time-out of an attempt.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Rows in a batch.
const ROWS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0];

#[derive(Clone, Debug)]
pub struct Metrics {
    /// Events taken from the broker, by what became of them: recorded, duplicate, in_progress, rejected, dead,
    /// put_back.
    pub events: IntCounterVec,
    /// Events rejected, by code.
    pub rejections: IntCounterVec,
    /// Attempts ended, by lane (first, due, test) and result (delivered, or the kind of the failure).
    pub attempts: IntCounterVec,
    /// Seconds that an attempt took, by lane.
    pub attempt_seconds: HistogramVec,
    /// Seconds from taking an event from the broker to the start of a first attempt.
    pub first_attempt_delay_seconds: Histogram,
    /// Deliveries parked, by reason.
    pub parked: IntCounterVec,
    /// Announcements taken, by what became of them: started, parked, ended, early, stale,
    /// unreadable, missing, malformed, put_back.
    pub announcements_taken: IntCounterVec,
    /// Announcements published after a commit, by result: confirmed, left_to_sweep.
    pub announcements_sent: IntCounterVec,
    /// Rows in a batch, by step (claim, record).
    pub batch_rows: HistogramVec,
    /// Seconds that a batch took in Postgres, by step.
    pub batch_seconds: HistogramVec,
    /// Requests in flight, by lane.
    pub in_flight: IntGaugeVec,
    /// Requests in flight to webhooks under suspicion, by lane.
    pub suspects_in_flight: IntGaugeVec,
    /// Attempts that wait for a slot, by lane.
    pub waiting: IntGaugeVec,
    pub open_breakers: IntGauge,
    pub tracked_webhooks: IntGauge,
    /// 1 while our own network is held to be at fault.
    pub egress_paused: IntGauge,
    /// Loads of subscriptions from Postgres, in statements' rows.
    pub subscription_loads: IntCounter,
    /// Webhooks disabled after a 410.
    pub webhooks_gone: IntCounter,
    /// Generations dropped because this process had stood still.
    pub stalls: IntCounter,
}

impl Metrics {
    /// Notes a batch that Postgres took.
    pub fn batch(&self, step: &str, rows: usize, seconds: f64) {
        self.batch_rows
            .with_label_values(&[step])
            .observe(rows as f64);
        self.batch_seconds
            .with_label_values(&[step])
            .observe(seconds);
    }

    /// Makes and registers all of them.
    ///
    /// # Errors
    /// When a name is taken already.
    #[expect(clippy::too_many_lines, reason = "one line of a list for each metric")]
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let make = Maker(registry);
        Ok(Self {
            events: make.counters(
                "events_total",
                "Events taken from the broker by result.",
                &["result"],
            )?,
            rejections: make.counters(
                "events_rejected_total",
                "Events rejected by code.",
                &["code"],
            )?,
            attempts: make.counters(
                "attempts_total",
                "Attempts by lane and result.",
                &["lane", "result"],
            )?,
            attempt_seconds: make.histograms(
                "attempt_duration_seconds",
                "Duration of attempts by lane.",
                &["lane"],
                SECONDS,
            )?,
            first_attempt_delay_seconds: make.histogram(
                "event_to_first_attempt_seconds",
                "Time from taking an event to its first attempts.",
            )?,
            parked: make.counters(
                "deliveries_parked_total",
                "Deliveries parked by reason.",
                &["reason"],
            )?,
            announcements_taken: make.counters(
                "announcements_taken_total",
                "Announcements of due deliveries by result.",
                &["result"],
            )?,
            announcements_sent: make.counters(
                "announcements_sent_total",
                "Announcements handed to the retry service by result.",
                &["result"],
            )?,
            batch_rows: make.histograms(
                "batch_rows",
                "Rows in a batch by step.",
                &["step"],
                ROWS,
            )?,
            batch_seconds: make.histograms(
                "batch_seconds",
                "Duration of a batch in Postgres by step.",
                &["step"],
                SECONDS,
            )?,
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
            subscription_loads: make
                .counter("subscription_loads_total", "Partners loaded from Postgres.")?,
            webhooks_gone: make.counter("webhooks_gone_total", "Webhooks disabled after a 410.")?,
            stalls: make.counter(
                "stalls_total",
                "Broker generations dropped after this process stood still.",
            )?,
        })
    }
}

/// Makes metrics under the product's and the service's name.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(name, help)
            .namespace("vellocity")
            .subsystem("dispatcher")
    }

    fn add<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        metric: C,
    ) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::with_opts(Self::opts(name, help))?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Self::opts(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::with_opts(Self::opts(name, help))?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Self::opts(name, help), labels)?)
    }

    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let opts = HistogramOpts {
            common_opts: Self::opts(name, help),
            buckets: SECONDS.to_vec(),
        };
        self.add(Histogram::with_opts(opts)?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts {
            common_opts: Self::opts(name, help),
            buckets: buckets.to_vec(),
        };
        self.add(HistogramVec::new(opts, labels)?)
    }
}
