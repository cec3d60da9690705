//! Sends one signed request to one webhook and tells what came of it.
//!
//! Reads: the URL and the keyed signer of a subscription, an event's body. Writes nothing but the request; the
//! [`Attempt`] that it returns goes to `record`. Called by `fan_out` for first attempts, and by whoever takes due
//! deliveries and test calls. Nothing here decides *whether* to send (caps, breakers, pauses), and whatever a receiver
//! does is an [`Outcome`], never an error.
//!
//! ```text
//! Sender::send -> request (headers, signatures) -> pool -> connect (resolve -> check -> TCP -> TLS) -> answer
//! ```
//!
//! It is built on hyper-util's client with a connector of our own, and not on reqwest: an attempt's record says how long
//! DNS, TCP and TLS took and whether the connection was an old one, and reqwest can tell neither TLS apart from the
//! connect nor a reused connection from a new one. The connector also makes the rule about private networks tight: each
//! new connection resolves the name, checks every address, and connects to one of those, so that a name server has no
//! second chance to answer differently; a kept connection stays on the address that was checked.

mod answer;
mod connect;
mod failure;
mod race;
mod request;
mod resolve;
mod retry_after;
mod stream;
mod tls;
mod trace;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use domain::attempt::{Attempt, Failure, Outcome};
use domain::network::NetworkPolicy;
use domain::signature::Signer;
use domain::webhook_url::WebhookUrl;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use runtime::resolver::Resolver;
use serde::Deserialize;

use answer::Answer;
use connect::Connector;
use trace::Trace;

/// Head of an answer in HTTP/1: the status line and all headers. HTTP/2 counts them without the line.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header lines of an answer in HTTP/1: hyper's own limit, which can only be raised at a cost for every answer.
const HEAD_LINES_MAX: usize = 100;
/// Bytes of one HTTP/2 stream that a receiver may send ahead of our reading.
const H2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same for a whole HTTP/2 connection.
const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const H2_PING_INTERVAL: Duration = Duration::from_secs(10);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries on connections from the pool before one that insists on a new connection.
const POOLED_TRIES: usize = 2;

/// How requests are sent.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Longest wait for a connection, in milliseconds: name, TCP and TLS together.
    pub connect_timeout_ms: u32,
    /// Longest attempt, in milliseconds: from the first step to the last byte of the answer that is read.
    pub timeout_ms: u32,
    /// How long an idle connection is kept, in milliseconds. Receivers close theirs after 5 s (Node) to 75 s (nginx).
    pub pool_idle_timeout_ms: u32,
    /// Idle connections that are kept for one host; best as many as `isolation.in_flight_max`. With fewer, a busy host's
    /// are opened and closed all the time.
    pub pool_idle_per_host: usize,
    /// Open connections, to all hosts, beyond which one that has served its request is closed instead of kept. With the
    /// requests in flight it bounds the sockets.
    pub pool_connections: usize,
    /// A PEM file of certificates that are trusted beside the public ones; for receivers of one's own.
    pub extra_ca_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 3_000,
            timeout_ms: 10_000,
            pool_idle_timeout_ms: 15_000,
            pool_idle_per_host: 1_024,
            pool_connections: 2_048,
            extra_ca_file: None,
        }
    }
}

/// A configuration that no sender can be made of.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "connect_timeout_ms ({connect_timeout_ms}) must be at least 1 and at most timeout_ms ({timeout_ms})"
    )]
    Timeouts {
        connect_timeout_ms: u32,
        timeout_ms: u32,
    },
    #[error("the certificates in {} can't be read", path.display())]
    ExtraCaFile {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("{} holds no usable certificate", path.display())]
    NoExtraCa { path: PathBuf },
    #[error("TLS can't be set up")]
    Tls(#[source] rustls::Error),
}

/// What to send, and where.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub url: &'a WebhookUrl,
    pub signer: &'a Signer,
    /// Value of `X-Vellocity-Event`.
    pub event_type: &'a str,
    /// Value of `X-Vellocity-Delivery` and `webhook-id`: the same for every attempt of a delivery.
    pub delivery_id: &'a str,
    pub body: Bytes,
}

