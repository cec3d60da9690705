//! A message on its way out.
//!
//! Built from parts and never from a consumed message: copied headers would bring along `x-death` (which makes 3.10
//! drop it as a cycle) and `CC` (which puts it into queues that its publisher may not reach).

use std::borrow::Cow;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::Serialize;

use crate::delivery::HeaderValue;
use crate::error::PublishError;
use crate::topology::Exchange;
use crate::trace::Trace;

/// `delivery_mode` of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// What [`crate::Publisher::publish`] takes. Persistent unless told otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub exchange: Exchange,
    pub routing_key: String,
    pub body: Bytes,
    pub content_type: Option<Cow<'static, str>>,
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    pub reply_to: Option<String>,
    pub app_id: Option<String>,
    pub headers: Vec<(Cow<'static, str>, HeaderValue)>,
    /// Whether it is an error when no queue takes the message. Such a message gets an id if it has none.
    pub mandatory: bool,
    pub persistent: bool,
}

impl Message {
    #[must_use]
    pub fn new(exchange: Exchange, routing_key: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            exchange,
            routing_key: routing_key.into(),
            body: body.into(),
            content_type: None,
            message_id: None,
            correlation_id: None,
            reply_to: None,
            app_id: None,
            headers: Vec::new(),
            mandatory: false,
            persistent: true,
        }
    }

    /// A message of ours: its body is `value` as JSON.
    pub(crate) fn json(exchange: Exchange, routing_key: &str, value: &impl Serialize) -> Self {
        let Ok(body) = serde_json::to_vec(value) else {
            unreachable!("messages of ours are plain structs with text keys");
        };
        Self::new(exchange, routing_key, body).content_type("application/json")
    }

    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<Cow<'static, str>>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    #[must_use]
    pub fn message_id(mut self, id: impl Into<String>) -> Self {
        self.message_id = Some(id.into());
        self
    }

    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// The queue that an answer is expected on: a key of [`Exchange::Replies`].
    #[must_use]
    pub fn reply_to(mut self, queue: impl Into<String>) -> Self {
        self.reply_to = Some(queue.into());
        self
    }

    #[must_use]
    pub fn app_id(mut self, app_id: impl Into<String>) -> Self {
        self.app_id = Some(app_id.into());
        self
    }

    #[must_use]
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<HeaderValue>,
    ) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Lets whoever handles the message go on with this trace.
    #[must_use]
    pub fn trace(mut self, trace: &Trace) -> Self {
        trace.write(&mut self.headers);
        self
    }

    #[must_use]
    pub fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    /// Lets the message be lost with a restart of the broker: for answers that somebody waits for just now.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.persistent = false;
        self
    }

    pub(crate) fn properties(&self) -> Result<BasicProperties, PublishError> {
        let mut properties = BasicProperties::default();
        if self.persistent {
            properties = properties.with_delivery_mode(PERSISTENT);
        }
        if let Some(text) = &self.content_type {
            properties = properties.with_content_type(short("content_type", text)?);
        }
        if let Some(text) = &self.message_id {
            properties = properties.with_message_id(short("message_id", text)?);
        }
        if let Some(text) = &self.correlation_id {
            properties = properties.with_correlation_id(short("correlation_id", text)?);
        }
        if let Some(text) = &self.reply_to {
            properties = properties.with_reply_to(short("reply_to", text)?);
        }
        if let Some(text) = &self.app_id {
            properties = properties.with_app_id(short("app_id", text)?);
        }
        if !self.headers.is_empty() {
            properties = properties.with_headers(self.header_table()?);
        }
        Ok(properties)
    }

    pub(crate) fn header_table(&self) -> Result<FieldTable, PublishError> {
        let mut table = FieldTable::default();
        for (name, value) in &self.headers {
            let value = match value {
                HeaderValue::Text(text) => AMQPValue::LongString(text.as_str().into()),
                HeaderValue::Integer(number) => AMQPValue::LongLongInt(*number),
            };
            table.insert(short("a header's name", name)?, value);
        }
        Ok(table)
    }
}

/// lapin panics on a longer one.
pub(crate) fn short(what: &'static str, text: &str) -> Result<ShortString, PublishError> {
    ShortString::try_new(text).map_err(|_| PublishError::TooLong(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_too_long_for_amqp_is_an_error_and_no_panic() {
        let long = "x".repeat(256);
        let base = || Message::new(Exchange::Events, "a", "");
        for message in [
            base().message_id(long.clone()),
            base().app_id(long.clone()),
            base().content_type(long.clone()),
            base().header(long.clone(), "x"),
        ] {
            assert!(matches!(
                message.properties(),
                Err(PublishError::TooLong(_))
            ));
        }
        assert!(base().header("x", long).properties().is_ok());
    }

    #[test]
    fn messages_are_persistent_unless_told_otherwise() {
        let message = Message::new(Exchange::Events, "a", "");
        let mode = |m: &Message| *m.properties().unwrap().delivery_mode();
        assert_eq!(mode(&message), Some(2));
        assert_eq!(mode(&message.transient()), None);
    }
}
