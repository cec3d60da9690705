//! The task of one publisher. Woken by messages to send and by confirms; answers whoever waits in `publish`.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::returns::{Key, Returns};
use super::{IN_FLIGHT_MAX, Job};
use crate::error::{BrokerError, PublishError};
use crate::link::Link;
use crate::message::{Message, short};
use crate::supervisor::{Phase, current};

type Waiting = oneshot::Sender<Result<(), PublishError>>;

/// Most messages that are put in flight between two looks at the confirms.
const BATCH_MAX: usize = 128;
/// Wait before another channel is opened on the same link, after the broker closed one: it does so when a message goes
/// to an exchange that is not there or that the user may not publish to.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// Age at which a message that was sent and never confirmed is given up with its channel: a queue that has lost its
/// leader must not hold the messages to all others. While the broker takes no messages at all, nothing is given up.
const STUCK_AFTER: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Works until every handle is dropped or the broker is closed.
pub(super) async fn run(mut phase: watch::Receiver<Phase>, mut jobs: mpsc::Receiver<Job>) {
    loop {
        let Some(link) = current(&phase) else {
            tokio::select! {
                changed = phase.changed() => {
                    if changed.is_err() || matches!(&*phase.borrow(), Phase::Closed) {
                        return;
                    }
                }
                () = refuse(&mut jobs) => return,
            }
            continue;
        };
        let ended = tokio::select! {
            biased;
            () = link.lost() => continue,
            ended = publish_on(&link, &mut jobs) => ended,
        };
        match ended {
            Ok(()) => return,
            Err(error) => tracing::warn!(why = %error.line(), "a publisher's channel ended"),
        }
        tokio::time::sleep(REOPEN_PAUSE).await;
    }
}

/// Answers whoever came while the link broke, until every handle is dropped.
async fn refuse(jobs: &mut mpsc::Receiver<Job>) {
    while let Some(job) = jobs.recv().await {
        answer(
            job.result,
            Err(PublishError::Unavailable("connecting".to_owned())),
        );
    }
}

/// One channel from beginning to end. `Ok`: every handle is dropped and everything is confirmed.
async fn publish_on(link: &Link, jobs: &mut mpsc::Receiver<Job>) -> Result<(), BrokerError> {
    let channel = open(link)
        .await
        .inspect_err(|error| link.declare_lost(error.line()))?;
    let mut lane = Lane::default();
    let mut in_flight = FuturesUnordered::new();
    let mut buffer = Vec::with_capacity(BATCH_MAX);
    let mut open = true;
    let mut look = tokio::time::interval(LOOK_EVERY);
    while open || !in_flight.is_empty() {
        let room = IN_FLIGHT_MAX.saturating_sub(in_flight.len()).min(BATCH_MAX);
        tokio::select! {
            biased;
            Some((number, outcome)) = in_flight.next() => match outcome {
                Ok(confirmation) => lane.settle(number, confirmation),
                Err(error) => {
                    let error = BrokerError::amqp("go on taking messages", error);
                    return Err(lane.fail(error));
                }
            },
            received = jobs.recv_many(&mut buffer, room), if open && room > 0 => open = received > 0,
            _ = look.tick() => if link.blocked().is_none() && lane.is_stuck() {
                let action = "confirm a message".to_owned();
                return Err(lane.fail(BrokerError::Timeout { action, limit: STUCK_AFTER }));
            },
        }
        // They are all polled by this one task, so that tags and frames stay in step.
        let parcels = buffer.drain(..).filter_map(|job| lane.admit(job));
        in_flight.extend(parcels.map(|parcel| send(&channel, parcel)));
    }
    Ok(())
}

async fn open(link: &Link) -> Result<Channel, BrokerError> {
    let channel = link.open_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .map_err(|e| BrokerError::amqp("promise confirms", e))?;
    Ok(channel)
}

/// A message in lapin's terms.
struct Parcel {
    number: u64,
    message: Message,
    routing_key: ShortString,
    properties: BasicProperties,
}

