//! A partner's subscription.

use std::collections::BTreeSet;

use crate::event::EventType;
use crate::id::{PartnerId, WebhookId};
use crate::limits::{DESCRIPTION_CHARS_MAX, EVENTS_PER_WEBHOOK_MAX};
use crate::signature::Signer;
use crate::webhook_url::WebhookUrl;

/// The version of a webhook since which what happened at it counts: that in which its URL was changed or it was enabled
/// again. A type of its own, so that the version that an attempt was sent with is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HealthVersion(pub i32);

/// What the dispatcher needs to know of an active webhook to match and to send.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub webhook_id: WebhookId,
    pub partner_id: PartnerId,
    /// Raised by every change of the webhook.
    pub version: i32,
    /// Raised by those changes only that begin its health anew.
    pub health_version: HealthVersion,
    pub url: WebhookUrl,
    pub events: Vec<EventType>,
    pub signer: Signer,
}

/// Why we, and not the partner, switched a webhook off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisabledReason {
    /// The receiver answered 410 Gone.
    Gone,
    /// Nothing but failed attempts for days.
    Failing,
}

impl DisabledReason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }
}

/// What is wrong with a list of event types. The words are for the partner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEvents {
    #[error("must contain at least one event type")]
    Empty,
    #[error("must not contain more than {EVENTS_PER_WEBHOOK_MAX} event types")]
    TooMany,
    #[error("{0} is not an event type")]
    Malformed(String),
    #[error("{0} is listed more than once")]
    Repeated(EventType),
}

/// Parses the `events` of a request. Whether each is in the catalogue is the caller's to ask.
///
/// # Errors
/// When there are none or too many, or one is malformed or repeated.
pub fn parse_events(names: Vec<String>) -> Result<Vec<EventType>, InvalidEvents> {
    if names.is_empty() {
        return Err(InvalidEvents::Empty);
    }
    if names.len() > EVENTS_PER_WEBHOOK_MAX {
        return Err(InvalidEvents::TooMany);
    }
    let mut seen = BTreeSet::new();
    let mut events = Vec::with_capacity(names.len());
    for name in names {
        let event: EventType = name.parse().map_err(|_| InvalidEvents::Malformed(name))?;
        if !seen.insert(event.clone()) {
            return Err(InvalidEvents::Repeated(event));
        }
        events.push(event);
    }
    Ok(events)
}

/// A human-readable label of at most 255 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDescription {
    #[error("must not be longer than {DESCRIPTION_CHARS_MAX} characters")]
    TooLong,
    /// Postgres can't hold it in a text.
    #[error("must not contain the character U+0000")]
    Nul,
}

impl Description {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Description {
    type Error = InvalidDescription;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.contains('\0') {
            Err(InvalidDescription::Nul)
        } else if text.chars().count() > DESCRIPTION_CHARS_MAX {
            Err(InvalidDescription::TooLong)
        } else {
            Ok(Self(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(names: &[&str]) -> Result<Vec<EventType>, InvalidEvents> {
        parse_events(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn events_are_one_to_fifty_different_types_in_the_partners_order() {
        let kept = parse(&["b.c", "a.b"]).unwrap();
        assert_eq!(
            kept.iter().map(EventType::as_str).collect::<Vec<_>>(),
            ["b.c", "a.b"]
        );
        assert_eq!(parse(&[]), Err(InvalidEvents::Empty));
        assert_eq!(parse(&["a b"]), Err(InvalidEvents::Malformed("a b".into())));
        assert_eq!(
            parse(&["a.b", "a.b"]),
            Err(InvalidEvents::Repeated("a.b".parse().unwrap()))
        );
        let many: Vec<_> = (0..51).map(|i| format!("a.{i}")).collect();
        assert_eq!(parse_events(many), Err(InvalidEvents::TooMany));
    }

    #[test]
    fn a_description_is_counted_in_characters() {
        assert!(Description::try_from("é".repeat(255)).is_ok());
        assert_eq!(
            Description::try_from("é".repeat(256)),
            Err(InvalidDescription::TooLong)
        );
        assert_eq!(
            Description::try_from("a\0".to_owned()),
            Err(InvalidDescription::Nul)
        );
    }
}
