//! What can go wrong with RabbitMQ, told apart where a caller decides differently.

use std::time::Duration;

/// Everything but publishing.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The configuration can't work: the start is refused.
    #[error("{0}")]
    Config(String),
    /// The link is gone. The supervisor makes a new one; the caller takes that.
    #[error("the connection to RabbitMQ is lost: {0}")]
    Lost(String),
    /// RabbitMQ said no, or nothing that makes sense.
    #[error("RabbitMQ did not {action}")]
    Amqp {
        action: String,
        #[source]
        source: lapin::Error,
    },
    /// RabbitMQ said nothing.
    #[error("RabbitMQ did not {action} within {} s", .limit.as_secs())]
    Timeout { action: String, limit: Duration },
    /// A message of ours that can't be read: it goes to the dead letters.
    #[error("the message is no {what}")]
    Malformed {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

impl BrokerError {
    pub(crate) fn amqp(action: impl Into<String>, source: lapin::Error) -> Self {
        Self::Amqp {
            action: action.into(),
            source,
        }
    }

    /// One line for a log or a readiness check: what went wrong and why.
    #[must_use]
    pub fn line(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

/// Why a message is not known to be in a queue. After [`PublishError::Unavailable`] and [`PublishError::Timeout`] it
/// may have got there all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection, or it broke before the confirm came.
    #[error("RabbitMQ is not available: {0}")]
    Unavailable(String),
    /// The broker answered with a nack: a queue is full, or could not store it.
    #[error("RabbitMQ refused the message")]
    Refused,
    /// A mandatory message that no queue takes.
    #[error("RabbitMQ has no queue for the message: {0}")]
    Returned(String),
    /// No confirm in time, for instance since the broker is out of memory or disk and has blocked publishers.
    #[error("RabbitMQ did not confirm the message within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// One of its short texts (routing key, ids, header names) is longer than the 255 bytes that AMQP allows.
    #[error("{0} is longer than 255 bytes")]
    TooLong(&'static str),
}
