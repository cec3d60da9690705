//! What the management API counts, for `/metrics` on the admin port.

use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// In seconds. A test call waits for up to 15.
const BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
];

#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    pub rate_limited_partners: IntCounter,
    pub rate_limited_addresses: IntCounter,
    pub idempotent_replays: IntCounter,
    pub outbox_pending: IntGauge,
    pub outbox_published: IntCounter,
    pub outbox_failed: IntCounter,
    test_calls: IntCounterVec,
}

/// How a test call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestCallResult {
    Delivered,
    Failed,
    /// No dispatcher answered in time.
    Unanswered,
    /// RabbitMQ did not take the question.
    Unavailable,
}

impl TestCallResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Metrics {
    /// # Errors
    /// When one of the names is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| add(registry, IntCounter::new(name, help)?);
        let labelled = |name: &str, help: &str, labels: &[&str]| {
            add(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let limited = labelled(
            "api_rate_limited_total",
            "Requests refused with 429, by what they are counted by.",
            &["by"],
        )?;
        let duration = HistogramOpts::new(
            "api_request_duration_seconds",
            "Time from a request's head to its answer, by route.",
        );
        Ok(Self {
            requests: labelled(
                "api_requests_total",
                "Requests answered, by route, method and status.",
                &["route", "method", "status"],
            )?,
            duration: add(
                registry,
                HistogramVec::new(duration.buckets(BUCKETS.to_vec()), &["route", "method"])?,
            )?,
            rate_limited_partners: limited.with_label_values(&["partner"]),
            rate_limited_addresses: limited.with_label_values(&["address"]),
            idempotent_replays: counter(
                "api_idempotent_replays_total",
                "First answers that were given again.",
            )?,
            outbox_pending: add(
                registry,
                IntGauge::new("outbox_pending", "Subscription changes not yet published.")?,
            )?,
            outbox_published: counter(
                "outbox_published_total",
                "Subscription changes that the broker confirmed.",
            )?,
            outbox_failed: counter(
                "outbox_failed_total",
                "Subscription changes that the broker did not confirm; each is tried again.",
            )?,
            test_calls: labelled(
                "api_test_calls_total",
                "Test calls of webhooks, by what came of them.",
                &["result"],
            )?,
        })
    }

    pub fn request(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let method = label(method);
        self.requests
            .with_label_values(&[route, method, status.as_str()])
            .inc();
        self.duration
            .with_label_values(&[route, method])
            .observe(took.as_secs_f64());
    }

    pub fn test_call(&self, result: TestCallResult) {
        self.test_calls.with_label_values(&[result.as_str()]).inc();
    }
}

/// A client can make up any method: those that nobody serves are one.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn add<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_by_route_method_and_status() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let took = Duration::from_millis(3);
        metrics.request("/x", &Method::GET, StatusCode::OK, took);
        let made_up = Method::from_bytes(b"FOO").unwrap();
        metrics.request("none", &made_up, StatusCode::NOT_FOUND, took);
        metrics.test_call(TestCallResult::Delivered);
        let text = runtime::metrics::render(&registry).unwrap();
        for line in [
            r#"api_requests_total{method="GET",route="/x",status="200"} 1"#,
            r#"api_requests_total{method="other",route="none",status="404"} 1"#,
            r#"api_request_duration_seconds_count{method="GET",route="/x"} 1"#,
            r#"api_rate_limited_total{by="partner"} 0"#,
            r#"api_test_calls_total{result="delivered"} 1"#,
            "outbox_pending 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
