//! Consuming and acknowledging, from a real RabbitMQ.

use broker::{DeadLetter, Exchange, Line, Message, envelope, topology};
use futures_util::future::join_all;
use tests::wait::until_equal;

use super::broker_fixture::{Fixture, due, ends, next};

/// How many messages are in the queue of what is due, once no consumer holds any.
async fn left(fixture: &Fixture) -> u32 {
    let link = fixture.link().await;
    let depths = topology::depths(&link).await.unwrap();
    let due = depths.iter().find(|d| d.name == topology::DUE_QUEUE);
    due.unwrap().ready.unwrap()
}

#[tokio::test]
async fn what_is_put_back_comes_again_and_is_counted() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    let mut consumer = link.consume(topology::DUE_QUEUE, 10, "due").await.unwrap();
    fixture.publish(due()).await;
    let first = next(&mut consumer).await;
    assert_eq!((first.redelivered, first.delivery_count()), (false, 0));
    first.receipt.requeue();
    let second = next(&mut consumer).await;
    assert_eq!((second.redelivered, second.delivery_count()), (true, 1));
    // A receipt that is dropped puts back as well.
    drop(second);
    let third = next(&mut consumer).await;
    assert_eq!((third.redelivered, third.delivery_count()), (true, 2));
    third.receipt.ack();
    consumer.flush().await;
    drop(consumer);
    until_equal("nothing is left", 0, async || left(&fixture).await).await;
    fixture.finish().await;
}

#[tokio::test]
async fn acks_in_any_order_reach_the_broker_while_an_old_delivery_is_held() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    const MESSAGES: usize = 300;
    join_all((0..MESSAGES).map(|_| fixture.publish(due()))).await;
    let mut consumer = link.consume(topology::DUE_QUEUE, 64, "due").await.unwrap();
    let held = next(&mut consumer).await;
    let mut waiting = Vec::new();
    for n in 1..MESSAGES {
        waiting.push(next(&mut consumer).await);
        if waiting.len() == 10 || n + 1 == MESSAGES {
            // The latest first; the prefetch would be used up if acks waited for the oldest.
            while let Some(delivery) = waiting.pop() {
                delivery.receipt.ack();
            }
        }
    }
    consumer.flush().await;
    // What is delivered and not acked; the management plugin tells it a few seconds late.
    let queue = format!("queues/VHOST/{}", topology::DUE_QUEUE);
    until_equal("only one is left", Some(1), async || {
        fixture.vhost.ask(&queue).await["messages"].as_u64()
    })
    .await;
    held.receipt.ack();
    until_equal("nothing is left", Some(0), async || {
        fixture.vhost.ask(&queue).await["messages"].as_u64()
    })
    .await;
    drop(consumer);
    fixture.finish().await;
}

#[tokio::test]
async fn the_prefetch_starts_small_and_grows_with_what_is_acked() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    join_all((0..500).map(|_| fixture.publish(due()))).await;
    let mut consumer = link.consume(topology::DUE_QUEUE, 64, "due").await.unwrap();
    let window = async |out: u32, acked: u32| {
        let rest = 500 - acked - out;
        until_equal("the window", rest, async || left(&fixture).await).await;
    };
    window(16, 0).await;
    // While it grows, the former window and the next one overlap.
    for _ in 0..250 {
        next(&mut consumer).await.receipt.ack();
    }
    window(64, 250).await;
    drop(consumer);
    fixture.finish().await;
}

