//! How a dispatcher takes events: beside others, over a link that breaks, and those that keep coming back.

use std::collections::HashSet;

use lapin::options::{BasicGetOptions, BasicNackOptions};
use reqwest::Method;
use serde_json::Value;
use tests::service::{self, Kind};
use tests::stack::new_event_id;
use tests::wait::until_equal;
use tests::{Answer, Receiver, Stack, eventually};

const EVENT_TYPE: &str = "listing.updated";

#[tokio::test]
async fn two_dispatchers_share_the_events_and_each_is_delivered_once() {
    const EVENTS: usize = 120;
    let stack = Stack::builder().dispatchers(2).start().await;
    let receiver = Receiver::start().await;
    let partners = [
        stack.partner().await,
        stack.partner().await,
        stack.partner().await,
    ];
    for partner in &partners {
        partner
            .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
            .await;
    }
    let mut published = HashSet::new();
    for n in 0..EVENTS {
        let partner = &partners[n % partners.len()];
        published.insert(stack.publish(partner, EVENT_TYPE, "{}").await);
    }
    let sql = stack.database.sql().await;
    let expected = i64::try_from(EVENTS).unwrap();
    until_equal("all are delivered", expected, async || {
        sql.count("deliveries WHERE status = 'delivered'").await
    })
    .await;
    let requests = receiver.requests();
    let arrived: HashSet<_> = requests.iter().map(|r| r.delivery().to_owned()).collect();
    assert_eq!(requests.len(), EVENTS, "none twice");
    assert_eq!(arrived, published);
    for dispatcher in stack.services(Kind::Dispatcher) {
        let name = "vellocity_dispatcher_events_total";
        let share = service::metric(dispatcher.admin(), name, r#"result="recorded""#).await;
        assert!(share > 0.0, "one of them had nothing to do");
    }
    stack.finish().await;
}

/// Closes one connection of the dispatcher as an operator would, which ends its link: the other one is of no use then.
/// RabbitMQ lists a connection up to 5 s after it is open.
async fn cut_link(stack: &Stack) {
    let name = eventually("RabbitMQ lists the dispatcher's connections", async || {
        let listed = stack.vhost.ask("vhosts/VHOST/connections").await;
        let of_dispatcher = |connection: &&Value| {
            let name = connection["client_properties"]["connection_name"].as_str();
            name.or(connection["user_provided_name"].as_str())
                .is_some_and(|name| name.starts_with("dispatcher"))
        };
        let ours = listed.as_array()?.iter().find(of_dispatcher)?;
        ours["name"].as_str().map(str::to_owned)
    })
    .await;
    let path = format!(
        "connections/{}",
        name.replace(' ', "%20").replace('>', "%3E")
    );
    stack.vhost.change(Method::DELETE, &path, Value::Null).await;
}

#[tokio::test]
async fn a_dispatcher_whose_link_is_cut_goes_on_and_records_every_event_once() {
    const EVENTS: i64 = 60;
    let stack = Stack::start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
        .await;
    // Some are in hand whenever the link is cut.
    receiver.always(Answer::ok().after(std::time::Duration::from_millis(100)));
    let publish = async {
        for _ in 0..EVENTS {
            stack.publish(&partner, EVENT_TYPE, "{}").await;
        }
    };
    tokio::join!(publish, cut_link(&stack));
    let after = stack.publish(&partner, EVENT_TYPE, "{}").await;
    stack.until_delivery_is(&after, "delivered").await;
    let sql = stack.database.sql().await;
    until_equal("all are delivered", EVENTS + 1, async || {
        sql.count("deliveries WHERE status = 'delivered'").await
    })
    .await;
    assert_eq!(sql.count("deliveries").await, EVENTS + 1);
    assert_eq!(sql.count("events").await, EVENTS + 1);
    stack.finish().await;
}

/// Takes the only message of one of the shards and puts it back.
async fn return_once(stack: &Stack, shards: u16) {
    let channel = stack
        .amqp()
        .await
        .connection()
        .create_channel()
        .await
        .unwrap();
    eventually("the event is in a queue", async || {
        for shard in 0..shards {
            let queue = broker::topology::shard_queue(shard);
            let taken = channel
                .basic_get(queue.as_str().into(), BasicGetOptions::default())
                .await;
            if let Some(message) = taken.unwrap() {
                let back = BasicNackOptions {
                    requeue: true,
                    ..BasicNackOptions::default()
                };
                message.delivery.nack(back).await.unwrap();
                return Some(());
            }
        }
        None
    })
    .await;
}

#[tokio::test]
async fn an_event_that_came_back_three_times_is_handled_alone_and_holds_nobody_up() {
    let mut stack = Stack::start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
        .await;
    stack.take(Kind::Dispatcher).stop().await;
    let returned = new_event_id();
    stack
        .publish_as(&returned, &partner, EVENT_TYPE, "{}")
        .await;
    let shards = stack.settings().dispatcher().rabbitmq.shards;
    for _ in 0..4 {
        return_once(&stack, shards).await;
    }
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(stack.publish(&partner, EVENT_TYPE, "{}").await);
    }
    stack.add(Kind::Dispatcher).await;
    for id in others.iter().chain([&returned]) {
        stack.until_delivery_is(id, "delivered").await;
    }
    assert_eq!(receiver.requests().len(), 21);
    stack.finish().await;
}
