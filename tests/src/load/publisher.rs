//! Publishes numbered events with confirms, all of them pipelined, as fast as a window allows or at a pace.
//!
//! At a pace each event has an instant at which it is *due*; what is late stays late, so that a stall of ours or of the
//! broker shows in the latency of every event behind it. What a broker refuses, or had not confirmed when its connection
//! broke, is published again under the same id.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};

use super::{Clock, event_id, pacer};

/// A broker that is away, or says no, is asked again after this long.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// An answer that takes longer is taken for a connection that is dead.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(20);
const PERSISTENT: u8 = 2;

/// Where and what is published.
#[derive(Clone, Debug)]
pub struct Target {
    pub amqp_url: String,
    pub exchange: String,
    pub routing_key: String,
    /// The value of `type`; the routing key, unless a queue is published to directly.
    pub event_type: String,
    /// Bytes of padding in `data`.
    pub padding_bytes: usize,
}

/// How fast.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// At most so many events unconfirmed.
    Window(usize),
    /// So many events a second, each with its instant.
    PerSecond(u32),
}

/// What was published: all of it confirmed.
#[derive(Clone, Debug, Default)]
pub struct Published {
    pub first: u32,
    /// For each number from `first` on, when it was due, in microseconds; for a window when it was sent.
    pub due_us: Vec<u64>,
    /// For each number from `first` on, its partner.
    pub partners: Vec<i64>,
    /// How often something had to be published again.
    pub again: u64,
}

impl Published {
    /// When that event was due.
    #[must_use]
    pub fn due_us(&self, number: u32) -> Option<u64> {
        self.due_us.get(self.place(number)?).copied()
    }

    /// Whose event that is.
    #[must_use]
    pub fn partner(&self, number: u32) -> Option<i64> {
        self.partners.get(self.place(number)?).copied()
    }

    fn place(&self, number: u32) -> Option<usize> {
        Some(number.checked_sub(self.first)? as usize)
    }
}

/// One connection with one channel; the only task that publishes on it.
pub struct Publisher {
    target: Target,
    clock: Clock,
    channel: Option<Confirming>,
    /// Published and not confirmed yet, in order.
    open: VecDeque<(Event, PublisherConfirm)>,
    /// To be published, or published again.
    waiting: VecDeque<Event>,
    padding: String,
    body: String,
    again: u64,
}

#[derive(Clone, Copy)]
struct Event {
    number: u32,
    partner_id: i64,
}

/// When events are due.
enum Dues {
    Window { size: usize, end_us: u64, left: u32 },
    Paced(UnboundedReceiver<u64>),
}

impl Dues {
    fn new(pace: Pace, duration: Duration, count_max: u32, clock: Clock) -> Self {
        let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        match pace {
            Pace::Window(size) => Self::Window {
                size,
                end_us: clock.now_us().saturating_add(duration_us),
                left: count_max,
            },
            Pace::PerSecond(rate) => {
                let count = duration_us.saturating_mul(rate.into()).div_ceil(1_000_000);
                Self::Paced(pacer::start(clock, rate, count.min(count_max.into())))
            }
        }
    }
}

/// A channel that confirms, and the connection that it needs.
struct Confirming {
    channel: Channel,
    _connection: Connection,
}

impl Publisher {
    #[must_use]
    pub fn new(target: Target, clock: Clock) -> Self {
        runtime::exit::install_crypto_provider();
        Self {
            padding: "x".repeat(target.padding_bytes),
            target,
            clock,
            channel: None,
            open: VecDeque::new(),
            waiting: VecDeque::new(),
            body: String::new(),
            again: 0,
        }
    }

    /// Publishes events from number `first` on for as long as `duration`, or up to `count_max`, each for the partner that
    /// `partner` says; returns once all are confirmed.
    pub async fn run(
        &mut self,
        first: u32,
        pace: Pace,
        duration: Duration,
        count_max: u32,
        mut partner: impl FnMut(u32) -> i64,
    ) -> Published {
        let mut published = Published {
            first,
            ..Published::default()
        };
        let mut dues = Dues::new(pace, duration, count_max, self.clock);
        self.again = 0;
        for number in first.. {
            let Some(due_us) = self.next_due(&mut dues).await else {
                break;
            };
            let partner_id = partner(number);
            published.due_us.push(due_us);
            published.partners.push(partner_id);
            self.waiting.push_back(Event { number, partner_id });
            self.send_waiting().await;
        }
        self.until_open_below(1).await;
        published.again = self.again;
        published
    }

