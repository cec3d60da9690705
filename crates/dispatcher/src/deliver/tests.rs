//! Against receivers on loopback that are written by hand, since those that misbehave are the interesting ones.

mod addresses;
mod certificates;
mod dns;
mod misbehaviour;
mod receiver;
mod statuses;

use std::net::SocketAddr;
use std::sync::Arc;

use domain::network;
use domain::secret::Secret;
use tokio::sync::Barrier;

use super::*;
use domain::attempt::FailureKind;
use receiver::{Receiver, header, read_request};

const EVENT: &str = "listing.updated";
const DELIVERY: &str = "evt_01HZX5Y7";
const BODY: &[u8] = br#"{"id":"evt_01HZX5Y7","type":"listing.updated"}"#;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Receiver: yes\r\n\r\nok";

/// Nobody listens there; for tests that resolve nothing.
const NO_NAME_SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

fn signer() -> Signer {
    Signer::new(&Secret::from_random([7; 32]))
}

fn policy(edit: impl FnOnce(&mut network::Config)) -> NetworkPolicy {
    let mut config = network::Config {
        allow_http: true,
        allowed_networks: vec!["127.0.0.0/8".parse().unwrap()],
        ..network::Config::default()
    };
    edit(&mut config);
    NetworkPolicy::new(&config)
}

fn resolver(name_server: SocketAddr) -> Resolver {
    Resolver::new(&[name_server], Duration::from_secs(2)).unwrap()
}

fn sender(config: &Config) -> Sender {
    Sender::new(config, policy(|_| {}), resolver(NO_NAME_SERVER.into())).unwrap()
}

fn default_sender() -> Sender {
    sender(&Config::default())
}

/// Gives up early, for receivers that never come to an end.
fn impatient_sender() -> Sender {
    sender(&Config {
        connect_timeout_ms: 200,
        timeout_ms: 300,
        ..Config::default()
    })
}

async fn send(sender: &Sender, url: &str) -> Attempt {
    let request = Request {
        url: &WebhookUrl::parse_stored(url).unwrap(),
        signer: &signer(),
        event_type: EVENT,
        delivery_id: DELIVERY,
        body: Bytes::from_static(BODY),
    };
    sender.send(&request).await
}

/// Kind and message of an attempt that must have failed.
fn failure(attempt: &Attempt) -> (FailureKind, &str) {
    let failure = attempt.failure().expect("a failed attempt");
    (failure.kind, &failure.message)
}

#[tokio::test]
async fn a_request_has_the_pages_headers_and_those_of_standard_webhooks_and_no_other() {
    let mut receiver = Receiver::answering(OK).await;
    let before = Utc::now().timestamp();
    let attempt = send(&default_sender(), &receiver.url("/hooks/a?b=c#part")).await;
    assert_eq!(attempt.outcome, Outcome::Delivered);

    let request = receiver.next_request().await;
    let head_bytes = request.len() - BODY.len();
    assert_eq!(&request[head_bytes..], BODY);
    let head = std::str::from_utf8(&request[..head_bytes]).unwrap();
    assert!(head.starts_with("POST /hooks/a?b=c HTTP/1.1\r\n"), "{head}");
    let mut names: Vec<_> = head
        .lines()
        .filter_map(|line| line.split_once(": ").map(|(name, _)| name))
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "Content-Length",
            "Content-Type",
            "Host",
            "User-Agent",
            "Webhook-Id",
            "Webhook-Signature",
            "Webhook-Timestamp",
            "X-Vellocity-Delivery",
            "X-Vellocity-Event",
            "X-Vellocity-Signature",
        ]
    );
    let value = |name| header(head, name);
    assert_eq!(value("Host"), receiver.address.to_string());
    assert_eq!(value("Content-Length"), BODY.len().to_string());
    assert_eq!(value("Content-Type"), "application/json");
    assert_eq!(value("User-Agent"), "Vellocity-Webhooks/1.0");
    assert_eq!(value("X-Vellocity-Event"), EVENT);
    assert_eq!(value("X-Vellocity-Delivery"), DELIVERY);
    assert_eq!(value("Webhook-Id"), DELIVERY);

    let timestamp_s: i64 = value("Webhook-Timestamp").parse().unwrap();
    assert!((before..=Utc::now().timestamp()).contains(&timestamp_s));
    assert_eq!(timestamp_s, attempt.started_at.timestamp());
    assert_eq!(value("X-Vellocity-Signature"), signer().sign_body(BODY));
    assert_eq!(
        value("Webhook-Signature"),
        signer().sign_standard(DELIVERY, timestamp_s, BODY)
    );
}

