//! A message on its way in.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::acks::Receipt;
use crate::message::Message;

/// How often quorum queues delivered a message before.
const DELIVERY_COUNT: &str = "x-delivery-count";
const ACQUIRED_COUNT: &str = "x-acquired-count";

/// One message as it was delivered. Whoever takes it settles the [`Receipt`].
#[derive(Debug)]
pub struct Delivery {
    /// The queue that it was consumed from.
    pub queue: Arc<str>,
    /// The exchange that it was published to, or dead-lettered through.
    pub exchange: String,
    pub routing_key: String,
    pub redelivered: bool,
    /// When it was taken from the consumer.
    pub received_at: Instant,
    pub properties: Properties,
    pub body: Bytes,
    pub receipt: Receipt,
}

impl Delivery {
    pub(crate) fn new(
        queue: Arc<str>,
        delivery: lapin::message::Delivery,
        receipt: Receipt,
    ) -> Self {
        Self {
            queue,
            exchange: delivery.exchange.into(),
            routing_key: delivery.routing_key.into(),
            redelivered: delivery.redelivered,
            received_at: Instant::now(),
            properties: Properties(delivery.properties),
            body: delivery.data.into(),
            receipt,
        }
    }

    /// A delivery as a consumer would get it from `message`, without a broker: for tests. Settling it does nothing.
    ///
    /// # Errors
    /// When the message could not be published either.
    pub fn detached(queue: &str, message: Message) -> Result<Self, crate::PublishError> {
        Ok(Self {
            queue: queue.into(),
            exchange: message.exchange.name().to_owned(),
            routing_key: message.routing_key.clone(),
            redelivered: false,
            received_at: Instant::now(),
            properties: Properties(message.properties()?),
            body: message.body,
            receipt: Receipt::detached(),
        })
    }

    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        self.properties.headers()
    }

    /// How often the message was delivered before this time, as far as the broker tells. From 4.3 on a message that
    /// was put back without an attempt counts in a header of its own.
    #[must_use]
    pub fn delivery_count(&self) -> u32 {
        [DELIVERY_COUNT, ACQUIRED_COUNT]
            .into_iter()
            .filter_map(|name| self.headers().integer(name))
            .map(|count| u32::try_from(count).unwrap_or(u32::MAX))
            .max()
            .unwrap_or(0)
            .max(u32::from(self.redelivered))
    }

    /// Whether some consumer had the message before.
    #[must_use]
    pub fn came_back(&self) -> bool {
        self.delivery_count() > 0
    }
}

/// What a publisher may say of a message beside its body. Each may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties(BasicProperties);

impl Properties {
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.0.content_type().as_ref().map(ShortString::as_str)
    }

    #[must_use]
    pub fn content_encoding(&self) -> Option<&str> {
        self.0.content_encoding().as_ref().map(ShortString::as_str)
    }

    #[must_use]
    pub fn message_id(&self) -> Option<&str> {
        self.0.message_id().as_ref().map(ShortString::as_str)
    }

    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        self.0.correlation_id().as_ref().map(ShortString::as_str)
    }

    #[must_use]
    pub fn reply_to(&self) -> Option<&str> {
        self.0.reply_to().as_ref().map(ShortString::as_str)
    }

    #[must_use]
    pub fn app_id(&self) -> Option<&str> {
        self.0.app_id().as_ref().map(ShortString::as_str)
    }

    /// The user that published, as the broker has checked it.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.0.user_id().as_ref().map(ShortString::as_str)
    }

    #[must_use]
    pub fn timestamp(&self) -> Option<DateTime<Utc>> {
        let seconds = i64::try_from((*self.0.timestamp())?).ok()?;
        DateTime::from_timestamp(seconds, 0)
    }

    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers(self.0.headers().as_ref())
    }
}

/// A view of a message's headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a>(Option<&'a FieldTable>);

/// A header's value, as far as anybody here has a use for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    Text(String),
    Integer(i64),
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for HeaderValue {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl<'a> Headers<'a> {
    /// Whether there is a header of that name with any value but void.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// A text header. Text that is not UTF-8 counts as missing.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        match self.raw(name)? {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
            AMQPValue::ShortString(text) => Some(text.as_str()),
            AMQPValue::ByteArray(bytes) => std::str::from_utf8(bytes.as_slice()).ok(),
            _ => None,
        }
    }

    /// A header of one of AMQP's integer types.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.raw(name)? {
            AMQPValue::ShortShortInt(n) => Some((*n).into()),
            AMQPValue::ShortShortUInt(n) => Some((*n).into()),
            AMQPValue::ShortInt(n) => Some((*n).into()),
            AMQPValue::ShortUInt(n) => Some((*n).into()),
            AMQPValue::LongInt(n) => Some((*n).into()),
            AMQPValue::LongUInt(n) => Some((*n).into()),
            AMQPValue::LongLongInt(n) => Some(*n),
            _ => None,
        }
    }

    /// Names of all headers.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        let tables = self.0.into_iter();
        tables.flat_map(|table| table.inner().keys().map(ShortString::as_str))
    }

    pub(crate) fn raw(&self, name: &str) -> Option<&'a AMQPValue> {
        match self.0?.inner().get(name) {
            None | Some(AMQPValue::Void) => None,
            value => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Exchange;

    #[test]
    fn headers_are_read_by_type() {
        let mut table = FieldTable::default();
        table.insert("text".into(), AMQPValue::LongString("é".into()));
        table.insert("bytes".into(), AMQPValue::LongString(vec![0xff].into()));
        table.insert("small".into(), AMQPValue::ShortShortUInt(7));
        table.insert("big".into(), AMQPValue::Double(1e300));
        table.insert("void".into(), AMQPValue::Void);
        let headers = Headers(Some(&table));
        assert_eq!(headers.text("text"), Some("é"));
        assert_eq!(headers.text("bytes"), None);
        assert_eq!(headers.integer("small"), Some(7));
        assert_eq!(headers.text("small"), None);
        assert_eq!(headers.integer("big"), None);
        assert!(headers.contains("big") && !headers.contains("void"));
        assert!(!Headers(None).contains("text"));
    }

    #[test]
    fn a_detached_delivery_shows_what_was_published() {
        let message = Message::new(Exchange::Events, "listing.updated", "{}")
            .content_type("application/json")
            .message_id("evt_1")
            .header("partner_id", "42")
            .header("x-delivery-count", 3);
        let delivery = Delivery::detached("q", message).unwrap();
        assert_eq!(delivery.routing_key, "listing.updated");
        assert_eq!(delivery.properties.content_type(), Some("application/json"));
        assert_eq!(delivery.headers().text("partner_id"), Some("42"));
        assert_eq!(delivery.delivery_count(), 3);
        delivery.receipt.ack();
    }
}
