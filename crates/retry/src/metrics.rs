//! Everything that the retry service counts, each beside the log line that goes with it.

use std::time::Duration;

use broker::PublishError;
use broker::delay::Bucket;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use store::StoreError;

/// Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    announcements: Announcements,
    tables: Tables,
    step_failures: IntCounterVec,
}

#[derive(Clone, Debug)]
struct Announcements {
    placed: IntCounterVec,
    early_returns: IntCounter,
    malformed: IntCounter,
    publish_failures: IntCounterVec,
    swept: IntCounter,
    unheard: IntCounter,
    oldest_waiting_s: IntGauge,
}

#[derive(Clone, Debug)]
struct Tables {
    dead_letters_moved: IntCounterVec,
    dead_letters_dropped: IntCounterVec,
    partition_days_ahead: IntGauge,
    partitions_dropped: IntCounter,
    partitions_kept: IntGauge,
    trimmed: IntCounterVec,
    disabled: IntCounter,
}

impl Metrics {
    /// Adds all of them to `registry`, once.
    ///
    /// # Errors
    /// When one is there already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        Ok(Self {
            announcements: Announcements::register(&registrar)?,
            tables: Tables::register(&registrar)?,
            step_failures: registrar.counters(
                "retry_step_failures_total",
                "Steps that failed and are tried again, by step.",
                "step",
            )?,
        })
    }

    /// An announcement stands in the bucket.
    pub fn placed(&self, bucket: Bucket, hops: u32) {
        let label = bucket.delay_ms().to_string();
        self.announcements.placed.with_label_values(&[&label]).inc();
        if hops > 0 {
            self.announcements.early_returns.inc();
        }
    }

    /// An announcement's time had come already.
    pub fn placed_due(&self) {
        self.announcements.placed.with_label_values(&["due"]).inc();
    }

    pub fn malformed(&self, error: &broker::BrokerError) {
        self.announcements.malformed.inc();
        tracing::warn!(error = %error.line(), "an announcement that can't be read goes to the dead letters");
    }

    /// An announcement is not known to stand anywhere: the sweep will announce its delivery.
    pub fn publish_failed(&self, error: &PublishError) {
        let reason = match error {
            PublishError::Unavailable(_) => "unavailable",
            PublishError::Refused => "refused",
            PublishError::Returned(_) => "returned",
            PublishError::Timeout(_) => "timeout",
            PublishError::TooLong(_) => "too_long",
        };
        self.announcements
            .publish_failures
            .with_label_values(&[reason])
            .inc();
        tracing::warn!(%error, "an announcement was not confirmed and is left to the sweep");
    }

    pub fn swept(&self, deliveries: usize) {
        self.announcements.swept.inc_by(count(deliveries));
        tracing::info!(deliveries, "announced overdue deliveries again");
    }

    /// A delivery that was announced again and again without an attempt. This ends nothing.
    pub fn unheard(&self, delivery: &store::delivery::Overdue) {
        self.announcements.unheard.inc();
        tracing::warn!(
            delivery_id = %delivery.delivery_id,
            webhook_id = %delivery.webhook_id,
            partner_id = %delivery.partner_id,
            turn = delivery.turn,
            announcements = delivery.announcements,
            overdue_since = %delivery.next_attempt_at,
            "an overdue delivery is announced again and again, and nobody tries it"
        );
    }

    pub fn oldest_waiting(&self, age: Duration) {
        let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        self.announcements.oldest_waiting_s.set(seconds);
    }

    pub fn dead_letters_moved(&self, line: &str, messages: usize) {
        self.tables
            .dead_letters_moved
            .with_label_values(&[line])
            .inc_by(count(messages));
        tracing::info!(line, messages, "moved messages into rows");
    }

    pub fn dead_letters_dropped(&self, line: &str, rows: usize) {
        self.tables
            .dead_letters_dropped
            .with_label_values(&[line])
            .inc_by(count(rows));
        if rows > 0 {
            tracing::info!(line, rows, "dropped rows beyond their age or size");
        }
    }

    pub fn partitions_ahead(&self, days: u32, alert_below_days: u32) {
        self.tables.partition_days_ahead.set(days.into());
        if days < alert_below_days {
            tracing::warn!(
                days,
                alert_below_days,
                "partitions are running out: without one for today nothing can be recorded"
            );
        }
    }

    pub fn partitions_dropped(&self, dropped: &store::partition::Dropped) {
        self.tables
            .partitions_dropped
            .inc_by(count(dropped.tables.len()));
        let kept = i64::try_from(dropped.kept.len()).unwrap_or(i64::MAX);
        self.tables.partitions_kept.set(kept);
        if !dropped.tables.is_empty() {
            tracing::info!(tables = ?dropped.tables, "dropped tables whose time was over");
        }
        if !dropped.kept.is_empty() {
            tracing::warn!(tables = ?dropped.kept, "kept tables whose time is over: they hold deliveries that are not final");
        }
    }

    pub fn trimmed(&self, table: &str, rows: usize) {
        self.tables
            .trimmed
            .with_label_values(&[table])
            .inc_by(count(rows));
        if rows > 0 {
            tracing::debug!(table, rows, "trimmed old rows");
        }
    }

    pub fn disabled(&self, webhook: &store::webhook::Failing) {
        self.tables.disabled.inc();
        tracing::warn!(
            webhook_id = %webhook.id,
            partner_id = %webhook.partner_id,
            failing_since = %webhook.failing_since,
            failures = webhook.failure_count,
            "disabled a webhook that did nothing but fail"
        );
    }

    pub fn step_failed(&self, step: &str, error: &StoreError) {
        self.step_failures.with_label_values(&[step]).inc();
        tracing::warn!(step, error = %runtime::exit::chain(error), "a step failed and will be tried again");
    }
}

