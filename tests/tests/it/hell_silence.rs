//! Receivers that take their time, or all of it.

use std::time::Duration;

use serde_json::json;
use tests::receiver::RawReceiver;
use tests::{Answer, Receiver};
use tokio::sync::watch;

use super::hell_fixture::{Hell, IMPATIENT};

#[tokio::test]
async fn a_receiver_that_never_answers_runs_into_the_time_out() {
    let hell = Hell::start_with(&IMPATIENT).await;
    let receiver = Receiver::start().await;
    receiver.always(Answer::silence());
    let delivery = hell.send(&receiver.url("/")).await;
    let shown = hell.attempted(&delivery).await;
    shown.assert_failed(None, "timeout", "no answer within 2 s");
    assert_eq!(shown.steps(), ["connect"]);
    assert!(shown.ms("total").unwrap() >= 2000.0);
    let attempt = shown.last_attempt();
    assert_eq!(attempt["reused_connection"], false);
    assert_eq!(
        (
            attempt.get("response_headers"),
            attempt.get("response_body")
        ),
        (None, None)
    );
    assert_eq!(receiver.requests().len(), 1);
    hell.finish().await;
}

#[tokio::test]
async fn while_a_receiver_takes_its_time_its_attempt_is_shown_as_under_way() {
    let hell = Hell::start_with(&[("dispatcher.deliver.timeout_ms", "30000")]).await;
    let (go_on, told) = watch::channel(false);
    let receiver = RawReceiver::start(move |_, mut peer| {
        let mut told = told.clone();
        async move {
            peer.read_request().await?;
            told.wait_for(|told| *told).await.ok()?;
            peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
        }
    })
    .await;
    let delivery = hell.send(&receiver.url("/")).await;
    let under_way = hell.shown_when(&delivery, "status = 'in_flight'").await;
    assert_eq!(under_way.document["status"], "in_flight");
    assert_eq!(under_way.document["attempts"], json!([]));
    // The end of its lease is when it counts as lost, and no attempt that anybody plans.
    let lease = under_way.time("next_attempt_at") - under_way.time("created_at");
    assert!((30..60).contains(&lease.num_seconds()), "{lease}");
    assert!(
        under_way.text.contains("result due      by "),
        "{}",
        under_way.text
    );
    assert!(
        !under_way.text.contains("next attempt"),
        "{}",
        under_way.text
    );

    let lease_end = under_way.document["next_attempt_at"].as_str().unwrap();
    let listed = hell.listed(&delivery).await;
    assert!(
        listed.contains("in_flight") && !listed.contains(lease_end),
        "{listed}"
    );

    go_on.send(true).unwrap();
    let shown = hell.delivered(&delivery).await;
    shown.assert_delivered(200);
    assert!(shown.ms("first_byte").unwrap() >= 250.0);
    hell.finish().await;
}

/// Begins to answer, and goes on with a byte a second.
async fn dripping(beginning: &'static str) -> RawReceiver {
    RawReceiver::start(move |_, mut peer| async move {
        peer.read_request().await?;
        peer.write(beginning.as_bytes()).await?;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            peer.write(b".").await?;
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_of_a_byte_a_second_is_not_waited_for_to_its_end() {
    let hell = Hell::start_with(&IMPATIENT).await;
    let head = dripping("HTTP/1.1 200 OK\r\nX-Slow: ").await;
    let body = dripping("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
    let [to_head, to_body] = hell.send_to_each([&*head.url("/"), &*body.url("/")]).await;

    let shown = hell.attempted(&to_head).await;
    let sentence = "an answer began, but its headers were not complete within 2 s";
    shown.assert_failed(None, "timeout", sentence);
    assert_eq!(shown.steps(), ["connect"]);
    assert!(shown.last_attempt().get("response_body").is_none());

    let shown = hell.attempted(&to_body).await;
    let sentence = "answered 200, but not completely within 2 s";
    shown.assert_failed(Some(200), "timeout", sentence);
    assert_eq!(shown.steps(), ["connect", "first_byte"]);
    let attempt = shown.last_attempt();
    assert_eq!(attempt["response_headers"], "content-length: 1000\n");
    let kept = attempt["response_body"].as_str().unwrap();
    assert!(
        !kept.is_empty() && kept.bytes().all(|b| b == b'.'),
        "{kept}"
    );
    assert!(
        shown.text.contains(&format!("  |\n  | {kept}\n")),
        "{}",
        shown.text
    );
    hell.finish().await;
}

#[tokio::test]
async fn a_receiver_that_takes_the_connection_and_no_part_in_the_handshake_is_told() {
    let hell = Hell::start_with(&[("dispatcher.deliver.connect_timeout_ms", "1000")]).await;
    let receiver = RawReceiver::start(|_, mut peer| async move { peer.until_closed().await }).await;
    let delivery = hell.send(&receiver.https_url("127.0.0.1")).await;
    let shown = hell.attempted(&delivery).await;
    let sentence = format!(
        "{} did not finish the TLS handshake; no connection within 1 s",
        receiver.address()
    );
    shown.assert_failed(None, "tls", &sentence);
    assert_eq!(shown.steps(), ["connect", "tls"]);
    hell.finish().await;
}
