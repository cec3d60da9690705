//! Announcements on their way through the delay buckets. No dispatcher runs: the tests look at what it would get.

use broker::topology::{DUE_QUEUE, FAILED_QUEUE};
use chrono::Utc;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::types::AMQPValue;
use reqwest::Method;
use serde_json::{Value, json};
use tests::service::{Kind, metric};
use tests::stack::Leftovers;
use tests::wait::until_equal;
use tests::{Amqp, Message, Stack, eventually};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const DELIVERY: &str = "dlv_01m864shxbeanakjdam20f1d43";

async fn stack() -> Stack {
    Stack::builder().apis(0).dispatchers(0).start().await
}

/// As a dispatcher publishes it, and as a stranger would copy it.
fn announcement(not_before_ms: i64, hops: u32) -> Message {
    let body = json!({
        "delivery_id": DELIVERY, "webhook_id": 2, "partner_id": 3, "turn": 4,
        "not_before_ms": not_before_ms, "parkings": 1, "reason": "retry", "hops": hops,
    });
    failed(body.to_string())
        .header("traceparent", TRACEPARENT)
        .header("x-foreign", "1")
}

fn failed(body: impl Into<Vec<u8>>) -> Message {
    Message {
        exchange: "vellocity.deliveries".to_owned(),
        ..Message::raw("failed", body)
    }
}

/// What a dispatcher gets next: the announcement, the trace, and whether there is a header that is not ours.
async fn next_due(amqp: &Amqp) -> (Value, String, bool) {
    let channel = amqp.connection().create_channel().await.unwrap();
    let got = eventually("an announcement is due", async || {
        channel
            .basic_get(DUE_QUEUE.into(), BasicGetOptions::default())
            .await
            .unwrap()
    })
    .await;
    got.delivery.ack(BasicAckOptions::default()).await.unwrap();
    let headers = got
        .delivery
        .properties
        .headers()
        .clone()
        .unwrap_or_default();
    let trace = match headers.inner().get("traceparent") {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("{other:?}"),
    };
    let copied = headers.inner().contains_key("x-foreign");
    (
        serde_json::from_slice(&got.delivery.data).unwrap(),
        trace,
        copied,
    )
}

#[tokio::test]
async fn an_announcement_waits_in_a_bucket_and_comes_out_with_its_trace_and_nothing_foreign() {
    let stack = stack().await;
    let amqp = stack.amqp().await;
    let not_before_ms = Utc::now().timestamp_millis() + 2200;
    amqp.publish(&announcement(not_before_ms, 0)).await;

    let (due, trace, copied) = next_due(amqp).await;
    // The largest bucket that fits is the one of 2 s; the rest is for whoever takes it too early to say.
    assert!(Utc::now().timestamp_millis() >= not_before_ms - 220);
    assert_eq!(due["delivery_id"], DELIVERY);
    assert_eq!(
        (&due["turn"], &due["parkings"], &due["hops"]),
        (&json!(4), &json!(1), &json!(1))
    );
    assert_eq!(due["not_before_ms"], json!(not_before_ms));
    assert_eq!(trace, TRACEPARENT);
    assert!(!copied, "a header of a stranger was copied");

    let admin = stack.services(Kind::Retry).next().unwrap().admin();
    assert_eq!(
        metric(admin, "retry_placed_total", r#"bucket="2000""#).await,
        1.0
    );
    assert_eq!(amqp.depth(FAILED_QUEUE).await.ready, 0);
    stack.finish().await;
}

#[tokio::test]
async fn the_last_hop_is_rounded_up_so_that_it_is_not_early() {
    let stack = stack().await;
    let amqp = stack.amqp().await;
    let not_before_ms = Utc::now().timestamp_millis() + 1200;
    amqp.publish(&announcement(not_before_ms, 2)).await;
    let (due, _, _) = next_due(amqp).await;
    assert!(Utc::now().timestamp_millis() >= not_before_ms);
    assert_eq!(due["hops"], json!(3));
    let admin = stack.services(Kind::Retry).next().unwrap().admin();
    assert_eq!(metric(admin, "retry_early_returns_total", "").await, 1.0);
    stack.finish().await;
}

#[tokio::test]
async fn what_is_due_already_goes_straight_to_the_dispatchers() {
    let stack = stack().await;
    let amqp = stack.amqp().await;
    amqp.publish(&announcement(Utc::now().timestamp_millis() - 5000, 0))
        .await;
    let (due, _, _) = next_due(amqp).await;
    assert_eq!(due["hops"], json!(1));
    let admin = stack.services(Kind::Retry).next().unwrap().admin();
    until_equal("it is counted", 1.0, async || {
        metric(admin, "retry_placed_total", r#"bucket="due""#).await
    })
    .await;
    stack.finish().await;
}

#[tokio::test]
async fn what_is_no_announcement_becomes_a_row_with_a_reason_and_holds_nothing_up() {
    let mut stack = stack().await;
    let amqp = stack.amqp().await;
    for body in [
        &b"\xff\x00 no JSON"[..],
        b"{}",
        br#"{"delivery_id":"evt_1"}"#,
    ] {
        amqp.publish(&failed(body)).await;
    }
    amqp.publish(&announcement(0, 0)).await;
    next_due(amqp).await;
    let sql = stack.database.sql().await;
    let malformed = "dead_letters WHERE line = 'dead' AND code = 'malformed_announcement' \
                     AND exchange = 'vellocity.deliveries' AND routing_key = 'failed' AND reason <> ''";
    until_equal("three rows", 3, async || sql.count(malformed).await).await;
    let bodies: Vec<Vec<u8>> = sql
        .column("SELECT body FROM dead_letters ORDER BY id")
        .await;
    assert!(bodies.contains(&b"\xff\x00 no JSON".to_vec()));
    stack.may_leave(Leftovers {
        dead: true,
        ..Leftovers::default()
    });
    stack.finish().await;
}

#[tokio::test]
async fn an_announcement_that_the_broker_refuses_is_counted_and_does_not_stay() {
    let stack = stack().await;
    let full = json!({
        "pattern": "^vellocity\\.delay\\.5000\\.v1$", "apply-to": "queues",
        "definition": {"max-length": 0},
    });
    stack
        .vhost
        .change(Method::PUT, "policies/VHOST/full", full)
        .await;
    let amqp = stack.amqp().await;
    let admin = stack.services(Kind::Retry).next().unwrap().admin();
    // The policy takes its time to arrive, and a full quorum queue takes one more message before it refuses.
    eventually("the broker refuses", async || {
        amqp.publish(&announcement(Utc::now().timestamp_millis() + 4900, 0))
            .await;
        let refused = metric(admin, "retry_publish_failures_total", r#"reason="refused""#).await;
        (refused >= 1.0).then_some(())
    })
    .await;
    until_equal("nothing stays", 0, async || {
        amqp.depth(FAILED_QUEUE).await.ready
    })
    .await;
    stack.finish().await;
}
