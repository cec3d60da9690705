//! The broker's topology on a real RabbitMQ.

use std::time::{Duration, Instant};

use broker::announcement::Announcement;
use broker::trace::Trace;
use broker::{Broker, Config, Message, State, TopologyMode, topology};
use chrono::Utc;
use serde_json::json;
use tests::{Vhost, eventually};
use tokio_util::task::TaskTracker;

use super::broker_fixture::{Fixture, announcement, next};

#[tokio::test]
async fn the_topology_is_declared_again_and_again_without_harm() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    let depths = topology::depths(&link).await.unwrap();
    assert_eq!(depths.len(), 8 + 1 + 3 + 19 + 2);
    assert!(depths.iter().all(|depth| depth.ready == Some(0)));

    for topology in [TopologyMode::Declare, TopologyMode::Check] {
        let config = Config {
            url: fixture.vhost.url().to_owned(),
            topology,
            ..Config::default()
        };
        let again = Broker::start(config, "again", &TaskTracker::new()).unwrap();
        assert!(again.link().await.is_some());
        again.close().await;
    }
    fixture.finish().await;
}

#[tokio::test]
async fn a_missing_queue_is_named_where_the_topology_is_only_checked() {
    let vhost = Vhost::create().await;
    let config = Config {
        url: vhost.url().to_owned(),
        topology: TopologyMode::Check,
        ..Config::default()
    };
    let broker = Broker::start(config, "a test", &TaskTracker::new()).unwrap();
    eventually("the first exchange is missed", async || {
        match broker.state() {
            State::Connecting(why) => why.contains("vellocity.rejected").then_some(()),
            _ => None,
        }
    })
    .await;
    assert_eq!(vhost.ask("queues/VHOST").await, json!([]));
    broker.close().await;
}

#[tokio::test]
async fn what_waits_in_a_delay_bucket_becomes_due_and_not_early() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    let mut due = link.consume(topology::DUE_QUEUE, 10, "due").await.unwrap();

    let now = Utc::now();
    let waiting = Announcement {
        not_before_ms: now.timestamp_millis() + 900,
        ..announcement()
    };
    let (message, bucket) = waiting.to_delay(now, &Trace::default());
    assert_eq!(bucket.unwrap().delay(), Duration::from_secs(1));
    let started = Instant::now();
    fixture.publish(message).await;

    let delivery = next(&mut due).await;
    assert!(started.elapsed() >= Duration::from_secs(1));
    let arrived = Announcement::read(&delivery).unwrap();
    assert_eq!(arrived, Announcement { hops: 1, ..waiting });
    delivery.receipt.ack();
    drop(due);
    fixture.finish().await;
}

#[tokio::test]
async fn the_events_of_a_partner_share_a_shard_and_those_of_many_are_spread() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    let event = |partner: usize| {
        Message::new(broker::Exchange::Events, "listing.updated", "{}")
            .header(topology::PARTNER_HEADER, partner.to_string())
            .mandatory()
    };
    let ready = async || {
        let depths = topology::depths(&link).await.unwrap();
        let shards = depths
            .iter()
            .filter(|d| d.name.starts_with("vellocity.events."));
        shards.map(|d| d.ready.unwrap()).collect::<Vec<_>>()
    };
    for _ in 0..20 {
        fixture.publish(event(7)).await;
    }
    assert_eq!(ready().await.iter().filter(|ready| **ready > 0).count(), 1);
    for partner in 0..200 {
        fixture.publish(event(partner)).await;
    }
    let ready = ready().await;
    assert_eq!(ready.iter().sum::<u32>(), 220);
    assert!(
        ready.iter().filter(|ready| **ready > 0).count() >= 7,
        "{ready:?}"
    );
    fixture.finish().await;
}
