//! Logs and traces of a process: log lines on stderr, spans over OTLP when an endpoint is configured. Everything in the
//! house writes with `tracing`; this module decides once, at start, where that goes, and flushes it at the end.
//!
//! Without an endpoint no span is built at all: trace ids still flow, because the broker's codecs pass `traceparent` on
//! as text. With one, spans follow the publisher's sampling decision, and `sample_ratio` of those that have none.

mod format;

use std::io::IsTerminal as _;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use serde::Deserialize;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};
use url::Url;

use crate::metrics::VERSION;

/// Libraries that log each reconnect or each connection (actix_http: each malformed request of a stranger, as an error);
/// a filter that names them wins.
const QUIET: &str = "lapin=off,hyper=warn,hyper_util=warn,reqwest=warn,rustls=warn,h2=warn,actix_server=warn,actix_http=off,\
                     hickory_net=warn,hickory_proto=warn,hickory_resolver=warn,tokio_postgres=warn,opentelemetry=warn";

/// The collector has this long for one batch of spans.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// What is not flushed by then is lost: an unreachable collector must not hold up the end of a process.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// The section `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `json` (one object a line) or `human`.
    pub log_format: LogFormat,
    /// Directives as in `info,dispatcher=debug`.
    pub log_filter: String,
    /// Base URL of an OTLP/HTTP collector, as in `http://127.0.0.1:4318`; empty: no spans.
    pub otlp_endpoint: String,
    /// Share of traces, 0 to 1, that are kept when the publisher has not decided.
    pub sample_ratio: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Json,
            log_filter: "info".to_owned(),
            otlp_endpoint: String::new(),
            sample_ratio: 0.05,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Json,
    Human,
}

/// Why telemetry could not be started. All are mistakes in the configuration, except `AlreadyStarted`.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("telemetry.log_filter is not a valid filter")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// The endpoint is not repeated, since it may hold credentials.
    #[error("telemetry.otlp_endpoint must be an http or https URL")]
    Endpoint,
    #[error("telemetry.sample_ratio must be between 0 and 1, and is {0}")]
    SampleRatio(f64),
    #[error("the exporter of spans cannot be built")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    #[error("telemetry was started before in this process")]
    AlreadyStarted(#[source] tracing_subscriber::util::TryInitError),
}

/// Held by `main` until the end of the process.
#[derive(Debug)]
#[must_use = "spans are flushed by `shutdown`"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Starts logs and traces for the whole process, once. `instance` is the name from [`crate::instance::name`]. The W3C
/// propagator is set in any case.
pub fn start(
    service: &'static str,
    instance: &str,
    config: &Config,
) -> Result<Telemetry, TelemetryError> {
    if !(0.0..=1.0).contains(&config.sample_ratio) {
        return Err(TelemetryError::SampleRatio(config.sample_ratio));
    }
    let filter = filter(&config.log_filter)?;
    let provider = match traces_url(&config.otlp_endpoint)? {
        Some(url) => Some(provider(service, instance, &url, config.sample_ratio)?),
        None => None,
    };
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let spans = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(service)));
    Registry::default()
        .with(spans)
        .with(log_layer(config.log_format))
        .with(filter)
        // Building spans that nobody exports took about 6 % of the dispatcher's time.
        .with(
            provider
                .is_none()
                .then(|| filter_fn(|metadata| metadata.is_event())),
        )
        .try_init()
        .map_err(TelemetryError::AlreadyStarted)?;
    tracing::info!(service, instance, version = VERSION, "starting");
    Ok(Telemetry { provider })
}

impl Telemetry {
    /// Sends what is still buffered, for at most five seconds. Blocks; called last.
    pub fn shutdown(self) {
        let Some(provider) = self.provider else {
            return;
        };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_DEADLINE) {
            tracing::warn!(%error, "spans were lost at the end");
        }
    }
}

fn filter(directives: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(format!("{QUIET},{directives}")).map_err(TelemetryError::Filter)
}

fn log_layer<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    // Colours are for a person at a terminal; in a file they are noise.
    let layer = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let installed = format::Installed::default();
    match format {
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .map_event_format(|inner| format::WithTraceId {
                inner,
                installed: installed.clone(),
            })
            .and_then(installed)
            .boxed(),
        LogFormat::Human => layer.boxed(),
    }
}

/// Where spans go: the endpoint, with OTLP's own path if it has none.
fn traces_url(endpoint: &str) -> Result<Option<Url>, TelemetryError> {
    if endpoint.is_empty() {
        return Ok(None);
    }
    let mut url = Url::parse(endpoint).map_err(|_| TelemetryError::Endpoint)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(TelemetryError::Endpoint);
    }
    if url.path() == "/" {
        url.set_path("/v1/traces");
    }
    Ok(Some(url))
}

fn provider(
    service: &'static str,
    instance: &str,
    url: &Url,
    sample_ratio: f64,
) -> Result<SdkTracerProvider, TelemetryError> {
    crate::exit::install_crypto_provider();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url.as_str())
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(TelemetryError::Exporter)?;
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attributes([
            KeyValue::new("service.version", VERSION),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ])
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            sample_ratio,
        ))))
        .with_resource(resource)
        .build())
}

#[cfg(test)]
mod tests;
