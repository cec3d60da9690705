//! A domain event, as a product team published it and as a partner receives it.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use crate::content_hash::ContentHash;
use crate::id::{EventId, PartnerId};
use crate::limits::EVENT_TYPE_CHARS_MAX;

/// The name of an event type, such as `listing.updated`. Whether it is in the catalogue is Postgres' to say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventType(String);

impl EventType {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A string that can't name an event type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an event type has 1 to {EVENT_TYPE_CHARS_MAX} characters of A-Z, a-z, 0-9, _, - and single dots between them"
)]
pub struct InvalidEventType;

impl TryFrom<String> for EventType {
    type Error = InvalidEventType;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let word = |word: &str| !word.is_empty() && word.bytes().all(plain);
        if text.len() <= EVENT_TYPE_CHARS_MAX && text.split('.').all(word) {
            Ok(Self(text))
        } else {
            Err(InvalidEventType)
        }
    }
}

impl FromStr for EventType {
    type Err = InvalidEventType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl From<EventType> for String {
    fn from(event_type: EventType) -> Self {
        event_type.0
    }
}

/// A decoded event. Made by the broker's codecs, which check everything that the message alone can show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    pub event_type: EventType,
    pub partner_id: PartnerId,
    /// When it happened, by the publisher: UTC, whole seconds.
    pub timestamp: DateTime<Utc>,
    /// A JSON object in the very bytes that were published.
    pub data: Bytes,
    pub content_hash: ContentHash,
}

impl Event {
    /// The body that every webhook gets: the four members in the page's order, `data` byte for byte.
    #[must_use]
    pub fn render(&self) -> Bytes {
        render(&self.id, &self.event_type, self.timestamp, &self.data)
    }
}

/// The body of a delivery from its parts. Ids and types need no escaping: their alphabets hold no quote.
#[must_use]
pub fn render(
    id: &EventId,
    event_type: &EventType,
    timestamp: DateTime<Utc>,
    data: &[u8],
) -> Bytes {
    let timestamp = format_timestamp(timestamp);
    let mut body = Vec::with_capacity(data.len() + 192);
    for part in [
        br#"{"id":""#.as_slice(),
        id.as_str().as_bytes(),
        br#"","type":""#,
        event_type.as_str().as_bytes(),
        br#"","timestamp":""#,
        timestamp.as_bytes(),
        br#"","data":"#,
        data,
        b"}",
    ] {
        body.extend_from_slice(part);
    }
    body.into()
}

/// RFC 3339, UTC with `Z`, whole seconds: the form of every time on the public API but those of attempts.
#[must_use]
pub fn format_timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;

    #[test]
    fn the_body_has_four_members_in_order_and_data_as_published() {
        let data = br#"{"b":1.0,"a":12345678901234567890,"s":"\u00e9"}"#;
        let body = render(
            &"evt_abc123".parse().unwrap(),
            &"listing.updated".parse().unwrap(),
            Utc.with_ymd_and_hms(2026, 2, 26, 14, 20, 0).unwrap(),
            data,
        );
        assert_eq!(
            body.as_ref(),
            br#"{"id":"evt_abc123","type":"listing.updated","timestamp":"2026-02-26T14:20:00Z","data":{"b":1.0,"a":12345678901234567890,"s":"\u00e9"}}"#
        );
    }

    #[test]
    fn event_types_are_dotted_words() {
        for good in ["listing.updated", "a", "a-b.c_d.E9"] {
            assert!(good.parse::<EventType>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a#",
            "*",
            &"x".repeat(129),
        ] {
            assert!(bad.parse::<EventType>().is_err(), "{bad}");
        }
    }
}