impl Announcements {
    fn register(registrar: &Registrar<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            placed: registrar.counters(
                "retry_placed_total",
                "Announcements placed, by the delay of the bucket in ms; due: those whose time had come.",
                "bucket",
            )?,
            early_returns: registrar.counter(
                "retry_early_returns_total",
                "Announcements placed that had made a hop before.",
            )?,
            malformed: registrar.counter(
                "retry_malformed_total",
                "Announcements that can't be read, sent to the dead letters.",
            )?,
            publish_failures: registrar.counters(
                "retry_publish_failures_total",
                "Announcements that the broker did not confirm, left to the sweep; by reason.",
                "reason",
            )?,
            swept: registrar.counter(
                "retry_swept_total",
                "Overdue deliveries announced again.",
            )?,
            unheard: registrar.counter(
                "retry_unheard_total",
                "Overdue deliveries announced again for at least the tenth time without an attempt.",
            )?,
            oldest_waiting_s: registrar.gauge(
                "retry_oldest_waiting_seconds",
                "How long ago the most overdue delivery should have been tried; 0: none is overdue.",
            )?,
        })
    }
}

impl Tables {
    fn register(registrar: &Registrar<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            dead_letters_moved: registrar.counters(
                "retry_dead_letters_moved_total",
                "Messages moved into rows, by the queue that they came from.",
                "line",
            )?,
            dead_letters_dropped: registrar.counters(
                "retry_dead_letters_dropped_total",
                "Rows of rejected and dead messages dropped for their age or size, by their queue.",
                "line",
            )?,
            partition_days_ahead: registrar.gauge(
                "retry_partition_days_ahead",
                "Days after today whose partitions exist.",
            )?,
            partitions_dropped: registrar.counter(
                "retry_partitions_dropped_total",
                "Tables dropped because their time was over.",
            )?,
            partitions_kept: registrar.gauge(
                "retry_partitions_kept",
                "Tables whose time is over, kept because of deliveries that are not final.",
            )?,
            trimmed: registrar.counters(
                "retry_trimmed_rows_total",
                "Old rows trimmed, by table.",
                "table",
            )?,
            disabled: registrar.counter(
                "retry_webhooks_disabled_total",
                "Webhooks disabled because they did nothing but fail.",
            )?,
        })
    }
}

/// Makes metrics that are in the registry.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.added(IntCounter::new(name, help)?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.added(IntCounterVec::new(Opts::new(name, help), &[label])?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.added(IntGauge::new(name, help)?)
    }

    fn added<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