/// Sends, and waits for the confirm.
async fn send(channel: &Channel, parcel: Parcel) -> (u64, lapin::Result<Confirmation>) {
    let options = BasicPublishOptions {
        mandatory: parcel.message.mandatory,
        immediate: false,
    };
    let sent = channel.basic_publish(
        parcel.message.exchange.name().into(),
        parcel.routing_key,
        options,
        &parcel.message.body,
        parcel.properties,
    );
    let outcome = async { sent.await?.await }.await;
    (parcel.number, outcome)
}

/// Who waits for which message of the channel.
#[derive(Default)]
struct Lane {
    waiting: HashMap<u64, (Option<Key>, Waiting)>,
    /// When each message was sent, the oldest first; those that are settled are dropped from the front.
    sent: VecDeque<(u64, Instant)>,
    returns: Returns<Waiting>,
}

impl Lane {
    /// Takes a message in, unless nobody waits for it any more or it can't be sent at all.
    fn admit(&mut self, job: Job) -> Option<Parcel> {
        let Job {
            mut message,
            result,
        } = job;
        if result.is_closed() {
            return None;
        }
        if message.mandatory && message.message_id.is_none() {
            message.message_id = Some(Uuid::now_v7().to_string());
        }
        let properties = message.properties();
        let routing_key = short("the routing key", &message.routing_key);
        let (properties, routing_key) = match (properties, routing_key) {
            (Ok(properties), Ok(routing_key)) => (properties, routing_key),
            (Err(error), _) | (_, Err(error)) => {
                answer(result, Err(error));
                return None;
            }
        };
        let number = self.returns.sent();
        let key = message.mandatory.then(|| key_of(&message));
        self.waiting.insert(number, (key, result));
        self.sent.push_back((number, Instant::now()));
        Some(Parcel {
            number,
            message,
            routing_key,
            properties,
        })
    }

    fn settle(&mut self, number: u64, confirmation: Confirmation) {
        let accepted = confirmation.is_ack();
        if let Some(returned) = confirmation.take_message() {
            let why = returned.reply_text.to_string();
            self.returns.returned(key_of_returned(&returned), why);
        }
        self.returns.settled(number);
        match self.waiting.remove(&number) {
            Some((_, result)) if !accepted => answer(result, Err(PublishError::Refused)),
            Some((None, result)) => answer(result, Ok(())),
            Some((Some(key), result)) => self.returns.confirmed(key, result),
            None => {}
        }
        let waiting = &self.waiting;
        while self
            .sent
            .pop_front_if(|(number, _)| !waiting.contains_key(number))
            .is_some()
        {}
        for (result, returned) in self.returns.verdicts() {
            answer(
                result,
                returned.map_or(Ok(()), |why| Err(PublishError::Returned(why))),
            );
        }
    }

    /// Whether the oldest message in flight has waited too long for its confirm.
    fn is_stuck(&self) -> bool {
        let oldest = self.sent.front();
        oldest.is_some_and(|(_, sent_at)| sent_at.elapsed() > STUCK_AFTER)
    }

    /// The channel is of no more use: nobody knows what became of the messages in flight.
    fn fail(&mut self, error: BrokerError) -> BrokerError {
        for (_, (_, result)) in self.waiting.drain() {
            answer(result, Err(PublishError::Unavailable(error.line())));
        }
        error
    }
}

fn key_of(message: &Message) -> Key {
    (
        message.exchange.name().to_owned(),
        message.routing_key.clone(),
        message.message_id.clone().unwrap_or_default(),
    )
}

fn key_of_returned(message: &BasicReturnMessage) -> Key {
    let id = message.properties.message_id().as_ref();
    (
        message.exchange.to_string(),
        message.routing_key.to_string(),
        id.map(ToString::to_string).unwrap_or_default(),
    )
}

fn answer(waiting: Waiting, result: Result<(), PublishError>) {
    // Whoever waited may have given up.
    let _ = waiting.send(result);
}
