//! What is known of an attempt under way. It stands outside of the time-out, so that what was learned before the end
//! of the time is not lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::attempt::{Attempt, Failure, FailureKind, Outcome, Timings};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{self, Client};
use tokio::time::Instant;

use super::answer::Answer;
use super::connect::{Connector, StepTimes};
use super::stream::ConnectionInfo;
use super::{Request, failure, request};

pub(super) struct Trace {
    started_at: DateTime<Utc>,
    started: Instant,
    /// Tells the connection of the request under way as soon as there is one.
    capture: Option<CaptureConnection>,
    connection: Option<Arc<ConnectionInfo>>,
    reused: bool,
    /// Steps of a connect that failed.
    failed_connect: Option<StepTimes>,
    first_byte: Option<Duration>,
    answer: Option<Answer>,
}

impl Trace {
    pub(super) fn begin() -> Self {
        Self {
            started_at: Utc::now(),
            started: Instant::now(),
            capture: None,
            connection: None,
            reused: false,
            failed_connect: None,
            first_byte: None,
            answer: None,
        }
    }

    /// Notes that the head of an answer has come.
    pub(super) fn answered(&mut self, answer: Answer) -> &mut Answer {
        self.first_byte = Some(self.started.elapsed());
        self.answer.insert(answer)
    }

    /// Sends the request once. The outer error is one of ours, found before anything was sent.
    pub(super) async fn ask(
        &mut self,
        client: &Client<Connector, Full<Bytes>>,
        request: &Request<'_>,
    ) -> Result<Result<http::Response<Incoming>, legacy::Error>, Failure> {
        let mut message = request::build(request, self.started_at.timestamp())?;
        self.connection = None;
        self.reused = false;
        self.capture = Some(capture_connection(&mut message));
        let result = client.request(message).await;
        self.note_connection();
        if let Err(error) = &result {
            self.failed_connect = failure::connect_error(error).map(|error| error.steps);
        }
        Ok(result)
    }

    /// Looks at the connection of the request under way, once.
    fn note_connection(&mut self) {
        let Some(capture) = self.capture.take() else {
            return;
        };
        let metadata = capture.connection_metadata();
        let Some(connected) = metadata.as_ref() else {
            return;
        };
        let mut extensions = http::Extensions::new();
        connected.get_extras(&mut extensions);
        if let Some(info) = extensions.remove::<Arc<ConnectionInfo>>() {
            self.reused = info.mark_used();
            if !info.is_worth_keeping() {
                connected.poison();
            }
            self.connection = Some(info);
        }
    }

    /// Whether the request met a connection that its receiver had given up, before any byte of an answer.
    pub(super) fn is_stale(&self, error: &legacy::Error) -> bool {
        self.reused
            && self.connection.is_some()
            && !self.has_begun_to_answer()
            && failure::is_closed_unanswered(error)
    }

    pub(super) fn broke_off(&self, error: &legacy::Error) -> Failure {
        failure::of_request(error, self.has_begun_to_answer())
    }

    pub(super) fn timed_out(&mut self, timeout: Duration) -> Failure {
        self.note_connection();
        let within = failure::seconds(timeout);
        let message = match &self.answer {
            Some(answer) => format!(
                "answered {}, but not completely within {within}",
                answer.status()
            ),
            None if self.has_begun_to_answer() => {
                format!("an answer began, but its headers were not complete within {within}")
            }
            None => format!("no answer within {within}"),
        };
        Failure {
            kind: FailureKind::Timeout,
            message,
        }
    }

    fn has_begun_to_answer(&self) -> bool {
        let heard = |info: &Arc<ConnectionInfo>| !info.is_http2() && info.has_answered();
        self.connection.as_ref().is_some_and(heard)
    }

    pub(super) fn into_attempt(mut self, outcome: Outcome) -> Attempt {
        self.note_connection();
        let mut timings = Timings {
            first_byte: self.first_byte,
            reused_connection: self.reused,
            total: self.started.elapsed(),
            ..Timings::default()
        };
        let opened = self.connection.as_ref().filter(|_| !self.reused);
        if let Some(steps) = opened.map(|info| info.steps()).or(self.failed_connect) {
            timings.dns = steps.dns;
            timings.connect = steps.connect;
            timings.tls = steps.tls;
        }
        let delivered = outcome == Outcome::Delivered;
        let retry_after = self.answer.as_ref().and_then(Answer::retry_after);
        Attempt {
            started_at: self.started_at,
            outcome,
            response: self.answer.map(|answer| answer.into_response(delivered)),
            timings,
            retry_after,
        }
    }
}