#[tokio::test]
async fn a_cancelled_consumer_hands_out_what_it_has_and_ends() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    join_all((0..100).map(|_| fixture.publish(due()))).await;
    let mut consumer = link.consume(topology::DUE_QUEUE, 10, "due").await.unwrap();
    next(&mut consumer).await.receipt.ack();
    consumer.cancel().await;
    let mut drained = 1;
    while let Some(delivery) = consumer.next().await {
        delivery.receipt.ack();
        drained += 1;
    }
    consumer.flush().await;
    drop(consumer);
    assert!(!link.is_lost());
    until_equal("the rest is left", 100 - drained, async || {
        left(&fixture).await
    })
    .await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_dropped_consumer_puts_back_what_nobody_took() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    join_all((0..30).map(|_| fixture.publish(due()))).await;
    let mut consumer = link.consume(topology::DUE_QUEUE, 10, "due").await.unwrap();
    let one = next(&mut consumer).await;
    drop(consumer);
    one.receipt.ack();
    until_equal("all but one are left", 29, async || left(&fixture).await).await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_queue_that_is_deleted_takes_its_consumer_and_the_link_along() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    let mut consumer = link.consume(topology::DUE_QUEUE, 10, "due").await.unwrap();
    let path = format!("queues/VHOST/{}", topology::DUE_QUEUE);
    let nothing = serde_json::json!({});
    fixture
        .vhost
        .change(reqwest::Method::DELETE, &path, nothing)
        .await;
    assert!(ends(&mut consumer).await);
    assert!(link.why_lost().contains(topology::DUE_QUEUE));
    // The next link declares it again.
    let link = fixture.link().await;
    let mut consumer = link.consume(topology::DUE_QUEUE, 10, "due").await.unwrap();
    fixture.publish(due()).await;
    next(&mut consumer).await.receipt.ack();
    drop(consumer);
    fixture.finish().await;
}

#[tokio::test]
async fn what_a_consumer_refuses_is_found_among_the_dead_with_its_origin() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    let mut dead = link
        .consume(topology::DEAD_QUEUE, 10, "dead")
        .await
        .unwrap();
    let mut consumer = link.consume(topology::DUE_QUEUE, 10, "due").await.unwrap();
    fixture.publish(due()).await;
    next(&mut consumer).await.receipt.reject();
    let delivery = next(&mut dead).await;
    let letter = DeadLetter::read(Line::Dead, &delivery);
    delivery.receipt.ack();
    assert_eq!(letter.exchange, "vellocity.deliveries");
    assert_eq!(letter.routing_key, "due");
    assert_eq!(letter.code, "rejected");
    assert_eq!(letter.message_id, None);

    fixture.publish(letter.again().unwrap()).await;
    let again = next(&mut consumer).await;
    assert_eq!(again.body, letter.body);
    assert!(!again.headers().contains("x-death"));
    again.receipt.ack();
    drop((dead, consumer));
    fixture.finish().await;
}

#[tokio::test]
async fn a_rejected_event_survives_the_queue_and_can_be_sent_again() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    let mut shards = Vec::new();
    for queue in topology::event_queues(8) {
        shards.push(link.consume(&queue, 10, "events").await.unwrap());
    }
    let mut events = futures_util::stream::select_all(shards);
    let mut rejected = link
        .consume(topology::REJECTED_QUEUE, 10, "rejected")
        .await
        .unwrap();

    let event = Message::new(Exchange::Events, "listing.updated", r#"{"id":"evt_1"}"#)
        .content_type("application/json")
        .app_id("shop")
        .header(topology::PARTNER_HEADER, "42")
        .header("other", "x");
    fixture.publish(event).await;
    let delivery = futures_util::StreamExt::next(&mut events).await.unwrap();
    let rejection = envelope::decode(&delivery).unwrap_err();
    let letter = DeadLetter::rejected(&delivery, &rejection);
    fixture.publish(letter.message()).await;
    delivery.receipt.ack();

    let delivery = next(&mut rejected).await;
    assert_eq!(DeadLetter::read(Line::Rejected, &delivery), letter);
    delivery.receipt.ack();
    assert_eq!(letter.partner_id.as_deref(), Some("42"));
    assert_eq!(letter.event_id.as_deref(), Some("evt_1"));

    fixture.publish(letter.again().unwrap()).await;
    let again = futures_util::StreamExt::next(&mut events).await.unwrap();
    assert_eq!(again.exchange, "vellocity.events");
    assert_eq!(again.headers().text(topology::PARTNER_HEADER), Some("42"));
    assert_eq!(again.properties.app_id(), Some("shop"));
    assert!(!again.headers().contains("other"));
    again.receipt.ack();
    drop((events, rejected));
    fixture.finish().await;
}

#[tokio::test]
async fn answers_come_to_the_private_queue_of_whoever_asked() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    let mut one = link.consume_replies("replies").await.unwrap();
    let other = link.consume_replies("replies").await.unwrap();
    assert_ne!(one.queue(), other.queue());
    let answer = Message::new(Exchange::Replies, one.queue(), "pong");
    fixture.publish(answer.mandatory().transient()).await;
    let delivery = next(&mut one).await;
    assert_eq!(delivery.body, "pong");
    delivery.receipt.ack();
    drop((one, other));
    fixture.finish().await;
}
