//! What went wrong, in words that a partner understands, from the errors of hyper, TLS and TCP.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use domain::attempt::{Failure, FailureKind};
use domain::printable;
use http::StatusCode;
use hyper_util::client::legacy;

use super::connect::ConnectError;
use super::{HEAD_BYTES_MAX, HEAD_LINES_MAX, tls};

/// Longest text of a receiver's that is repeated in a message, in characters.
const QUOTED_CHARS_MAX: usize = 200;

/// A request without an answer, or with the beginning of one.
pub(super) fn of_request(error: &legacy::Error, has_begun_to_answer: bool) -> Failure {
    let closed = if has_begun_to_answer {
        "an answer began, but the connection was closed before its headers were complete"
    } else {
        "the connection was closed before an answer came"
    };
    match connect_error(error) {
        Some(error) => error.failure.clone(),
        None => of_connection(error, closed),
    }
}

/// An answer without its end.
pub(super) fn of_body(error: &hyper::Error, status: StatusCode) -> Failure {
    let mut failure = of_connection(
        error,
        "the connection was closed before the answer was complete",
    );
    // Infallible for a string.
    let _ = write!(failure.message, " (the status was {})", status.as_u16());
    failure
}

/// A complete answer that is no success.
pub(super) fn of_status(status: StatusCode, location: Option<&[u8]>) -> Failure {
    let code = status.as_u16();
    let message = match (code, location) {
        (301 | 302 | 303 | 307 | 308, Some(location)) => format!(
            "answered {code}: redirects are not followed (Location: {})",
            printable(location)
        ),
        (301 | 302 | 303 | 307 | 308, None) => {
            format!("answered {code}: redirects are not followed")
        }
        _ => match status.canonical_reason() {
            Some(reason) => format!("answered {code} {reason}"),
            None => format!("answered {code}"),
        },
    };
    Failure {
        kind: FailureKind::Status(code),
        message,
    }
}

pub(super) fn of_tcp(error: &io::Error, remote: SocketAddr) -> Failure {
    use io::ErrorKind as K;
    let message = match error.kind() {
        K::ConnectionRefused => format!("connection refused by {remote}"),
        K::ConnectionReset | K::ConnectionAborted => format!("connection reset by {remote}"),
        K::NetworkUnreachable | K::HostUnreachable => format!("{remote} can't be reached"),
        K::TimedOut => format!("no connection to {remote} in time"),
        _ => format!("no connection to {remote}"),
    };
    Failure {
        kind: FailureKind::Connect,
        message,
    }
}

/// Our connector's own error, if the request failed for want of a connection.
pub(super) fn connect_error(error: &legacy::Error) -> Option<&ConnectError> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// Whether the other end gave the connection up, rather than answer wrongly.
pub(super) fn is_closed_unanswered(error: &legacy::Error) -> bool {
    chain(error).any(|error| {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_io()
                || error.is_go_away()
                || error.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        is_closed(error)
    })
}

fn of_connection(error: &(dyn Error + 'static), closed: &str) -> Failure {
    if let Some(error) = chain(error).find_map(tls_error) {
        return tls::failure(error, None);
    }
    let (kind, message) = if chain(error).any(is_ping_timeout) {
        let message = "the connection was given up: the receiver stopped answering pings";
        (FailureKind::ConnectionClosed, message.to_owned())
    } else if chain(error).any(is_http2_reset) {
        let message = "the receiver broke off the HTTP/2 stream";
        (FailureKind::ConnectionClosed, message.to_owned())
    } else if chain(error).any(is_closed) {
        (FailureKind::ConnectionClosed, closed.to_owned())
    } else if chain(error).any(is_in_head) {
        let message = format!(
            "what came back is not a valid HTTP answer, or its headers are too large ({} KiB or {HEAD_LINES_MAX} lines \
             are read at most)",
            HEAD_BYTES_MAX / 1024
        );
        (FailureKind::Protocol, message)
    } else {
        let message = "what came back is not a valid HTTP answer";
        (FailureKind::Protocol, message.to_owned())
    };
    Failure { kind, message }
}

/// A fault in the head, where hyper does not tell a large one from a wrong one. HTTP/2 does not even tell head and body
/// apart.
fn is_in_head(error: &(dyn Error + 'static)) -> bool {
    error
        .downcast_ref::<hyper::Error>()
        .is_some_and(hyper::Error::is_parse)
        || error.is::<h2::Error>()
}

fn is_closed(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error.is_incomplete_message() || error.is_canceled() || error.is_closed();
    }
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return error.is_io() || error.is_go_away();
    }
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| is_closing(error.kind()))
}

fn is_closing(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as K;
    // Everything that TCP reports when the other end, or the way to it, is gone. Wrong bytes are `Invalid…` instead.
    matches!(
        kind,
        K::UnexpectedEof
            | K::ConnectionReset
            | K::ConnectionAborted
            | K::BrokenPipe
            | K::NotConnected
            | K::TimedOut
            | K::HostUnreachable
            | K::NetworkUnreachable
    )
}

fn is_ping_timeout(error: &(dyn Error + 'static)) -> bool {
    error
        .downcast_ref::<hyper::Error>()
        .is_some_and(hyper::Error::is_timeout)
}

/// A reset that is not a fault found in the bytes.
fn is_http2_reset(error: &(dyn Error + 'static)) -> bool {
    error
        .downcast_ref::<h2::Error>()
        .is_some_and(|error| error.is_reset() && error.is_remote())
}

fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    tls::rustls_error(error.downcast_ref::<io::Error>()?)
}

/// The error and what it came from. hyper's own is told apart by its first link too.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Bytes of a receiver's as text without anything that could harm a terminal, a log or a database.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown: String = text
        .chars()
        .take(QUOTED_CHARS_MAX)
        .map(printable::printable)
        .collect();
    if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// A limit as people write it: `3 s`, `1.5 s`, `250 ms`.
pub(super) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receivers_text_is_cut_and_made_printable() {
        assert_eq!(printable(b"https://a.example/x"), "https://a.example/x");
        assert_eq!(
            printable(b"a\0b\x1b[31m\xffc"),
            "a\u{fffd}b\u{fffd}[31m\u{fffd}c"
        );
        assert_eq!(printable("a\u{202e}b".as_bytes()), "a\u{fffd}b");
        let long = printable("é".repeat(500).as_bytes());
        assert_eq!(long.chars().count(), QUOTED_CHARS_MAX + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn limits_read_as_people_write_them() {
        let written = |ms| seconds(Duration::from_millis(ms));
        assert_eq!(written(3_000), "3 s");
        assert_eq!(written(1_500), "1.5 s");
        assert_eq!(written(250), "250 ms");
    }

    #[test]
    fn a_status_is_told_with_its_name_and_a_redirect_with_its_target() {
        let message = |code: u16, location: Option<&[u8]>| {
            of_status(StatusCode::from_u16(code).unwrap(), location).message
        };
        assert_eq!(message(500, None), "answered 500 Internal Server Error");
        assert_eq!(message(410, None), "answered 410 Gone");
        assert_eq!(message(599, None), "answered 599");
        assert_eq!(message(304, Some(b"/x")), "answered 304 Not Modified");
        assert_eq!(
            message(302, Some(b"/login")),
            "answered 302: redirects are not followed (Location: /login)"
        );
        assert_eq!(
            message(307, None),
            "answered 307: redirects are not followed"
        );
    }
}
