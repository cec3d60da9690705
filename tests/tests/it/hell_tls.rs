//! TLS that is broken, or that proves nothing.

use rcgen::CertificateParams;
use tests::receiver::{Authority, Identity, RawReceiver, date_time_ymd};

use super::hell_fixture::Delivery;
use super::hell_secure::{HOST, Secure};

const UNTRUSTED: &str = "the TLS certificate's issuer is not trusted: it is self-signed, from a private authority, or \
                         an intermediate certificate is missing";

impl Secure {
    fn certify(&self, edit: impl FnOnce(&mut CertificateParams)) -> Identity {
        self.authority.certify(HOST, edit)
    }

    /// Sends one event to a receiver with this certificate, which answers 200 if it is asked.
    async fn send_to(&self, identity: Identity) -> (RawReceiver, Delivery) {
        let acceptor = identity.acceptor(&["http/1.1"]);
        let receiver = RawReceiver::start(move |_, peer| {
            let acceptor = acceptor.clone();
            async move {
                let mut peer = peer.accept_tls(&acceptor).await?;
                loop {
                    peer.read_request().await?;
                    peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                        .await?;
                }
            }
        })
        .await;
        let delivery = self.hell.send(&receiver.https_url(HOST)).await;
        (receiver, delivery)
    }

    /// The certificate is not accepted, in these words, and no request is sent.
    async fn assert_refused(&self, identity: Identity, sentence: &str) {
        let (receiver, delivery) = self.send_to(identity).await;
        let shown = self.hell.attempted(&delivery).await;
        shown.assert_failed(None, "tls", sentence);
        assert_eq!(shown.steps(), ["dns", "connect", "tls"]);
        assert!(receiver.heads().is_empty(), "{:?}", receiver.heads());
        assert_eq!(receiver.connections(), 1);
    }
}

#[tokio::test]
async fn a_receiver_with_a_good_certificate_is_reached_and_each_step_is_timed() {
    let secure = Secure::start().await;
    let (receiver, delivery) = secure.send_to(secure.certify(|_| {})).await;
    let shown = secure.hell.delivered(&delivery).await;
    shown.assert_delivered(200);
    assert_eq!(shown.steps(), ["dns", "connect", "tls", "first_byte"]);
    for name in ["DNS ", "connect ", "TLS ", "first byte ", "total "] {
        assert!(shown.text.contains(name), "{name}: {}", shown.text);
    }
    let next = secure.hell.send_again(&delivery).await;
    let shown = secure.hell.delivered(&next).await;
    shown.assert_delivered(200);
    assert_eq!(shown.last_attempt()["reused_connection"], true);
    assert_eq!(shown.steps(), ["first_byte"]);
    assert_eq!(receiver.connections(), 1);
    secure.hell.finish().await;
}

#[tokio::test]
async fn an_expired_certificate_is_told() {
    let secure = Secure::start().await;
    let expired = secure.certify(|params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let sentence = "the TLS certificate has expired";
    secure.assert_refused(expired, sentence).await;
    let early = secure.certify(|params| params.not_before = date_time_ymd(4000, 1, 1));
    let sentence = "the TLS certificate is not valid yet";
    secure.assert_refused(early, sentence).await;
    secure.hell.finish().await;
}

#[tokio::test]
async fn a_self_signed_certificate_and_a_strangers_are_told() {
    let secure = Secure::start().await;
    secure
        .assert_refused(Identity::self_signed(HOST), UNTRUSTED)
        .await;
    let stranger = Authority::new("A stranger");
    secure
        .assert_refused(stranger.certify(HOST, |_| {}), UNTRUSTED)
        .await;
    secure.hell.finish().await;
}

#[tokio::test]
async fn a_certificate_for_another_host_is_told_with_the_name_that_was_expected() {
    let secure = Secure::start().await;
    let other = secure.authority.certify("other.example.com", |_| {});
    let sentence = "the TLS certificate is for another host name, not for hooks.example.com";
    secure.assert_refused(other, sentence).await;
    secure.hell.finish().await;
}

#[tokio::test]
async fn a_port_where_no_tls_is_spoken_is_told() {
    let secure = Secure::start().await;
    let hell = &secure.hell;
    let plain = speaking(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let garbage = speaking(b"\x16\x03\x03\x00\x04\xff\xff\xff\xff").await;
    let closing = speaking(b"").await;
    let urls = [&plain, &garbage, &closing].map(|receiver| receiver.https_url(HOST));
    let deliveries = hell.send_to_each(urls.each_ref().map(String::as_str)).await;
    let closed = format!(
        "{} closed the connection during the TLS handshake",
        closing.address()
    );
    let sentences = [
        "the receiver does not speak TLS on this port",
        "the receiver does not speak TLS on this port",
        &closed,
    ];
    for (delivery, sentence) in deliveries.iter().zip(sentences) {
        let shown = hell.attempted(delivery).await;
        shown.assert_failed(None, "tls", sentence);
        assert_eq!(shown.steps(), ["dns", "connect", "tls"]);
    }
    secure.hell.finish().await;
}

/// Answers whatever comes with these bytes, and closes.
async fn speaking(answer: &'static [u8]) -> RawReceiver {
    RawReceiver::start(move |_, mut peer| async move {
        peer.read_some().await?;
        peer.write(answer).await
    })
    .await
}

#[tokio::test]
async fn a_session_that_breaks_within_an_answer_is_told() {
    let secure = Secure::start().await;
    let acceptor = secure.certify(|_| {}).acceptor(&["http/1.1"]);
    let receiver = RawReceiver::start(move |_, peer| {
        let acceptor = acceptor.clone();
        async move {
            let mut peer = peer.accept_tls(&acceptor).await?;
            peer.read_request().await?;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort";
            // It closes without an end of the session, as a program that crashes does.
            peer.write(answer).await
        }
    })
    .await;
    let delivery = secure.hell.send(&receiver.https_url(HOST)).await;
    let shown = secure.hell.attempted(&delivery).await;
    let sentence = "the connection was closed before the answer was complete (the status was 200)";
    shown.assert_failed(Some(200), "connection_closed", sentence);
    assert_eq!(shown.last_attempt()["response_body"], "short");
    secure.hell.finish().await;
}
