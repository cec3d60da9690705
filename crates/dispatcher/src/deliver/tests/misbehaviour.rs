//! Receivers that break off, drip, flood or speak something else.

use domain::limits::{FAILURE_KEPT_BYTES_MAX, SUCCESS_KEPT_BYTES_MAX};

use super::receiver::Peer;
use super::*;

const MIB: usize = 1024 * 1024;

/// Sends zeros until the sender has had enough of them.
async fn flood(peer: &mut Peer<tokio::net::TcpStream>, bytes: usize) -> Option<()> {
    let chunk = vec![b'z'; 64 * 1024];
    for _ in 0..bytes / chunk.len() {
        peer.answer(&chunk).await?;
    }
    Some(())
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_runs_into_the_time_out() {
    let receiver = Receiver::answering(b"").await;
    let attempt = send(&impatient_sender(), &receiver.url("/")).await;
    assert_eq!(
        failure(&attempt),
        (FailureKind::Timeout, "no answer within 300 ms")
    );
    assert!(attempt.response.is_none());
    // What was learned before the end of the time is there.
    assert!(attempt.timings.connect.is_some());
    assert_eq!(attempt.timings.first_byte, None);
    assert!(attempt.timings.total >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_body_that_drips_runs_into_the_time_out() {
    let receiver = Receiver::start(|_, mut peer| async move {
        read_request(&mut peer).await?;
        peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            .await?;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            peer.answer(b".").await?;
        }
    })
    .await;
    let attempt = send(&impatient_sender(), &receiver.url("/")).await;
    assert_eq!(
        failure(&attempt),
        (
            FailureKind::Timeout,
            "answered 200, but not completely within 300 ms"
        )
    );
    assert_eq!(attempt.status(), Some(200));
    assert!(attempt.response.unwrap().body.starts_with(b"..."));
}

#[tokio::test]
async fn a_receiver_that_accepts_and_closes_is_told() {
    let receiver = Receiver::start(|_, _peer| async { None }).await;
    let attempt = send(&default_sender(), &receiver.url("/")).await;
    assert_eq!(
        failure(&attempt),
        (
            FailureKind::ConnectionClosed,
            "the connection was closed before an answer came"
        )
    );
}

#[tokio::test]
async fn a_receiver_that_reads_and_closes_is_asked_once() {
    let mut receiver = Receiver::closing_after(b"").await;
    let attempt = send(&default_sender(), &receiver.url("/")).await;
    assert_eq!(failure(&attempt).0, FailureKind::ConnectionClosed);
    assert_eq!(receiver.requests_read(), 1);
}

#[tokio::test]
async fn half_a_head_on_a_reused_connection_is_an_answer_and_not_tried_again() {
    let mut receiver = Receiver::start(|_, mut peer| async move {
        read_request(&mut peer).await?;
        peer.answer(OK).await?;
        read_request(&mut peer).await?;
        peer.answer(b"HTTP/1.1 200 O").await
    })
    .await;
    let sender = default_sender();
    send(&sender, &receiver.url("/1")).await;
    let attempt = send(&sender, &receiver.url("/2")).await;
    assert_eq!(failure(&attempt).0, FailureKind::ConnectionClosed);
    assert!(attempt.timings.reused_connection);
    assert_eq!(receiver.requests_read(), 2);
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_a_failure() {
    for (answer, status) in [
        (
            &b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"[..],
            200,
        ),
        (
            b"HTTP/1.1 410 Gone\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nshort",
            410,
        ),
    ] {
        let receiver = Receiver::closing_after(answer).await;
        let attempt = send(&default_sender(), &receiver.url("/")).await;
        assert_eq!(
            failure(&attempt),
            (
                FailureKind::ConnectionClosed,
                &*format!(
                    "the connection was closed before the answer was complete (the status was {status})"
                )
            )
        );
        assert_eq!(attempt.status(), Some(status));
        assert_eq!(attempt.response.unwrap().body, "short");
    }
}

#[tokio::test]
async fn a_body_may_end_with_the_connection() {
    let receiver = Receiver::closing_after(b"HTTP/1.0 200 OK\r\n\r\nfine").await;
    let attempt = send(&default_sender(), &receiver.url("/")).await;
    assert_eq!(attempt.outcome, Outcome::Delivered);
    assert_eq!(attempt.response.unwrap().body, "fine");
}

#[tokio::test]
async fn of_a_huge_body_only_the_beginning_is_read() {
    for (status, kept) in [(200, SUCCESS_KEPT_BYTES_MAX), (500, FAILURE_KEPT_BYTES_MAX)] {
        let receiver = Receiver::start(move |_, mut peer| async move {
            read_request(&mut peer).await?;
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
                10 * MIB
            );
            peer.answer(head.as_bytes()).await?;
            let all = flood(&mut peer, 10 * MIB).await;
            assert!(all.is_none(), "all of it was read");
            None
        })
        .await;
        let attempt = send(&default_sender(), &receiver.url("/")).await;
        assert_eq!(attempt.is_delivered(), status == 200);
        assert_eq!(attempt.response.unwrap().body, vec![b'z'; kept]);
    }
}

#[tokio::test]
async fn an_endless_body_is_a_success() {
    let receiver = Receiver::start(|_, mut peer| async move {
        read_request(&mut peer).await?;
        peer.answer(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        flood(&mut peer, usize::MAX).await
    })
    .await;
    let attempt = send(&default_sender(), &receiver.url("/")).await;
    assert_eq!(attempt.outcome, Outcome::Delivered);
}

#[tokio::test]
async fn what_is_not_http_is_told() {
    for answer in [
        &b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..],
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        b"\x15\x03\x01\x00\x02\x02\x46",
    ] {
        let receiver = Receiver::answering(answer).await;
        let attempt = send(&default_sender(), &receiver.url("/")).await;
        let shown = String::from_utf8_lossy(answer);
        assert_eq!(failure(&attempt).0, FailureKind::Protocol, "{shown}");
    }
}

#[tokio::test]
async fn a_broken_chunk_is_told() {
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let receiver = Receiver::answering(answer).await;
    let attempt = send(&default_sender(), &receiver.url("/")).await;
    assert_eq!(failure(&attempt).0, FailureKind::Protocol);
}

#[tokio::test]
async fn headers_without_end_are_not_read_to_their_end() {
    let receiver = Receiver::start(|_, mut peer| async move {
        read_request(&mut peer).await?;
        peer.answer(b"HTTP/1.1 200 OK\r\nX-Long: ").await?;
        let all = flood(&mut peer, 10 * MIB).await;
        assert!(all.is_none(), "all of it was read");
        None
    })
    .await;
    let attempt = send(&default_sender(), &receiver.url("/")).await;
    assert_eq!(failure(&attempt).0, FailureKind::Protocol);
    assert!(attempt.response.is_none());
}

#[tokio::test]
async fn odd_bytes_in_headers_and_body_do_no_harm() {
    let receiver = Receiver::answering(
        b"HTTP/1.1 200 \xff\xfe\r\nX-Bell: a\x07b\r\nX-\xc3\xa9: c\r\nX-Odd: \xff\xfe\r\nContent-Length : 4\r\n\r\n\0\xff\xfe\0",
    )
    .await;
    let attempt = send(&default_sender(), &receiver.url("/")).await;
    assert_eq!(attempt.outcome, Outcome::Delivered);
    let response = attempt.response.unwrap();
    assert_eq!(
        response.headers,
        &b"x-odd: \xff\xfe\ncontent-length: 4\n"[..]
    );
    assert_eq!(response.body, &b"\0\xff\xfe\0"[..]);
}
