//! What the broker alone takes for a message while it is busy with others: from the instant at which it was due to its
//! delivery, through a quorum queue that nothing of ours touches. At that load no service can be faster.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::Consumer;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use tests::Amqp;
use tests::load::{Clock, Target, number_of};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::figures::Latency;
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

/// Publishes and consumes in a task of its own.
pub struct Probe(JoinSet<Samples>);

/// What a probe saw.
#[derive(Default)]
pub struct Samples {
    pub all: Vec<Sample>,
    pub lost: usize,
}

impl Probe {
    pub fn start(target: Target, time: Duration, clock: Clock) -> Self {
        let mut task = JoinSet::new();
        task.spawn(samples(target, time, clock));
        Self(task)
    }

    /// Waits for the last message.
    pub async fn end(mut self) -> Samples {
        self.0.join_next().await.unwrap().unwrap()
    }
}

impl Samples {
    /// Of those that were due when `counts` says.
    pub fn latency(&self, counts: impl Fn(u64) -> bool) -> Latency {
        let counted = self.all.iter().filter(|sample| counts(sample.due_us));
        Latency::of(counted.map(|sample| sample.latency_us).collect())
    }
}

async fn samples(target: Target, time: Duration, clock: Clock) -> Samples {
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
    let sample = |(number, at_us): (&u32, &u64)| {
        let due_us = published.due_us(*number)?;
        let latency_us = at_us.saturating_sub(due_us);
        Some(Sample { due_us, latency_us })
    };
    // Those of the first second waited for the publisher's connection, too.
    let counted = arrived.iter().filter(|(number, _)| **number >= PER_SECOND);
    Samples {
        all: counted.filter_map(sample).collect(),
        lost: published.partners.len().saturating_sub(arrived.len()),
    }
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

/// The time at which each of so many messages arrived first, by number: one whose confirm was lost is published again.
async fn arrivals(mut consumer: Consumer, expected: usize, clock: Clock) -> HashMap<u32, u64> {
    let mut arrived = HashMap::new();
    while arrived.len() < expected {
        let Ok(delivery) = timeout(QUIET, consumer.next()).await else {
            break;
        };
        let delivery = delivery.unwrap().unwrap();
        let at_us = clock.now_us();
        let event: serde_json::Value = serde_json::from_slice(&delivery.data).unwrap();
        let id = event.get("id").and_then(serde_json::Value::as_str);
        let number = id.and_then(|id| number_of(id.as_bytes()));
        arrived.entry(number.unwrap()).or_insert(at_us);
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    arrived
}
