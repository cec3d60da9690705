//! The load of `make bench` and `make chaos`: what its publisher says is confirmed is what the product delivers and what
//! its receiver saw.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, ExchangeKind};
use tests::load::{Behaviour, Clock, LoadReceiver, Pace, Publisher, Tally, Target, number_of};
use tests::wait::until_equal;
use tests::{Amqp, Stack, Vhost, amqp, eventually};

const EVENT_TYPE: &str = "cosell.updated";
/// Longer than any of these takes; their number of events ends them.
const LONG: Duration = Duration::from_secs(600);

fn target(url: &str, exchange: &str) -> Target {
    Target {
        amqp_url: url.to_owned(),
        exchange: exchange.to_owned(),
        routing_key: EVENT_TYPE.to_owned(),
        event_type: EVENT_TYPE.to_owned(),
        padding_bytes: 256,
    }
}

fn sound(events: usize, deliveries: usize) -> Tally {
    Tally {
        events,
        expected: deliveries,
        distinct: deliveries,
        ..Tally::default()
    }
}

async fn until_accepted(receiver: &LoadReceiver, count: u64) {
    let what = format!("{count} requests are accepted");
    eventually(&what, async || (receiver.accepted() >= count).then_some(())).await;
}

async fn until_recorded(stack: &Stack, count: i64) {
    let sql = stack.database.sql().await;
    let recorded = async || sql.count("deliveries WHERE status = 'delivered'").await;
    until_equal("all are recorded as delivered", count, recorded).await;
}

#[tokio::test]
async fn what_a_window_of_events_publishes_arrives_once_at_each_webhook_of_its_partner() {
    const EVENTS: u32 = 400;
    let stack = Stack::start().await;
    let (first, second) = (stack.partner().await, stack.partner().await);
    let receiver = LoadReceiver::start(Clock::start());
    for (partner, webhooks) in [(&first, 0..1), (&second, 1..3)] {
        for webhook in webhooks {
            let url = receiver.url(Behaviour::Ok, webhook);
            partner.create_webhook(&url, &[EVENT_TYPE]).await;
        }
    }
    let (of_first, of_second) = (first.id, second.id);
    let webhooks = |partner: i64| -> Range<u32> { if partner == of_first { 0..1 } else { 1..3 } };

    let target = target(stack.vhost.url(), amqp::EVENTS);
    let mut publisher = Publisher::new(target, receiver.clock());
    let choose = |number: u32| {
        if number.is_multiple_of(4) {
            of_second
        } else {
            of_first
        }
    };
    let published = publisher
        .run(1, Pace::Window(64), LONG, EVENTS, choose)
        .await;
    assert_eq!(published.partners.len(), 400);
    assert_eq!(
        (published.partner(3), published.partner(4)),
        (Some(of_first), Some(of_second))
    );

    until_accepted(&receiver, 500).await;
    until_recorded(&stack, 500).await;
    let arrivals = receiver.take();
    assert_eq!(arrivals.tally(&published, webhooks), sound(400, 500));
    let sql = stack.database.sql().await;
    assert_eq!(
        (sql.count("events").await, sql.count("deliveries").await),
        (400, 500)
    );
    stack.finish().await;
}

#[tokio::test]
async fn at_a_pace_latency_counts_from_when_an_event_was_due() {
    const PER_SECOND: u32 = 200;
    let stack = Stack::start().await;
    let partner = stack.partner().await;
    let receiver = LoadReceiver::start(Clock::start());
    let url = receiver.url(Behaviour::Ok, 0);
    partner.create_webhook(&url, &[EVENT_TYPE]).await;

    let target = target(stack.vhost.url(), amqp::EVENTS);
    let mut publisher = Publisher::new(target, receiver.clock());
    let pace = Pace::PerSecond(PER_SECOND);
    let published = publisher
        .run(0, pace, Duration::from_secs(1), u32::MAX, |_| partner.id)
        .await;
    let dues: Vec<u64> = published.due_us.clone();
    assert_eq!(dues.len(), 200);
    assert!(dues.windows(2).all(|pair| pair[1] - pair[0] == 5_000));

    until_accepted(&receiver, 200).await;
    until_recorded(&stack, 200).await;
    let arrivals = receiver.take();
    assert_eq!(arrivals.tally(&published, |_| 0..1), sound(200, 200));
    let latencies = arrivals.latencies_us(&published, |_| true);
    assert_eq!(latencies.len(), 200);
    // Nothing arrives before it was due.
    assert!(latencies.iter().all(|&us| us > 0));
    stack.finish().await;
}

#[tokio::test]
async fn what_the_broker_refuses_is_published_again_until_it_is_confirmed() {
    const EXCHANGE: &str = "load";
    const EVENTS: u32 = 50;
    let vhost = Vhost::create().await;
    let amqp = Amqp::connect(vhost.url()).await;
    let channel = amqp.connection().create_channel().await.unwrap();
    declare(&channel, EXCHANGE).await;

    let mut publisher = Publisher::new(target(vhost.url(), EXCHANGE), Clock::start());
    let publishing = publisher.run(7, Pace::Window(10), LONG, EVENTS, |_| 1);
    let mut kept = BTreeSet::new();
    let heal = async {
        let what = "an event was published, and refused by the queue that takes none";
        kept.insert(eventually(what, async || amqp.take("kept").await).await);
        let options = QueueDeleteOptions::default();
        channel.queue_delete(short("full"), options).await.unwrap();
    };
    let (published, ()) = tokio::join!(publishing, heal);
    assert!(published.again > 0);
    assert_eq!(published.partners.len(), 50);

    while let Some(body) = amqp.take("kept").await {
        kept.insert(body);
    }
    let numbers: BTreeSet<u32> = kept.iter().map(|body| number_in(body)).collect();
    assert_eq!(numbers, (7..57).collect());
    amqp.close().await;
}

/// An exchange with a queue that keeps what is published, and one that refuses it.
async fn declare(channel: &Channel, exchange: &str) {
    channel
        .exchange_declare(
            short(exchange),
            ExchangeKind::Fanout,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let mut refusing = FieldTable::default();
    refusing.insert(short("x-max-length"), AMQPValue::LongInt(0));
    let overflow = AMQPValue::LongString(LongString::from("reject-publish"));
    refusing.insert(short("x-overflow"), overflow);
    for (queue, arguments) in [("kept", FieldTable::default()), ("full", refusing)] {
        channel
            .queue_declare(short(queue), QueueDeclareOptions::default(), arguments)
            .await
            .unwrap();
        channel
            .queue_bind(
                short(queue),
                short(exchange),
                short(""),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
    }
}

fn number_in(body: &[u8]) -> u32 {
    let event: serde_json::Value = serde_json::from_slice(body).unwrap();
    number_of(event["id"].as_str().unwrap().as_bytes()).unwrap()
}

fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap()
}