/// Sends requests and keeps the connections. One a process, shared behind an `Arc`; it ends its connections when it is
/// dropped. It sets no bound on requests in flight: the caller's caps do.
#[derive(Debug)]
pub struct Sender {
    pooled: Client<Connector, Full<Bytes>>,
    /// Keeps no connection, so each of its requests goes over a new one.
    fresh: Client<Connector, Full<Bytes>>,
    timeout: Duration,
}

impl Sender {
    /// # Errors
    /// When the limits don't fit together, or the file with extra certificates can't be used.
    pub fn new(
        config: &Config,
        policy: NetworkPolicy,
        resolver: Resolver,
    ) -> Result<Self, ConfigError> {
        let (connect_timeout_ms, timeout_ms) = (config.connect_timeout_ms, config.timeout_ms);
        if connect_timeout_ms == 0 || connect_timeout_ms > timeout_ms {
            return Err(ConfigError::Timeouts {
                connect_timeout_ms,
                timeout_ms,
            });
        }
        let connector = Connector::new(
            policy,
            resolver,
            tls::connector(config.extra_ca_file.as_deref())?,
            Duration::from_millis(connect_timeout_ms.into()),
            config.pool_connections,
        );
        let mut builder = client_builder(config);
        Ok(Self {
            pooled: builder.build(connector.clone()),
            fresh: builder.pool_max_idle_per_host(0).build(connector),
            timeout: Duration::from_millis(timeout_ms.into()),
        })
    }

    /// Makes one attempt. Takes at most the configured time-out, and may be dropped at any point.
    ///
    /// Of the times, `first_byte` runs from the start of the attempt to the head of the answer, connecting included;
    /// `dns`, `connect` and `tls` are those of the connection, and stand only on the first attempt that went over it,
    /// or that failed for want of it.
    pub async fn send(&self, request: &Request<'_>) -> Attempt {
        let mut trace = Trace::begin();
        let result = tokio::time::timeout(self.timeout, self.exchange(request, &mut trace)).await;
        let outcome = match result {
            Ok(Ok(())) => Outcome::Delivered,
            Ok(Err(failure)) => Outcome::Failed(failure),
            Err(_elapsed) => Outcome::Failed(trace.timed_out(self.timeout)),
        };
        trace.into_attempt(outcome)
    }

    async fn exchange(&self, request: &Request<'_>, trace: &mut Trace) -> Result<(), Failure> {
        let (head, mut body) = self.response(request, trace).await?.into_parts();
        let answer = trace.answered(Answer::begin(head, Utc::now()));
        answer.read(&mut body).await
    }

    /// A receiver may close a kept connection at the very moment when a request is written to it. That says nothing
    /// about the receiver, so it costs no attempt: the request is written again, at last on a new connection.
    async fn response(
        &self,
        request: &Request<'_>,
        trace: &mut Trace,
    ) -> Result<http::Response<Incoming>, Failure> {
        for _ in 0..POOLED_TRIES {
            match trace.ask(&self.pooled, request).await? {
                Ok(response) => return Ok(response),
                Err(error) if trace.is_stale(&error) => {}
                Err(error) => return Err(trace.broke_off(&error)),
            }
        }
        let result = trace.ask(&self.fresh, request).await?;
        result.map_err(|error| trace.broke_off(&error))
    }
}

fn client_builder(config: &Config) -> legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_millis(config.pool_idle_timeout_ms.into()))
        .pool_max_idle_per_host(config.pool_idle_per_host)
        // Header names are case-insensitive; this is the page's spelling, for receivers that don't know it.
        .http1_title_case_headers(true)
        // One odd header line in an answer is no reason to call the delivery failed.
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_max_buf_size(HEAD_BYTES_MAX)
        .http2_max_header_list_size(HEAD_BYTES_MAX as u32)
        .http2_initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(H2_PING_INTERVAL)
        .http2_keep_alive_timeout(H2_PING_TIMEOUT);
    builder
}

#[cfg(test)]
mod tests;
