//! What a person waits for: a test call of a webhook. management-api asks, any dispatcher answers.
//!
//! The question stands in a short queue of its own, so that it never waits behind a backlog; the answer goes to the
//! private queue of the process that asked.

use domain::id::{DeliveryId, PartnerId, WebhookId};
use serde::{Deserialize, Serialize};

use crate::delivery::Delivery;
use crate::error::BrokerError;
use crate::message::Message;
use crate::topology::{Exchange, INTERACTIVE_KEY};
use crate::trace::Trace;

/// A question to the dispatchers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Request {
    Test(TestCall),
}

/// Send a test delivery to this webhook now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestCall {
    pub webhook_id: WebhookId,
    pub partner_id: PartnerId,
    /// The id that the test delivery carries.
    pub delivery_id: DeliveryId,
    /// The time in the test delivery's body, in seconds since 1970.
    pub timestamp: i64,
    /// Nobody waits for the answer of a call that begins later, in milliseconds since 1970.
    pub begin_before_ms: i64,
}

/// What the dispatcher found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestResult {
    pub delivery_id: DeliveryId,
    /// Whether the receiver answered with 2xx.
    pub delivered: bool,
    /// The receiver's status, if it answered.
    pub response_code: Option<u16>,
    pub duration_ms: u64,
    /// What went wrong, in words for the partner.
    pub error: Option<String>,
}

impl Request {
    /// The message that asks. `reply_to` is [`crate::Consumer::queue`] of a consumer of replies.
    #[must_use]
    pub fn message(&self, reply_to: &str, correlation_id: &str, trace: &Trace) -> Message {
        Message::json(Exchange::Deliveries, INTERACTIVE_KEY, self)
            .reply_to(reply_to)
            .correlation_id(correlation_id)
            .message_id(correlation_id)
            .trace(trace)
            .mandatory()
            .transient()
    }

    /// Reads a delivery's body.
    ///
    /// # Errors
    /// [`BrokerError::Malformed`].
    pub fn read(delivery: &Delivery) -> Result<Self, BrokerError> {
        serde_json::from_slice(&delivery.body).map_err(|source| BrokerError::Malformed {
            what: "interactive request",
            source,
        })
    }
}

impl TestResult {
    /// The answer to `request`, if somebody asked for one. Not mandatory: whoever asked may be gone.
    #[must_use]
    pub fn message(&self, request: &Delivery) -> Option<Message> {
        let reply_to = request.properties.reply_to()?;
        let correlation_id = request.properties.correlation_id()?;
        let message = Message::json(Exchange::Replies, reply_to, self);
        Some(message.correlation_id(correlation_id).transient())
    }

    /// Reads a reply: the correlation id of the question, and the answer.
    ///
    /// # Errors
    /// [`BrokerError::Malformed`].
    pub fn read(reply: &Delivery) -> Result<(Option<&str>, Self), BrokerError> {
        let result =
            serde_json::from_slice(&reply.body).map_err(|source| BrokerError::Malformed {
                what: "test result",
                source,
            })?;
        Ok((reply.properties.correlation_id(), result))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::topology::INTERACTIVE_QUEUE;

    #[test]
    fn an_answer_finds_its_way_back_to_the_question() {
        let call = TestCall {
            webhook_id: WebhookId(1),
            partner_id: PartnerId(2),
            delivery_id: DeliveryId(Uuid::from_u128(3)),
            timestamp: 1_772_115_600,
            begin_before_ms: 1_772_115_605_000,
        };
        let question = Request::Test(call.clone()).message("replies-1", "c-1", &Trace::default());
        assert!(question.body.starts_with(br#"{"kind":"test","#));
        let question = Delivery::detached(INTERACTIVE_QUEUE, question).unwrap();
        assert_eq!(
            Request::read(&question).unwrap(),
            Request::Test(call.clone())
        );

        let result = TestResult {
            delivery_id: call.delivery_id,
            delivered: true,
            response_code: Some(200),
            duration_ms: 12,
            error: None,
        };
        let answer = result.message(&question).unwrap();
        assert_eq!(
            (answer.exchange, answer.routing_key.as_str()),
            (Exchange::Replies, "replies-1")
        );
        let answer = Delivery::detached("replies-1", answer).unwrap();
        assert_eq!(TestResult::read(&answer).unwrap(), (Some("c-1"), result));
    }
}