#[tokio::test]
async fn a_success_is_recorded_with_its_answer_and_times() {
    let receiver = Receiver::answering(OK).await;
    let attempt = send(&default_sender(), &receiver.url("/")).await;
    assert_eq!(attempt.outcome, Outcome::Delivered);
    assert_eq!(attempt.retry_after, None);
    let response = attempt.response.unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(response.body, "ok");
    assert_eq!(response.headers, "content-length: 2\nx-receiver: yes\n");

    let timings = attempt.timings;
    let (connect, first_byte) = (timings.connect.unwrap(), timings.first_byte.unwrap());
    assert!(connect <= first_byte && first_byte <= timings.total);
    assert_eq!((timings.dns, timings.tls), (None, None));
    assert!(!timings.reused_connection);
}

#[tokio::test]
async fn the_second_request_goes_over_the_same_connection_and_says_so() {
    let mut receiver = Receiver::answering(OK).await;
    let sender = default_sender();
    send(&sender, &receiver.url("/1")).await;
    receiver.next_request().await;
    let second = send(&sender, &receiver.url("/2")).await;
    assert_eq!(second.outcome, Outcome::Delivered);
    let timings = second.timings;
    assert!(timings.reused_connection);
    assert_eq!(
        (timings.dns, timings.connect, timings.tls),
        (None, None, None)
    );
    assert!(timings.first_byte.unwrap() <= timings.total);
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let mut receiver = Receiver::answering(OK).await;
    let body = Bytes::from(vec![b'x'; domain::limits::EVENT_BYTES_MAX]);
    let attempt = default_sender()
        .send(&Request {
            url: &WebhookUrl::parse_stored(&receiver.url("/")).unwrap(),
            signer: &signer(),
            event_type: EVENT,
            delivery_id: DELIVERY,
            body: body.clone(),
        })
        .await;
    assert_eq!(attempt.outcome, Outcome::Delivered);
    assert!(receiver.next_request().await.ends_with(&body));
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_attempt() {
    let both = Arc::new(Barrier::new(2));
    let mut receiver = Receiver::start(move |number, mut peer| {
        let both = Arc::clone(&both);
        async move {
            read_request(&mut peer).await?;
            if number < 2 {
                both.wait().await;
                peer.answer(OK).await?;
                // It closes the connection when the next request has been written to it.
                return read_request(&mut peer).await;
            }
            peer.answer(OK).await
        }
    })
    .await;
    let sender = default_sender();
    let url = receiver.url("/");
    // At once, so that the pool holds two connections.
    let (first, second) = tokio::join!(send(&sender, &url), send(&sender, &url));
    assert!(first.is_delivered() && second.is_delivered());
    assert_eq!(receiver.requests_read(), 2);
    let third = send(&sender, &url).await;
    assert_eq!(third.outcome, Outcome::Delivered);
    assert!(!third.timings.reused_connection);
    assert!(third.timings.connect.is_some());
    assert_eq!(receiver.requests_read(), 3);
}

#[tokio::test]
async fn a_connection_beyond_those_that_are_kept_is_not_used_again() {
    let receiver = Receiver::answering(OK).await;
    let sender = sender(&Config {
        pool_connections: 0,
        ..Config::default()
    });
    for _ in 0..2 {
        let attempt = send(&sender, &receiver.url("/")).await;
        assert_eq!(attempt.outcome, Outcome::Delivered);
        assert!(!attempt.timings.reused_connection);
    }
}

#[test]
fn a_configuration_that_does_not_fit_together_is_refused() {
    let refused = |config: Config| {
        Sender::new(&config, policy(|_| {}), resolver(NO_NAME_SERVER.into())).unwrap_err()
    };
    for (connect_timeout_ms, timeout_ms) in [(0, 1_000), (2_000, 1_000)] {
        let error = refused(Config {
            connect_timeout_ms,
            timeout_ms,
            ..Config::default()
        });
        assert!(matches!(error, ConfigError::Timeouts { .. }), "{error}");
    }
    let error = refused(Config {
        extra_ca_file: Some("/nonexistent/ca.pem".into()),
        ..Config::default()
    });
    assert!(matches!(error, ConfigError::ExtraCaFile { .. }), "{error}");
}
