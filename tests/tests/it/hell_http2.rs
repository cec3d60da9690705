//! Receivers that speak HTTP/2, well and badly.

use bytes::Bytes;
use h2::server::SendResponse;
use tests::receiver::{Peer, RawReceiver};
use tokio_rustls::TlsAcceptor;

use super::hell_secure::{HOST, Secure};

async fn start() -> (Secure, TlsAcceptor) {
    let secure = Secure::start().await;
    let identity = secure.authority.certify(HOST, |_| {});
    (secure, identity.acceptor(&["h2", "http/1.1"]))
}

/// Answers so many requests, and closes the connection under the next.
async fn serve(peer: Peer, acceptor: TlsAcceptor, answered_max: usize) -> Option<()> {
    let stream = peer.accept_tls(&acceptor).await?.into_stream();
    let mut connection = h2::server::handshake(stream).await.ok()?;
    for _ in 0..answered_max {
        let (request, respond) = connection.accept().await?.ok()?;
        answer(request.uri().path(), respond)?;
    }
    connection.accept().await?.ok()?;
    None
}

/// Answers with the beginning of a body, and resets the stream once that has arrived.
async fn serve_half(peer: Peer, acceptor: TlsAcceptor) -> Option<()> {
    let stream = peer.accept_tls(&acceptor).await?.into_stream();
    let mut connection = h2::server::handshake(stream).await.ok()?;
    let mut pings = connection.ping_pong()?;
    let (_request, mut respond) = connection.accept().await?.ok()?;
    let mut body = respond.send_response(http::Response::new(()), false).ok()?;
    body.send_data(Bytes::from_static(b"half"), false).ok()?;
    tokio::select! {
        _another = connection.accept() => return None,
        pong = pings.ping(h2::Ping::opaque()) => pong.ok()?,
    };
    body.send_reset(h2::Reason::CANCEL);
    connection.accept().await?.ok()?;
    None
}

fn answer(path: &str, mut respond: SendResponse<Bytes>) -> Option<()> {
    let odd = http::HeaderValue::from_bytes(b"\xff\xfe").unwrap();
    let response = |status: u16| {
        let builder = http::Response::builder().status(status);
        builder.header("x-odd", &odd).body(()).unwrap()
    };
    match path {
        "/reset" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
        "/500" => {
            let mut body = respond.send_response(response(500), false).ok()?;
            body.send_data(Bytes::from_static(b"no\0\xff"), true).ok()?;
        }
        _ => {
            let mut body = respond.send_response(response(200), false).ok()?;
            body.send_data(Bytes::from_static(b"ok"), true).ok()?;
        }
    }
    Some(())
}

async fn receiver(acceptor: TlsAcceptor, answered_max: usize) -> RawReceiver {
    RawReceiver::start(move |_, peer| serve(peer, acceptor.clone(), answered_max)).await
}

#[tokio::test]
async fn http2_is_spoken_and_one_connection_serves_all_webhooks_of_a_host() {
    let (secure, acceptor) = start().await;
    let hell = &secure.hell;
    let receiver = receiver(acceptor, usize::MAX).await;
    let url = receiver.https_url(HOST);
    let first = hell.send(&url).await;
    let shown = hell.delivered(&first).await;
    shown.assert_delivered(200);
    assert_eq!(shown.steps(), ["dns", "connect", "tls", "first_byte"]);
    assert_eq!(shown.last_attempt()["response_body"], "ok");

    let [failing, reset] = hell
        .send_to_each([&*format!("{url}500"), &*format!("{url}reset")])
        .await;
    let shown = hell.attempted(&failing).await;
    shown.assert_failed(Some(500), "status", "answered 500 Internal Server Error");
    let attempt = shown.last_attempt();
    assert_eq!(attempt["reused_connection"], true);
    assert_eq!(shown.steps(), ["first_byte"]);
    assert_eq!(attempt["response_body_base64"], "bm8A/w==");
    assert_eq!(attempt["response_headers_base64"], "eC1vZGQ6IP/+Cg==");
    let shown = hell.attempted(&reset).await;
    let sentence = "the receiver broke off the HTTP/2 stream";
    shown.assert_failed(None, "connection_closed", sentence);
    assert_eq!(shown.last_attempt()["reused_connection"], true);
    assert_eq!(receiver.connections(), 1);
    secure.hell.finish().await;
}

#[tokio::test]
async fn a_stream_that_is_reset_within_its_answer_is_told_with_what_had_come() {
    let (secure, acceptor) = start().await;
    let receiver = RawReceiver::start(move |_, peer| serve_half(peer, acceptor.clone())).await;
    let delivery = secure.hell.send(&receiver.https_url(HOST)).await;
    let shown = secure.hell.attempted(&delivery).await;
    let sentence = "the receiver broke off the HTTP/2 stream (the status was 200)";
    shown.assert_failed(Some(200), "connection_closed", sentence);
    assert_eq!(shown.last_attempt()["response_body"], "half");
    secure.hell.finish().await;
}

#[tokio::test]
async fn an_idle_http2_connection_that_closes_under_a_request_costs_no_attempt() {
    let (secure, acceptor) = start().await;
    let hell = &secure.hell;
    let receiver = receiver(acceptor, 1).await;
    let first = hell.send(&receiver.https_url(HOST)).await;
    hell.delivered(&first).await.assert_delivered(200);
    let second = hell.send_again(&first).await;
    let shown = hell.delivered(&second).await;
    shown.assert_delivered(200);
    assert_eq!(shown.last_attempt()["reused_connection"], false);
    assert_eq!(shown.steps(), ["dns", "connect", "tls", "first_byte"]);
    assert_eq!(receiver.connections(), 2);
    secure.hell.finish().await;
}
