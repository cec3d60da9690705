//! The admin port of a process: `/live`, `/ready` and `/metrics`, for an orchestrator and for Prometheus. It reads
//! [`Readiness`], which the service's loops write, and the registry. It is bound before anything else is connected, so
//! that a service which waits for Postgres says so, and goes on answering while the service drains.

mod readiness;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::Server;
use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, web};
use prometheus::Registry;
use serde::Deserialize;

pub use self::readiness::{Check, Readiness};
use crate::Shutdown;

/// The main runtime shows this often that its tasks still run.
const BEAT: Duration = Duration::from_secs(1);

/// A main runtime that has shown nothing for this long is stuck: `/live` fails and the process is to be killed.
pub const STALL_MAX: Duration = Duration::from_secs(15);

/// Requests that are being answered when the port closes have this long, in seconds.
const CLOSE_TIMEOUT_S: u64 = 1;

/// The section `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `IP:port`; port 0 takes a free one.
    pub address: SocketAddr,
}

impl Config {
    /// The loopback address with a port: the default of a service.
    pub fn local(port: u16) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }
}

/// The admin port cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the admin address {address}")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// A bound port that answers once [`Self::run`] is polled.
#[must_use = "the port answers only while `run` does"]
pub struct Probes {
    server: Server,
    local_addr: SocketAddr,
    pulse: Arc<Pulse>,
}

/// Opens the port. Must be called within a Tokio runtime.
pub async fn bind(
    config: &Config,
    readiness: Readiness,
    registry: Registry,
) -> Result<Probes, BindError> {
    let address = config.address;
    let failed = |source| BindError { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    let pulse = Arc::new(Pulse::new());
    let shared = web::Data::from(Arc::clone(&pulse));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .app_data(web::Data::new(readiness.clone()))
            .app_data(web::Data::new(registry.clone()))
            .route("/live", web::get().to(live))
            .route("/ready", web::get().to(ready))
            .route("/metrics", web::get().to(metrics))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(CLOSE_TIMEOUT_S)
    .listen(listener)
    .map_err(failed)?
    .run();
    Ok(Probes {
        server,
        local_addr,
        pulse,
    })
}

impl Probes {
    /// The address that was bound, with the port that port 0 became.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until `shutdown` has begun. That should be one of its own, which begins when the service has drained.
    pub async fn run(self, shutdown: Shutdown) -> io::Result<()> {
        let handle = self.server.handle();
        let pulse = self.pulse;
        let stop = async {
            let mut beat = tokio::time::interval(BEAT);
            loop {
                tokio::select! {
                    () = shutdown.begun() => break,
                    _ = beat.tick() => pulse.beat(Instant::now()),
                }
            }
            handle.stop(true).await;
        };
        let (served, ()) = tokio::join!(self.server, stop);
        served
    }
}

/// When the main runtime last ran a task. The port has a thread of its own, which would go on answering without it.
struct Pulse {
    start: Instant,
    last_ms: AtomicU64,
}

impl Pulse {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            last_ms: AtomicU64::new(0),
        }
    }

    fn beat(&self, now: Instant) {
        self.last_ms.store(self.elapsed_ms(now), Ordering::Relaxed);
    }

    fn is_alive(&self, now: Instant) -> bool {
        let silent_ms = self
            .elapsed_ms(now)
            .saturating_sub(self.last_ms.load(Ordering::Relaxed));
        Duration::from_millis(silent_ms) <= STALL_MAX
    }

    fn elapsed_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

async fn live(pulse: web::Data<Pulse>) -> HttpResponse {
    if pulse.is_alive(Instant::now()) {
        HttpResponse::Ok().body("alive\n")
    } else {
        HttpResponse::ServiceUnavailable().body("the main runtime is stuck\n")
    }
}

async fn ready(readiness: web::Data<Readiness>) -> HttpResponse {
    let report = readiness.report();
    if report.ready {
        HttpResponse::Ok().json(report)
    } else {
        HttpResponse::ServiceUnavailable().json(report)
    }
}

async fn metrics(registry: web::Data<Registry>) -> HttpResponse {
    match crate::metrics::render(&registry) {
        Ok(text) => HttpResponse::Ok()
            .content_type("text/plain; version=0.0.4; charset=utf-8")
            .body(text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be rendered");
            HttpResponse::InternalServerError()
                .content_type(ContentType::plaintext())
                .body("metrics cannot be rendered\n")
        }
    }
}

#[cfg(test)]
mod tests;
