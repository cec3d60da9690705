//! What the status of a complete answer makes of an attempt.

use super::*;

async fn answered(answer: &'static [u8]) -> Attempt {
    let receiver = Receiver::answering(answer).await;
    send(&default_sender(), &receiver.url("/")).await
}

#[tokio::test]
async fn every_2xx_is_a_success() {
    for answer in [
        &b"HTTP/1.1 204 No Content\r\n\r\n"[..],
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        let attempt = answered(answer).await;
        let shown = String::from_utf8_lossy(answer);
        assert_eq!(attempt.outcome, Outcome::Delivered, "{shown}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_fails() {
    let attempt = answered(
        b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\xff\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(
        failure(&attempt),
        (
            FailureKind::Status(302),
            "answered 302: redirects are not followed (Location: https://elsewhere.example/\u{fffd})"
        )
    );
}

#[tokio::test]
async fn gone_is_told_apart() {
    let attempt = answered(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n").await;
    assert!(attempt.is_gone());
    assert_eq!(
        failure(&attempt),
        (FailureKind::Status(410), "answered 410 Gone")
    );
}

#[tokio::test]
async fn a_failures_answer_is_kept() {
    let attempt =
        answered(b"HTTP/1.1 500 Oops\r\nX-Trace: 7\r\nContent-Length: 4\r\n\r\nno\0!").await;
    assert_eq!(
        failure(&attempt),
        (
            FailureKind::Status(500),
            "answered 500 Internal Server Error"
        )
    );
    let response = attempt.response.unwrap();
    assert_eq!(response.status, 500);
    assert_eq!(response.headers, "x-trace: 7\ncontent-length: 4\n");
    assert_eq!(response.body, "no\0!");
}

#[tokio::test]
async fn a_switch_of_protocols_is_no_success() {
    let attempt =
        answered(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
            .await;
    assert_eq!(failure(&attempt).0, FailureKind::Status(101));
}

#[tokio::test]
async fn retry_after_is_read_from_failures_only() {
    let asked = |answer| async move { answered(answer).await.retry_after };
    let seconds = |s| Some(Duration::from_secs(s));
    for (answer, expected) in [
        (
            &b"HTTP/1.1 429 Slow\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n"[..],
            seconds(30),
        ),
        (
            b"HTTP/1.1 503 Busy\r\nRetry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
            seconds(0),
        ),
        (
            b"HTTP/1.1 500 Oops\r\nRetry-After: 9999999\r\nContent-Length: 0\r\n\r\n",
            seconds(86_400),
        ),
        (
            b"HTTP/1.1 503 Busy\r\nRetry-After: later\r\nContent-Length: 0\r\n\r\n",
            None,
        ),
        (
            b"HTTP/1.1 200 OK\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n",
            None,
        ),
    ] {
        assert_eq!(asked(answer).await, expected);
    }
}
