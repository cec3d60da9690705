//! Publishing with confirms, to a real RabbitMQ.

use std::time::Duration;

use broker::{Config, Exchange, Message, PublishError, TopologyMode, topology};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tests::eventually;
use tokio::time::timeout;

use super::broker_fixture::{Fixture, due, next};

#[tokio::test]
async fn ten_thousand_messages_are_confirmed_while_many_are_in_flight() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    let message = || {
        Message::new(Exchange::Rejected, "a", vec![b'x'; 1024])
            .header("n", "1")
            .mandatory()
    };
    let published = join_all((0..10_000).map(|_| fixture.publisher.publish(message()))).await;
    assert!(published.iter().all(Result::is_ok));
    let depths = topology::depths(&link).await.unwrap();
    let rejected = depths.iter().find(|d| d.name == topology::REJECTED_QUEUE);
    assert_eq!(rejected.unwrap().ready, Some(10_000));
    fixture.finish().await;
}

#[tokio::test]
async fn of_many_in_flight_exactly_those_without_a_queue_come_back() {
    let fixture = Fixture::start().await;
    fixture.link().await;
    let published = join_all((0..1000).map(|n| {
        let message = if n % 3 == 0 {
            Message::new(Exchange::Replies, format!("nobody-{n}"), "x")
        } else {
            Message::new(Exchange::Rejected, "x", "x")
        };
        fixture.publisher.publish(message.mandatory())
    }))
    .await;
    for (n, result) in published.iter().enumerate() {
        let came_back = matches!(result, Err(PublishError::Returned(_)));
        assert_eq!(came_back, n % 3 == 0, "{n}: {result:?}");
        assert_eq!(result.is_ok(), n % 3 != 0, "{n}: {result:?}");
    }
    let not_mandatory = Message::new(Exchange::Replies, "nobody", "x");
    fixture.publish(not_mandatory).await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_full_queue_refuses() {
    let fixture = Fixture::start().await;
    fixture.link().await;
    let policy = json!({
        "pattern": "^vellocity\\.rejected\\.v1$",
        "definition": {"max-length": 1},
        "apply-to": "queues",
    });
    let path = "policies/VHOST/short";
    fixture.vhost.change(Method::PUT, path, policy).await;
    let message = || Message::new(Exchange::Rejected, "x", "x").mandatory();
    // The limit is not strict: the queue learns of the policy and of its own length a little later.
    eventually("a refusal", async || {
        let result = fixture.publisher.publish(message()).await;
        (result == Err(PublishError::Refused)).then_some(())
    })
    .await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_missing_exchange_fails_its_message_and_later_ones_go_on() {
    let fixture = Fixture::with(|config| Config {
        topology: TopologyMode::Assume,
        ..config
    })
    .await;
    let link = fixture.link().await;
    let missing = fixture.publisher.publish(due()).await;
    assert!(
        matches!(&missing, Err(PublishError::Unavailable(why)) if why.contains("vellocity.deliveries")),
        "{missing:?}"
    );

    let exchange = json!({"type": "direct", "durable": true});
    let path = "exchanges/VHOST/vellocity.deliveries";
    fixture.vhost.change(Method::PUT, path, exchange).await;
    let unrouted = eventually("the channel is open again", async || {
        let result = fixture.publisher.publish(due()).await;
        result
            .is_err_and(|e| matches!(e, PublishError::Returned(_)))
            .then_some(())
    });
    unrouted.await;
    assert!(!link.is_lost());
    fixture.finish().await;
}

#[tokio::test]
async fn without_a_connection_a_publish_fails_at_once() {
    let fixture = Fixture::with(|config| Config {
        url: "amqp://127.0.0.1:1/x".to_owned(),
        ..config
    })
    .await;
    let published = timeout(Duration::from_secs(1), fixture.publisher.publish(due())).await;
    assert!(matches!(published, Ok(Err(PublishError::Unavailable(_)))));
    fixture.finish().await;
}

#[tokio::test]
async fn a_message_arrives_as_it_was_published() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    let message = Message::new(Exchange::Dead, "some.key", "body")
        .content_type("text/plain")
        .message_id("m-1")
        .correlation_id("c-1")
        .reply_to("r-1")
        .app_id("a-1")
        .header("text", "é")
        .header("number", -5);
    fixture.publish(message).await;
    let mut dead = link.consume(topology::DEAD_QUEUE, 1, "dead").await.unwrap();
    let delivery = next(&mut dead).await;
    assert_eq!(&*delivery.queue, topology::DEAD_QUEUE);
    assert_eq!(delivery.exchange, "vellocity.dead");
    assert_eq!(delivery.routing_key, "some.key");
    assert_eq!(delivery.body, "body");
    assert!(!delivery.redelivered);
    let properties = &delivery.properties;
    assert_eq!(properties.content_type(), Some("text/plain"));
    assert_eq!(properties.message_id(), Some("m-1"));
    assert_eq!(properties.correlation_id(), Some("c-1"));
    assert_eq!(properties.reply_to(), Some("r-1"));
    assert_eq!(properties.app_id(), Some("a-1"));
    assert_eq!(delivery.headers().text("text"), Some("é"));
    assert_eq!(delivery.headers().integer("number"), Some(-5));
    delivery.receipt.ack();
    drop(dead);
    fixture.finish().await;
}
