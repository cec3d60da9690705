//! One request to a receiver and what came of it. What a receiver did is data here, never an `Err`.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};

/// An attempt, as a partner will want to read it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When the request was begun, by the dispatcher's clock.
    pub started_at: DateTime<Utc>,
    pub outcome: Outcome,
    /// The receiver's answer as far as it was read; there may be one beside a failure.
    pub response: Option<Response>,
    pub timings: Timings,
    /// How long the receiver asked us to wait, if it did.
    pub retry_after: Option<Duration>,
}

/// The answer, cut to what is kept. Bytes, since receivers send anything.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    /// Lines `name: value`, each ended by a line feed.
    pub headers: Bytes,
    pub body: Bytes,
}

/// Where the time went. A part that did not happen (a reused connection, plain http) is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    pub dns: Option<Duration>,
    pub connect: Option<Duration>,
    pub tls: Option<Duration>,
    pub first_byte: Option<Duration>,
    pub total: Duration,
    /// Whether the request went over a connection that was open already.
    pub reused_connection: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A complete answer with a 2xx status.
    Delivered,
    Failed(Failure),
}

/// What went wrong: a kind for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

/// How an attempt failed. The breaker, the retry policy and metrics tell these apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The host has no address, or its name server did not answer.
    Dns,
    /// The host's address is one that nothing of ours may reach.
    ForbiddenAddress,
    /// Refused, unreachable, or no connection within the limit.
    Connect,
    /// No TLS session: certificate, protocol or handshake.
    Tls,
    /// No complete answer within the limit.
    Timeout,
    /// The connection ended before the answer was complete.
    ConnectionClosed,
    /// What came back is not HTTP, or more of it than is read.
    Protocol,
    /// A complete answer whose status is not 2xx.
    Status(u16),
}

impl FailureKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::ForbiddenAddress => "forbidden_address",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::ConnectionClosed => "connection_closed",
            Self::Protocol => "protocol",
            Self::Status(_) => "status",
        }
    }

    /// Whether the network, and not the receiver's program, may be at fault. Used to find out that ours is.
    #[must_use]
    pub fn is_transport(self) -> bool {
        matches!(
            self,
            Self::Dns | Self::Connect | Self::Tls | Self::Timeout | Self::ConnectionClosed
        )
    }

    /// Whether the receiver itself is in trouble. Other 4xx are answers of a receiver that works.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        match self {
            Self::Status(status) => status >= 500 || matches!(status, 408 | 425 | 429),
            _ => true,
        }
    }
}

impl Attempt {
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        self.outcome == Outcome::Delivered
    }

    /// The answer's status, if one came.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.response.as_ref().map(|r| r.status)
    }

    /// Whether the receiver said 410: it is gone for good.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(&self.outcome, Outcome::Failed(f) if f.kind == FailureKind::Status(410))
    }

    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match &self.outcome {
            Outcome::Delivered => None,
            Outcome::Failed(failure) => Some(failure),
        }
    }
}
