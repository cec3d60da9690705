//! What a receiver answered, as far as it is read and kept.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::attempt::{Failure, Response};
use domain::limits::{FAILURE_KEPT_BYTES_MAX, RESPONSE_READ_BYTES_MAX, SUCCESS_KEPT_BYTES_MAX};
use http::header::{CONTENT_LENGTH, LOCATION, RETRY_AFTER, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};

use super::{failure, retry_after};

pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// The body ends where the connection does, so that its end can't be told from a break.
    ends_with_connection: bool,
    retry_after: Option<Duration>,
    body: Vec<u8>,
    /// More of the body came than is kept here.
    is_cut: bool,
}

impl Answer {
    pub(super) fn begin(head: http::response::Parts, now: DateTime<Utc>) -> Self {
        let (status, headers) = (head.status, head.headers);
        let asked = headers
            .get(RETRY_AFTER)
            .filter(|_| !status.is_success())
            .and_then(|value| retry_after::parse(value.as_bytes(), now.into()));
        Self {
            status,
            ends_with_connection: head.version < Version::HTTP_2
                && !headers.contains_key(CONTENT_LENGTH)
                && !headers.contains_key(TRANSFER_ENCODING),
            headers,
            retry_after: asked,
            body: Vec::new(),
            is_cut: false,
        }
    }

    pub(super) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Reads the body to its end, or to the limit, and judges the answer.
    ///
    /// # Errors
    /// When the body breaks off before either, or the status is no success.
    pub(super) async fn read(&mut self, body: &mut Incoming) -> Result<(), Failure> {
        let mut read_bytes = 0;
        while read_bytes < RESPONSE_READ_BYTES_MAX && !body.is_end_stream() {
            let frame = match body.frame().await {
                None => break,
                Some(Ok(frame)) => frame,
                Some(Err(error)) if self.ends_with_connection && is_end(&error) => break,
                Some(Err(error)) => return Err(failure::of_body(&error, self.status)),
            };
            if let Some(data) = frame.data_ref() {
                read_bytes += data.len();
                let room = FAILURE_KEPT_BYTES_MAX - self.body.len();
                let kept = data.get(..room).unwrap_or(data);
                self.is_cut |= kept.len() < data.len();
                self.body.extend_from_slice(kept);
            }
        }
        if self.status.is_success() {
            return Ok(());
        }
        let location = self.headers.get(LOCATION);
        Err(failure::of_status(
            self.status,
            location.map(http::HeaderValue::as_bytes),
        ))
    }

    pub(super) fn into_response(self, delivered: bool) -> Response {
        let kept_bytes_max = if delivered {
            SUCCESS_KEPT_BYTES_MAX
        } else {
            FAILURE_KEPT_BYTES_MAX
        };
        let mut body = self.body;
        if self.is_cut || body.len() > kept_bytes_max {
            cut(&mut body, kept_bytes_max);
        }
        body.shrink_to_fit();
        Response {
            status: self.status.as_u16(),
            headers: header_lines(&self.headers, kept_bytes_max),
            body: Bytes::from(body),
        }
    }
}

/// An orderly receiver tells the end of a TLS session; many just close the connection.
fn is_end(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::UnexpectedEof;
        }
        cause = error.source();
    }
    false
}

/// Cuts to the limit. Where what is left is text but for a last character that the cut went through, that one is left
/// out too, so that text stays text.
fn cut(body: &mut Vec<u8>, bytes_max: usize) {
    body.truncate(bytes_max);
    if let Err(error) = std::str::from_utf8(body)
        && error.error_len().is_none()
    {
        body.truncate(error.valid_up_to());
    }
}

/// The headers as lines, leaving out those that don't fit any more.
fn header_lines(headers: &HeaderMap, bytes_max: usize) -> Bytes {
    let mut lines = Vec::with_capacity(bytes_max.min(SUCCESS_KEPT_BYTES_MAX));
    for (name, value) in headers {
        let parts = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"];
        let line_bytes: usize = parts.iter().map(|part| part.len()).sum();
        if lines.len() + line_bytes <= bytes_max {
            parts.iter().for_each(|part| lines.extend_from_slice(part));
        }
    }
    Bytes::from(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_does_not_split_a_character_and_leaves_other_bytes_alone() {
        for (whole, bytes_max, kept) in [
            ("aé€😀".as_bytes(), 10, "aé€😀".as_bytes()),
            ("aé€😀".as_bytes(), 9, "aé€".as_bytes()),
            ("aé€😀".as_bytes(), 7, "aé€".as_bytes()),
            ("aé€😀".as_bytes(), 5, "aé".as_bytes()),
            ("aé€😀".as_bytes(), 2, b"a"),
            (b"\xff\xe2\x82", 3, b"\xff\xe2\x82"),
            (b"\xff\xe2\x82", 2, b"\xff\xe2"),
        ] {
            let mut body = whole.to_vec();
            cut(&mut body, bytes_max);
            assert_eq!(body, kept, "{bytes_max}");
        }
    }

    #[test]
    fn headers_are_kept_as_whole_lines_within_the_limit() {
        let mut headers = HeaderMap::new();
        headers.insert("server", "x".parse().unwrap());
        headers.insert("x-long", "y".repeat(300).parse().unwrap());
        headers.append("x-odd", http::HeaderValue::from_bytes(b"\xff\xfe").unwrap());
        assert_eq!(
            header_lines(&headers, 256),
            &b"server: x\nx-odd: \xff\xfe\n"[..]
        );
        assert_eq!(header_lines(&headers, 4096).len(), 10 + 309 + 10);
        assert_eq!(header_lines(&HeaderMap::new(), 256), Bytes::new());
    }
}