    /// Takes confirms in until the next event is due; `None` when there is no next one.
    async fn next_due(&mut self, dues: &mut Dues) -> Option<u64> {
        match dues {
            Dues::Window { left: 0, .. } => None,
            Dues::Window { size, end_us, left } => {
                *left -= 1;
                self.until_open_below(*size).await;
                let now_us = self.clock.now_us();
                (now_us < *end_us).then_some(now_us)
            }
            Dues::Paced(dues) => loop {
                let Some((_, confirm)) = self.open.front_mut() else {
                    return dues.recv().await;
                };
                let answer = tokio::select! {
                    biased;
                    due_us = dues.recv() => return due_us,
                    answer = confirm => answer,
                };
                self.confirmed(answer).await;
            },
        }
    }

    async fn until_open_below(&mut self, size: usize) {
        while self.open.len() + self.waiting.len() >= size {
            match self.open.front_mut() {
                None => self.send_waiting().await,
                Some((_, confirm)) => match timeout(CONFIRM_TIMEOUT, confirm).await {
                    Ok(answer) => self.confirmed(answer).await,
                    Err(_) => self.connection_is_dead().await,
                },
            }
        }
    }

    /// What the broker said of the oldest.
    async fn confirmed(&mut self, answer: lapin::Result<Confirmation>) {
        match answer {
            Ok(Confirmation::Ack(None)) => {
                self.open.pop_front();
            }
            // Refused, or without a queue: the topology may be about to be declared.
            Ok(_) => {
                if let Some((event, _)) = self.open.pop_front() {
                    self.waiting.push_back(event);
                    self.again += 1;
                }
                sleep(AGAIN_AFTER).await;
                self.send_waiting().await;
            }
            Err(_) => self.connection_is_dead().await,
        }
    }

    /// All that was not confirmed may be lost.
    async fn connection_is_dead(&mut self) {
        self.channel = None;
        self.again += self.open.len() as u64;
        for (event, _) in self.open.drain(..).rev() {
            self.waiting.push_front(event);
        }
        sleep(AGAIN_AFTER).await;
    }

    /// Publishes what has to be, over a new connection where there is none.
    async fn send_waiting(&mut self) {
        while let Some(&event) = self.waiting.front() {
            match self.send(event).await {
                Ok(confirm) => {
                    self.waiting.pop_front();
                    self.open.push_back((event, confirm));
                }
                Err(_) => self.connection_is_dead().await,
            }
        }
    }

    async fn send(&mut self, event: Event) -> lapin::Result<PublisherConfirm> {
        let confirming = match &mut self.channel {
            Some(confirming) => confirming,
            none => none.insert(connect(&self.target.amqp_url).await?),
        };
        let Event { number, partner_id } = event;
        self.body.clear();
        let _never_fails = write!(
            self.body,
            r#"{{"id":"{}","type":"{}","partner_id":{partner_id},"timestamp":"2026-02-26T14:20:00Z","data":{{"listing_id":{number},"padding":"{}"}}}}"#,
            event_id(number),
            self.target.event_type,
            self.padding,
        );
        let mut headers = FieldTable::default();
        let header = AMQPValue::LongString(LongString::from(partner_id.to_string()));
        headers.insert(short("partner_id"), header);
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type(short("application/json"))
            .with_headers(headers);
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        confirming
            .channel
            .basic_publish(
                short(&self.target.exchange),
                short(&self.target.routing_key),
                options,
                self.body.as_bytes(),
                properties,
            )
            .await
    }
}

async fn connect(url: &str) -> lapin::Result<Confirming> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(Confirming {
        channel,
        _connection: connection,
    })
}

fn short(text: &str) -> ShortString {
    ShortString::try_new(text).expect("at most 255 bytes")
}
