use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use super::*;

fn config(endpoint: &str) -> Config {
    Config {
        otlp_endpoint: endpoint.to_owned(),
        sample_ratio: 1.0,
        ..Config::default()
    }
}

#[test]
fn no_endpoint_means_no_spans() {
    assert!(traces_url("").unwrap().is_none());
}

#[test]
fn a_base_url_gets_the_path_of_otlp_and_a_full_one_keeps_its_own() {
    let url = |endpoint: &str| traces_url(endpoint).unwrap().unwrap().to_string();
    assert_eq!(
        url("http://127.0.0.1:4318"),
        "http://127.0.0.1:4318/v1/traces"
    );
    assert_eq!(
        url("http://127.0.0.1:4318/"),
        "http://127.0.0.1:4318/v1/traces"
    );
    assert_eq!(
        url("https://collector.example/x/v1"),
        "https://collector.example/x/v1"
    );
}

#[test]
fn an_endpoint_that_is_no_http_url_is_refused_without_repeating_it() {
    for endpoint in ["grpc://hunter2", "hunter2", "127.0.0.1:4318"] {
        let error = traces_url(endpoint).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}

#[test]
fn a_broken_filter_or_ratio_is_refused() {
    assert!(filter("info,dispatcher=debug").is_ok());
    assert!(matches!(
        filter("dispatcher=loudly").unwrap_err(),
        TelemetryError::Filter(_)
    ));
    for ratio in [-0.1, 1.1, f64::NAN] {
        let config = Config {
            sample_ratio: ratio,
            ..Config::default()
        };
        assert!(matches!(
            start("test", "i", &config).unwrap_err(),
            TelemetryError::SampleRatio(_)
        ));
    }
}

#[test]
fn libraries_are_quiet_unless_the_filter_names_them() {
    let quiet = filter("debug").unwrap().to_string();
    assert!(quiet.contains("lapin=off"), "{quiet}");
    let loud = filter("info,lapin=debug").unwrap().to_string();
    assert!(
        loud.contains("lapin=debug") && !loud.contains("lapin=off"),
        "{loud}"
    );
}

#[test]
fn a_json_line_within_a_traced_span_carries_the_ids() {
    let lines = Lines::default();
    let sink = lines.clone();
    let provider = SdkTracerProvider::builder().build();
    let installed = format::Installed::default();
    let subscriber = Registry::default()
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")))
        .with(installed.clone())
        .with(
            fmt::layer()
                .with_writer(move || sink.clone())
                .json()
                .flatten_event(true)
                .map_event_format(|inner| format::WithTraceId { inner, installed }),
        );
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("outside");
        tracing::info_span!("send").in_scope(|| tracing::info!(status = 200, "inside"));
    });
    let lines = lines.take();
    let line = |message: &str| {
        lines
            .iter()
            .find(|line| line["message"] == message)
            .unwrap_or_else(|| panic!("{lines:?}"))
    };
    assert!(line("outside").get("trace_id").is_none());
    assert_eq!(line("inside")["trace_id"].as_str().unwrap().len(), 32);
    assert_eq!(line("inside")["span_id"].as_str().unwrap().len(), 16);
    assert_eq!(line("inside")["status"], 200);
}

#[test]
fn a_span_reaches_the_collector_by_shutdown_at_the_latest() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sent, received) = mpsc::channel();
    std::thread::spawn(move || sent.send(answer(listener.accept().unwrap().0)).unwrap());

    let url = traces_url(&config(&endpoint).otlp_endpoint)
        .unwrap()
        .unwrap();
    let provider = provider("dispatcher", "instance-1", &url, 1.0).unwrap();
    let subscriber = Registry::default()
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("dispatcher")));
    tracing::subscriber::with_default(subscriber, || {
        tracing::info_span!("deliver").in_scope(|| {});
    });
    Telemetry {
        provider: Some(provider),
    }
    .shutdown();

    let request = received.recv_timeout(FLUSH_DEADLINE).unwrap();
    let text = String::from_utf8_lossy(&request);
    assert!(text.starts_with("POST /v1/traces "), "{text}");
    for word in ["deliver", "dispatcher", "instance-1", VERSION] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
}

/// Reads one HTTP request whole and answers it with an empty 200.
fn answer(mut stream: TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&request) {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the request was cut off");
        request.extend_from_slice(&buffer[..read]);
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    request
}

fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap()
        .parse()
        .unwrap();
    request.len() >= end + 4 + length
}

/// A writer that keeps its lines.
#[derive(Debug, Clone, Default)]
struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Lines {
    fn take(&self) -> Vec<serde_json::Value> {
        let bytes = self.0.lock().unwrap();
        serde_json::Deserializer::from_slice(&bytes)
            .into_iter()
            .map(Result::unwrap)
            .collect()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
