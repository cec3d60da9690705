//! The ceiling of this shape on a machine: takes events from one quorum queue, signs, POSTs, inserts a row for the event
//! and one for each delivery in batches, and acknowledges in batches. No claim, no matching, no retry, no breaker, no
//! isolation, no telemetry. `make bench` measures it beside the product, and states the product's figures as shares of
//! its.
//!
//! `bare-pipeline [--claim] AMQP_URL POSTGRES_URL QUEUE WEBHOOK_URL...` declares its queue, makes its tables, and says
//! `ready`. With `--claim` it is no ceiling, but the ceiling and a simple claim: see [`claims`].

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program of the benchmark: whatever fails ends it"
)]

mod acks;
mod claims;
mod rows;
mod session;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use domain::secret::Secret;
use domain::signature::Signer;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Connection, ConnectionProperties};
use serde::Deserialize;
use serde_json::value::RawValue;
use tikv_jemallocator::Jemalloc;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use claims::Claims;
use rows::{Row, Writer};

/// As in the dispatcher: which one is better is no part of the comparison.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const PREFETCH: u16 = 1_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[derive(Deserialize)]
struct Event<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    partner_id: i64,
    timestamp: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

struct Pipeline {
    http: Client<HttpConnector, Full<Bytes>>,
    signer: Signer,
    urls: Vec<http::Uri>,
    rows: mpsc::UnboundedSender<Row>,
}

#[tokio::main]
async fn main() {
    runtime::exit::install_crypto_provider();
    let mut arguments = std::env::args().skip(1).peekable();
    let claims = arguments.next_if_eq("--claim").is_some();
    let mut next = || {
        arguments
            .next()
            .expect("AMQP_URL POSTGRES_URL QUEUE URL...")
    };
    let (amqp_url, postgres_url, queue) = (next(), next(), next());
    let urls = arguments.map(|url| url.parse().expect("a URL")).collect();

    let connection = Connection::connect(&amqp_url, ConnectionProperties::default()).await;
    let channel = connection.unwrap().create_channel().await.unwrap();
    declare(&channel, &queue).await;
    let (rows, queue_of_rows) = mpsc::unbounded_channel();
    let tasks = TaskTracker::new();
    let writer = Writer::connect(&postgres_url, channel.clone()).await;
    tasks.spawn(writer.run(queue_of_rows));

    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let pipeline = Arc::new(Pipeline {
        http: Client::builder(TokioExecutor::new()).build(connector),
        signer: Signer::new(&Secret::parse(SECRET.to_owned()).unwrap()),
        urls,
        rows,
    });
    let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
    qos.await.unwrap();
    let mut consumer = channel
        .basic_consume(
            short(&queue),
            short("bare"),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let handle = {
        let tasks = tasks.clone();
        move |delivery| drop(tasks.spawn(pipeline.clone().handle(delivery)))
    };
    let mut next: Box<dyn FnMut(Delivery) + Send> = if claims {
        let mut lanes = Vec::new();
        for _ in 0..claims::LANES {
            let (to_claim, queue_of_events) = mpsc::unbounded_channel();
            let claims = Claims::connect(&postgres_url).await;
            tasks.spawn(claims.run(queue_of_events, handle.clone()));
            lanes.push(to_claim);
        }
        let mut turn = lanes.into_iter().cycle();
        Box::new(move |delivery| {
            if let Some(lane) = turn.next() {
                let _the_lane_has_ended = lane.send(delivery);
            }
        })
    } else {
        Box::new(handle)
    };
    println!("ready");
    while let Some(Ok(delivery)) = consumer.next().await {
        next(delivery);
    }
}

async fn declare(channel: &lapin::Channel, queue: &str) {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString(LongString::from("quorum"));
    arguments.insert(short("x-queue-type"), quorum);
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(short(queue), durable, arguments)
        .await
        .unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
}

impl Pipeline {
    async fn handle(self: Arc<Self>, delivery: Delivery) {
        let event: Event<'_> = serde_json::from_slice(&delivery.data).unwrap();
        let body = render(&event);
        let started = Instant::now();
        let answers = join_all(self.urls.iter().map(|url| self.post(url, &event, &body))).await;
        let row = Row {
            tag: delivery.delivery_tag,
            event_id: event.id.to_owned(),
            event_type: event.event_type.to_owned(),
            partner_id: event.partner_id,
            body: body.clone(),
            statuses: answers,
            total: started.elapsed(),
        };
        let _the_writer_has_ended = self.rows.send(row);
    }

    async fn post(&self, url: &http::Uri, event: &Event<'_>, body: &Bytes) -> u16 {
        let now_s = chrono::Utc::now().timestamp();
        let request = http::Request::post(url.clone())
            .header("content-type", "application/json")
            .header("user-agent", "bare-pipeline/1.0")
            .header("x-vellocity-signature", self.signer.sign_body(body))
            .header("x-vellocity-event", event.event_type)
            .header("x-vellocity-delivery", event.id)
            .header("webhook-id", event.id)
            .header("webhook-timestamp", now_s)
            .header(
                "webhook-signature",
                self.signer.sign_standard(event.id, now_s, body),
            )
            .body(Full::new(body.clone()))
            .unwrap();
        let response = self.http.request(request).await.expect("an answer");
        let status = response.status().as_u16();
        let _read = response.into_body().collect().await;
        status
    }
}

fn render(event: &Event<'_>) -> Bytes {
    format!(
        r#"{{"id":"{}","type":"{}","timestamp":"{}","data":{}}}"#,
        event.id, event.event_type, event.timestamp, event.data
    )
    .into()
}

fn short(text: &str) -> ShortString {
    ShortString::try_new(text).expect("at most 255 bytes")
}
