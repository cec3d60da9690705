//! What the broker alone takes for a message while it is busy with others: from the instant at which it was due to its
//! delivery, through a quorum queue that nothing of ours touches. No service can be faster than that.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::Consumer;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use tests::Amqp;
use tests::load::{Clock, Target, number_of};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::run::Load;

const QUEUE: &str = "bench.alone";
const PER_SECOND: u32 = 50;
/// What has not come by then after the one before it does not come any more.
const QUIET: Duration = Duration::from_secs(30);

/// One message, in microseconds of the clock.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub due_us: u64,
    pub latency_us: u64,
}

/// Publishes and consumes for so long, in tasks of their own; joined it gives a sample for each message.
pub fn measure(target: Target, time: Duration, clock: Clock) -> JoinSet<Vec<Sample>> {
    let mut task = JoinSet::new();
    task.spawn(samples(target, time, clock));
    task
}

async fn samples(target: Target, time: Duration, clock: Clock) -> Vec<Sample> {
    let amqp = Amqp::connect(&target.amqp_url).await;
    let consumer = consume(&amqp).await;
    let target = Target {
        exchange: String::new(),
        routing_key: QUEUE.to_owned(),
        ..target
    };
    let mut publishing = JoinSet::new();
    publishing.spawn(Load::steady(target, PER_SECOND, time).publish(clock));
    let expected = usize::try_from(time.as_secs()).unwrap() * PER_SECOND as usize;
    let arrived = arrivals(consumer, expected, clock).await;
    let published = publishing.join_next().await.unwrap().unwrap();
    amqp.close().await;
    assert_eq!(
        arrived.len(),
        published.partners.len(),
        "lost by the broker"
    );
    let sample = |(number, at_us): (u32, u64)| {
        let due_us = published.due_us(number)?;
        let latency_us = at_us.saturating_sub(due_us);
        Some(Sample { due_us, latency_us })
    };
    arrived.into_iter().filter_map(sample).collect()
}

async fn consume(amqp: &Amqp) -> Consumer {
    let channel = amqp.connection().create_channel().await.unwrap();
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString(LongString::from("quorum"));
    arguments.insert("x-queue-type".into(), quorum);
    let declared = channel.queue_declare(QUEUE.into(), durable, arguments);
    declared.await.unwrap();
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(QUEUE.into(), "".into(), options, FieldTable::default());
    consumer.await.unwrap()
}

/// Number and time of each of so many messages.
async fn arrivals(mut consumer: Consumer, expected: usize, clock: Clock) -> Vec<(u32, u64)> {
    let mut arrived = Vec::new();
    while arrived.len() < expected {
        let Ok(delivery) = timeout(QUIET, consumer.next()).await else {
            break;
        };
        let delivery = delivery.unwrap().unwrap();
        let at_us = clock.now_us();
        let event: serde_json::Value = serde_json::from_slice(&delivery.data).unwrap();
        let id = event.get("id").and_then(serde_json::Value::as_str);
        let number = id.and_then(|id| number_of(id.as_bytes()));
        arrived.push((number.unwrap(), at_us));
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    arrived
}
