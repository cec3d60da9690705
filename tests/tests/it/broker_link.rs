//! Losing the connection to a real RabbitMQ, and going on.

use std::sync::Arc;

use broker::{Broker, Config, Link, PublishError, State, topology};
use reqwest::Method;
use serde_json::json;
use tests::servers::Server;
use tests::wait::DEADLINE;
use tests::{Vhost, eventually};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::broker_fixture::{Fixture, due, ends, next};

/// Has the broker close every connection of the virtual host.
async fn cut_connections(vhost: &Vhost) {
    // The management plugin learns of connections a few seconds late.
    let names = eventually("two connections", async || {
        let connections = vhost.ask("vhosts/VHOST/connections").await;
        let names = connections.as_array()?.iter();
        let names: Vec<_> = names
            .filter_map(|c| Some(c["name"].as_str()?.to_owned()))
            .collect();
        (names.len() >= 2).then_some(names)
    })
    .await;
    for name in names {
        let path = format!("connections/{name}");
        // The first takes its link along, so that the second may be gone already.
        vhost.try_change(Method::DELETE, &path, json!({})).await;
    }
}

async fn lost(link: &Arc<Link>) {
    timeout(DEADLINE, link.lost())
        .await
        .expect("the loss is noticed");
}

#[tokio::test]
async fn after_a_cut_everything_goes_on_and_old_receipts_are_void() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    let mut consumer = link.consume(topology::DUE_QUEUE, 10, "due").await.unwrap();
    for _ in 0..10 {
        fixture.publish(due()).await;
    }
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(next(&mut consumer).await);
    }

    cut_connections(&fixture.vhost).await;
    lost(&link).await;
    assert!(ends(&mut consumer).await);
    let next_link = fixture.link().await;
    assert!(next_link.generation() > link.generation());
    let mut again = next_link
        .consume(topology::DUE_QUEUE, 10, "due")
        .await
        .unwrap();
    let mut redelivered = Vec::new();
    for _ in 0..10 {
        redelivered.push(next(&mut again).await);
    }
    // The tags of both generations are the same; acks of the old one must not be taken for the new one's.
    for old in held {
        old.receipt.ack();
    }
    again.flush().await;
    for delivery in redelivered {
        assert!(delivery.redelivered);
        delivery.receipt.requeue();
    }
    for _ in 0..10 {
        let delivery = next(&mut again).await;
        assert_eq!(delivery.delivery_count(), 2);
        delivery.receipt.ack();
    }
    fixture.publish(due()).await;
    next(&mut again).await.receipt.ack();
    drop((again, consumer));
    fixture.finish().await;
}

#[tokio::test]
async fn a_service_that_stood_still_gives_its_link_up_by_itself() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    let mut consumer = link.consume(topology::DUE_QUEUE, 10, "due").await.unwrap();
    link.declare_lost("stood still");
    assert!(ends(&mut consumer).await);
    let published = fixture.publisher.publish(due()).await;
    assert!(matches!(published, Err(PublishError::Unavailable(_))));
    assert_eq!(fixture.link().await.generation(), link.generation() + 1);
    drop(consumer);
    fixture.finish().await;
}

#[tokio::test]
async fn a_closed_broker_has_read_every_ack_and_leaves_no_task_behind() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    // A quorum queue takes so many acks at a time from a channel; more of them wait in the channel and are lost with it.
    const MESSAGES: u32 = 20;
    for _ in 0..MESSAGES {
        fixture.publish(due()).await;
    }
    let mut consumer = link.consume(topology::DUE_QUEUE, 100, "due").await.unwrap();
    for _ in 0..MESSAGES {
        next(&mut consumer).await.receipt.ack();
    }
    consumer.cancel().await;
    assert!(ends(&mut consumer).await);
    consumer.flush().await;
    let url = fixture.vhost.url().to_owned();
    fixture.broker.close().await;
    assert_eq!(fixture.broker.state(), State::Closed);
    assert!(fixture.broker.link().await.is_none());
    drop(consumer);

    let config = Config {
        url,
        ..Config::default()
    };
    let look = Broker::start(config, "look", &TaskTracker::new()).unwrap();
    let link = look.link().await.unwrap();
    let depths = topology::depths(&link).await.unwrap();
    assert!(depths.iter().all(|depth| depth.ready == Some(0)));
    look.close().await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_broker_that_is_away_is_waited_for_and_what_it_confirmed_is_there() {
    let server = Server::rabbitmq();
    server.start().await;
    let vhost = Vhost::of_private_server(&server.url().await, &server.management_url().await);
    server.stop().await;

    let tracker = TaskTracker::new();
    let config = Config {
        url: vhost.url().to_owned(),
        heartbeat_s: 2,
        ..Config::default()
    };
    let broker = Broker::start(config, "a test", &tracker).unwrap();
    let publisher = broker.publisher();
    eventually("the reason is told", async || {
        broker.state().to_string().contains("refused").then_some(())
    })
    .await;
    assert!(matches!(
        publisher.publish(due()).await,
        Err(PublishError::Unavailable(_))
    ));

    server.start().await;
    let link = timeout(DEADLINE, broker.link()).await.unwrap().unwrap();
    let mut consumer = link.consume(topology::DUE_QUEUE, 10, "due").await.unwrap();
    publisher.publish(due()).await.unwrap();
    let held = next(&mut consumer).await;
    server.stop().await;
    lost(&link).await;
    assert!(ends(&mut consumer).await);
    assert!(!broker.state().is_ready());

    server.start().await;
    let link = timeout(DEADLINE, broker.link()).await.unwrap().unwrap();
    let mut consumer = link.consume(topology::DUE_QUEUE, 10, "due").await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!(again.body, held.body);
    again.receipt.ack();
    held.receipt.ack();
    publisher.publish(due()).await.unwrap();
    next(&mut consumer).await.receipt.ack();
    broker.close().await;
}
