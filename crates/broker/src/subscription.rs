//! "This webhook changed": from management-api's outbox and the retry service to the caches of all dispatchers.
//!
//! A hint: whoever hears it drops what it knows of the partner. Its order does not matter, since it has the version.

use chrono::{DateTime, Utc};
use domain::id::{PartnerId, WebhookId};
use serde::{Deserialize, Serialize};

use crate::delivery::Delivery;
use crate::error::BrokerError;
use crate::message::Message;
use crate::topology::Exchange;
use crate::trace::Trace;

/// The key that takes in all of them.
pub const ALL_KEY: &str = "webhook.#";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionChange {
    #[serde(rename = "type")]
    pub kind: ChangeKind,
    pub partner_id: PartnerId,
    pub webhook_id: WebhookId,
    /// The webhook's version after the change.
    pub version: i32,
    pub at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChangeKind {
    #[serde(rename = "webhook.created")]
    Created,
    #[serde(rename = "webhook.updated")]
    Updated,
    #[serde(rename = "webhook.deleted")]
    Deleted,
    /// By us, and not by the partner.
    #[serde(rename = "webhook.disabled")]
    Disabled,
}

impl ChangeKind {
    pub const ALL: [Self; 4] = [Self::Created, Self::Updated, Self::Deleted, Self::Disabled];

    /// The routing key, and the `type` in the body.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "webhook.created",
            Self::Updated => "webhook.updated",
            Self::Deleted => "webhook.deleted",
            Self::Disabled => "webhook.disabled",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl SubscriptionChange {
    /// Not mandatory: without a dispatcher there is nobody to tell.
    #[must_use]
    pub fn message(&self, trace: &Trace) -> Message {
        Message::json(Exchange::Subscriptions, self.kind.as_str(), self)
            .message_id(format!("{}.{}", self.webhook_id, self.version))
            .trace(trace)
    }

    /// Reads a delivery's body.
    ///
    /// # Errors
    /// [`BrokerError::Malformed`].
    pub fn read(delivery: &Delivery) -> Result<Self, BrokerError> {
        serde_json::from_slice(&delivery.body).map_err(|source| BrokerError::Malformed {
            what: "subscription change",
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_survives_the_broker_under_its_own_key() {
        for kind in ChangeKind::ALL {
            let change = SubscriptionChange {
                kind,
                partner_id: PartnerId(1),
                webhook_id: WebhookId(2),
                version: 3,
                at: DateTime::from_timestamp(1_772_115_600, 0).unwrap(),
            };
            let message = change.message(&Trace::default());
            assert_eq!(message.routing_key, kind.as_str());
            assert_eq!(ChangeKind::from_name(kind.as_str()), Some(kind));
            let delivery = Delivery::detached("mine", message).unwrap();
            assert_eq!(SubscriptionChange::read(&delivery).unwrap(), change);
        }
    }
}
