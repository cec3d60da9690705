//! Messages at the end of the line: events that can't be used (`rejected`), and messages that nobody could handle
//! (`dead`). The retry service moves both into rows; people list them, send them again, or drop them.

use bytes::Bytes;
use domain::rejection::Rejection;
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

use crate::delivery::{Delivery, Headers};
use crate::envelope;
use crate::message::Message;
use crate::topology::{Exchange, PARTNER_HEADER};
use crate::trace::Trace;

/// Headers of our own, on messages that a service sent here.
const CODE: &str = "x-vellocity-code";
const REASON: &str = "x-vellocity-reason";
const EXCHANGE: &str = "x-vellocity-exchange";
const ROUTING_KEY: &str = "x-vellocity-routing-key";
/// Marks a message that a person sends again: such a copy takes over a claim that was never recorded.
pub const SENT_AGAIN: &str = "x-vellocity-requeued";

/// Longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 1000;

/// Which of the two lines a message ended in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    Rejected,
    Dead,
}

impl Line {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Dead => "dead",
        }
    }

    fn exchange(self) -> Exchange {
        match self {
            Self::Rejected => Exchange::Rejected,
            Self::Dead => Exchange::Dead,
        }
    }
}

/// All that is kept of such a message. Texts hold no control characters, so that any database takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub line: Line,
    /// Ours, and unique; none on what the broker moved here by itself.
    pub message_id: Option<String>,
    /// For programs: a rejection's code, a code of the service that gave up, or the broker's reason.
    pub code: String,
    /// One sentence for people.
    pub reason: String,
    /// Where it was published to, and where to send it again.
    pub exchange: String,
    pub routing_key: String,
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    /// As the header says it, or else the body.
    pub partner_id: Option<String>,
    pub app_id: Option<String>,
    pub content_type: Option<String>,
    pub trace: Trace,
    pub body: Bytes,
}

impl DeadLetter {
    /// An event that can't be used.
    #[must_use]
    pub fn rejected(delivery: &Delivery, rejection: &Rejection) -> Self {
        let code = rejection.code.as_str();
        Self::ours(Line::Rejected, delivery, code, &rejection.reason)
    }

    /// A message that a service can do nothing about, such as an announcement without a row.
    #[must_use]
    pub fn dead(delivery: &Delivery, code: &str, reason: &str) -> Self {
        Self::ours(Line::Dead, delivery, code, reason)
    }

    fn ours(line: Line, delivery: &Delivery, code: &str, reason: &str) -> Self {
        Self {
            message_id: Some(Uuid::now_v7().to_string()),
            code: clean(code),
            reason: clean(reason),
            exchange: clean(&delivery.exchange),
            routing_key: clean(&delivery.routing_key),
            ..Self::plain(line, delivery)
        }
    }

    /// Reads what came out of the queue of `line`, whoever put it there.
    #[must_use]
    pub fn read(line: Line, delivery: &Delivery) -> Self {
        let headers = delivery.headers();
        let plain = Self::plain(line, delivery);
        // Ours never have a death, and the broker writes one on what it moves: then headers like ours are a publisher's.
        if let Some(death) = Death::last(headers) {
            return Self {
                reason: format!(
                    "RabbitMQ took the message out of {}: {}.",
                    death.queue,
                    death.why()
                ),
                code: death.reason,
                exchange: death.exchange,
                routing_key: death.routing_key,
                ..plain
            };
        }
        let Some(code) = headers.text(CODE) else {
            return plain;
        };
        let text = |name: &str| clean(headers.text(name).unwrap_or_default());
        Self {
            message_id: delivery.properties.message_id().map(clean),
            code: clean(code),
            reason: text(REASON),
            exchange: text(EXCHANGE),
            routing_key: text(ROUTING_KEY),
            ..plain
        }
    }

    fn plain(line: Line, delivery: &Delivery) -> Self {
        let peek = envelope::peek(delivery);
        let header = partner_header(delivery.headers());
        Self {
            line,
            message_id: None,
            code: "unknown".to_owned(),
            reason: "The message does not say why it is here.".to_owned(),
            exchange: clean(&delivery.exchange),
            routing_key: clean(&delivery.routing_key),
            event_id: peek.id.map(Into::into),
            event_type: peek.event_type.map(Into::into),
            partner_id: header.or_else(|| peek.partner_id.map(|id| id.to_string())),
            app_id: delivery.properties.app_id().map(clean),
            content_type: delivery.properties.content_type().map(clean),
            trace: Trace::read(delivery.headers()),
            body: delivery.body.clone(),
        }
    }

    /// The message that carries this to its line.
    #[must_use]
    pub fn message(&self) -> Message {
        let mut message = self
            .carry(self.line.exchange(), &self.routing_key)
            .header(CODE, self.code.as_str())
            .header(REASON, self.reason.as_str())
            .header(EXCHANGE, self.exchange.as_str())
            .header(ROUTING_KEY, self.routing_key.as_str());
        message.message_id.clone_from(&self.message_id);
        message.mandatory()
    }

    /// The message as it was, to be sent again to where it came from. `None`: it came from no exchange of ours.
    #[must_use]
    pub fn again(&self) -> Option<Message> {
        let exchange = Exchange::from_name(&self.exchange)?;
        let mut message = self
            .carry(exchange, &self.routing_key)
            .header(SENT_AGAIN, 1);
        message.message_id.clone_from(&self.event_id);
        Some(message.mandatory())
    }

    fn carry(&self, exchange: Exchange, routing_key: &str) -> Message {
        let mut message = Message::new(exchange, routing_key, self.body.clone()).trace(&self.trace);
        if let Some(partner_id) = &self.partner_id {
            message = message.header(PARTNER_HEADER, partner_id.as_str());
        }
        message.content_type = self.content_type.clone().map(Into::into);
        message.app_id.clone_from(&self.app_id);
        message
    }
}

/// One stop on a message's way through dead-letter exchanges, as the broker noted it.
struct Death {
    queue: String,
    reason: String,
    exchange: String,
    routing_key: String,
}

impl Death {
    /// The latest, which the broker writes in front.
    fn last(headers: Headers<'_>) -> Option<Self> {
        let AMQPValue::FieldArray(deaths) = headers.raw("x-death")? else {
            return None;
        };
        let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else {
            return None;
        };
        let keys = match death.inner().get("routing-keys") {
            Some(AMQPValue::FieldArray(keys)) => keys.as_slice(),
            _ => &[],
        };
        Some(Self {
            queue: field(death, "queue"),
            reason: field(death, "reason"),
            exchange: field(death, "exchange"),
            routing_key: keys.first().map(text).unwrap_or_default(),
        })
    }

    fn why(&self) -> &str {
        match self.reason.as_str() {
            "delivery_limit" => "it came back from consumers too often",
            "rejected" => "a consumer refused it",
            "expired" => "it waited there for too long",
            "maxlen" => "the queue was full",
            other => other,
        }
    }
}

fn field(table: &FieldTable, name: &str) -> String {
    table.inner().get(name).map(text).unwrap_or_default()
}

fn text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => clean(&text.to_string()),
        AMQPValue::ShortString(text) => clean(text.as_str()),
        _ => String::new(),
    }
}

fn partner_header(headers: Headers<'_>) -> Option<String> {
    let of_number = || headers.integer(PARTNER_HEADER).map(|n| n.to_string());
    headers.text(PARTNER_HEADER).map(clean).or_else(of_number)
}

/// Text from a stranger, fit for a log and a database.
fn clean(text: &str) -> String {
    let fit = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(REASON_CHARS_MAX).map(fit).collect()
}
