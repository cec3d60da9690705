//! Connections that are refused, broken off, or closed at the wrong moment.

use std::time::Duration;

use serde_json::Value;
use tests::receiver::RawReceiver;
use tests::wait::let_pass;
use tokio::net::TcpSocket;

use super::hell_fixture::Hell;

const BEFORE: &str = "the connection was closed before an answer came";
const WITHIN_HEAD: &str =
    "an answer began, but the connection was closed before its headers were complete";
const WITHIN: &str =
    "the connection was closed before the answer was complete (the status was 200)";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_receiver_that_accepts_and_closes_is_told_to_have_closed() {
    let hell = Hell::start().await;
    let receiver = RawReceiver::start(|_, _peer| async { None }).await;
    let delivery = hell.send(&receiver.url("/")).await;
    let shown = hell.attempted(&delivery).await;
    shown.assert_failed(None, "connection_closed", BEFORE);
    // The connection may be gone before the request is given to it; then nobody knows how long it took to make.
    assert!(
        ["connect"].starts_with(&shown.steps()),
        "{:?}",
        shown.steps()
    );
    assert!(shown.last_attempt().get("response_headers").is_none());
    hell.finish().await;
}

#[tokio::test]
async fn a_receiver_that_reads_the_request_and_closes_is_asked_once_an_attempt() {
    let hell = Hell::start().await;
    let receiver = RawReceiver::closing_after("").await;
    let delivery = hell.send(&receiver.url("/")).await;
    let shown = hell.attempted(&delivery).await;
    shown.assert_failed(None, "connection_closed", BEFORE);
    // It may have done its work all the same, so only an idle connection's end is a reason to ask again at once.
    assert_eq!(receiver.heads().len(), 1);
    hell.finish().await;
}

#[tokio::test]
async fn a_receiver_that_refuses_is_told_with_its_address() {
    let hell = Hell::start().await;
    // Bound, so that nobody else gets the port, and never listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let delivery = hell.send(&format!("http://{address}/")).await;
    let shown = hell.attempted(&delivery).await;
    let sentence = format!("connection refused by {address}");
    shown.assert_failed(None, "connect", &sentence);
    assert_eq!(shown.steps(), ["connect"]);
    hell.finish().await;
}

/// Answers with these bytes, then, once they have surely been read, resets the connection: what is unread is lost.
async fn resetting_after(answer: &'static [u8]) -> RawReceiver {
    RawReceiver::start(move |_, mut peer| async move {
        peer.read_request().await?;
        peer.write(answer).await?;
        let_pass(Duration::from_secs(1)).await;
        peer.reset_on_close().ok()
    })
    .await
}

#[tokio::test]
async fn a_reset_in_the_middle_is_told_with_what_had_come() {
    let hell = Hell::start().await;
    let unanswered = resetting_after(b"").await;
    let in_head = resetting_after(b"HTTP/1.1 200 OK\r\nX-Half").await;
    let in_body = resetting_after(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthe first").await;
    let urls = [&unanswered, &in_head, &in_body].map(|receiver| receiver.url("/"));
    let deliveries = hell.send_to_each(urls.each_ref().map(String::as_str)).await;
    let [to_unanswered, to_head, to_body] = &deliveries;
    for (delivery, sentence) in [(to_unanswered, BEFORE), (to_head, WITHIN_HEAD)] {
        let shown = hell.attempted(delivery).await;
        shown.assert_failed(None, "connection_closed", sentence);
        assert_eq!(shown.steps(), ["connect"]);
    }
    let shown = hell.attempted(to_body).await;
    shown.assert_failed(Some(200), "connection_closed", WITHIN);
    assert_eq!(shown.steps(), ["connect", "first_byte"]);
    assert_eq!(shown.last_attempt()["response_body"], "the first");
    for receiver in [unanswered, in_head, in_body] {
        assert_eq!(receiver.heads().len(), 1);
    }
    hell.finish().await;
}

#[tokio::test]
async fn a_body_shorter_than_its_length_is_no_success() {
    let hell = Hell::start().await;
    let by_length =
        RawReceiver::closing_after("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort").await;
    let by_chunks = RawReceiver::closing_after(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nshort",
    )
    .await;
    let [one, two] = hell
        .send_to_each([&*by_length.url("/"), &*by_chunks.url("/")])
        .await;
    for delivery in [one, two] {
        let shown = hell.attempted(&delivery).await;
        shown.assert_failed(Some(200), "connection_closed", WITHIN);
        assert_eq!(shown.last_attempt()["response_body"], "short");
    }
    hell.finish().await;
}

#[tokio::test]
async fn an_idle_connection_that_closes_under_a_request_costs_no_attempt() {
    let hell = Hell::start().await;
    let receiver = RawReceiver::start(|number, mut peer| async move {
        loop {
            peer.read_request().await?;
            peer.write(OK).await?;
            // The first connection is closed under its second request, the others live on.
            if number == 0 {
                return peer.read_request().await;
            }
        }
    })
    .await;
    let first = hell.send(&receiver.url("/")).await;
    hell.delivered(&first).await.assert_delivered(200);

    let second = hell.send_again(&first).await;
    let shown = hell.delivered(&second).await;
    shown.assert_delivered(200);
    assert_eq!(shown.last_attempt()["reused_connection"], false);
    assert_eq!(shown.steps(), ["connect", "first_byte"]);
    assert!(!shown.text.contains("connection reused"), "{}", shown.text);

    let third = hell.send_again(&first).await;
    let shown = hell.delivered(&third).await;
    shown.assert_delivered(200);
    assert_eq!(shown.last_attempt()["reused_connection"], true);
    assert_eq!(shown.steps(), ["first_byte"]);
    assert_eq!(shown.last_attempt()["times_ms"]["connect"], Value::Null);
    assert!(
        shown.text.contains(", connection reused\n"),
        "{}",
        shown.text
    );

    let asked: Vec<_> = receiver.heads().iter().map(|head| event_of(head)).collect();
    let [one, two, three] = [first, second, third].map(|delivery| delivery.event_id);
    assert_eq!(asked, [one, two.clone(), two, three]);
    assert_eq!(receiver.connections(), 2);
    hell.finish().await;
}

fn event_of(head: &str) -> String {
    let line = |line: &str| {
        line.strip_prefix("X-Vellocity-Delivery: ")
            .map(str::to_owned)
    };
    head.lines().find_map(line).expect("the header")
}
