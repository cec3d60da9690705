//! What the broker alone takes for a message while it is busy with others: from publish to delivery, through a quorum
//! queue that nothing of ours touches. No service can be faster than that.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::Consumer;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use tests::Amqp;
use tests::amqp::Message;
use tests::load::Clock;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use crate::figures::Latency;

const QUEUE: &str = "bench.lone";
const EVERY: Duration = Duration::from_millis(20);
/// The last messages arrive by then.
const ARRIVED_WITHIN: Duration = Duration::from_secs(5);

/// Publishes and consumes for so long, in a task of its own, to be joined for the latencies.
pub fn measure(amqp_url: &str, time: Duration, clock: Clock) -> JoinSet<Latency> {
    let amqp_url = amqp_url.to_owned();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let amqp = Amqp::connect(&amqp_url).await;
        let consumer = consume(&amqp).await;
        let latency = Latency::of(latencies_us(&amqp, consumer, time, clock).await);
        amqp.close().await;
        latency
    });
    task
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

/// Each message carries the microsecond at which it was due, so that a stall shows in all that it held up.
async fn latencies_us(
    amqp: &Amqp,
    mut consumer: Consumer,
    time: Duration,
    clock: Clock,
) -> Vec<u64> {
    let mut latencies = Vec::new();
    let (mut ticks, end) = (interval(EVERY), Instant::now() + time);
    let mut published = 0;
    loop {
        tokio::select! {
            due = ticks.tick() => {
                if due > end {
                    break;
                }
                let late = Instant::now().saturating_duration_since(due);
                let due_us = clock.now_us() - u64::try_from(late.as_micros()).unwrap();
                let message = Message {
                    exchange: String::new(),
                    ..Message::raw(QUEUE, due_us.to_string())
                };
                // Nobody waits for its confirm: that it arrives says more.
                drop(amqp.begin_publish(&message).await.unwrap());
                published += 1;
            }
            Some(delivery) = consumer.next() => {
                latencies.push(latency_us(delivery.unwrap(), clock).await);
            }
        }
    }
    while latencies.len() < published {
        let delivery = timeout(ARRIVED_WITHIN, consumer.next()).await;
        latencies.push(latency_us(delivery.unwrap().unwrap().unwrap(), clock).await);
    }
    latencies
}

async fn latency_us(delivery: Delivery, clock: Clock) -> u64 {
    let now_us = clock.now_us();
    let due_us: u64 = String::from_utf8_lossy(&delivery.data).parse().unwrap();
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    now_us.saturating_sub(due_us)
}
