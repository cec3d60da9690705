//! Typed ids. The invalid can't be built, and one kind can't be passed for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::EVENT_ID_CHARS_MAX;

/// Crockford's base 32 in lower case: its characters sort as their values do.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 128 bits in groups of five.
const ENCODED_CHARS: usize = 26;

macro_rules! serial_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

serial_id!(
    /// A partner, as numbered by Postgres.
    PartnerId
);
serial_id!(
    /// A webhook, as numbered by Postgres and shown to its partner.
    WebhookId
);

/// An event's internal key: a UUIDv7 by the database's clock, whose day is the event's partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventKey(pub Uuid);

/// A delivery's id: a UUIDv7, whose public form `dlv_…` sorts by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeliveryId(pub Uuid);

impl DeliveryId {
    /// A new id in the same millisecond, and so the same partition, as the event that it delivers.
    #[must_use]
    pub fn for_event(event: EventKey, random: u128) -> Self {
        const TIME_AND_VERSION: u128 = !0 << 76;
        const VARIANT: u128 = 0b11 << 62;
        let key = event.0.as_u128();
        let fixed = TIME_AND_VERSION | VARIANT;
        Self(Uuid::from_u128((key & fixed) | (random & !fixed)))
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dlv_{}", encode(self.0.as_u128()))
    }
}

/// A string that should have been a delivery id, but is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a delivery id is dlv_ and 26 characters of 0-9 and a-z without i, l, o and u")]
pub struct InvalidDeliveryId;

impl FromStr for DeliveryId {
    type Err = InvalidDeliveryId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let encoded = text.strip_prefix("dlv_").ok_or(InvalidDeliveryId)?;
        let value = decode(encoded).ok_or(InvalidDeliveryId)?;
        Ok(Self(Uuid::from_u128(value)))
    }
}

impl TryFrom<String> for DeliveryId {
    type Error = InvalidDeliveryId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DeliveryId> for String {
    fn from(id: DeliveryId) -> Self {
        id.to_string()
    }
}

/// The publisher's id of an event, unique for its partner: 1 to 64 characters of `A-Z a-z 0-9 _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventId(String);

impl EventId {
    /// `evt_` and 26 characters that sort by time, from a UUIDv7.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(format!("evt_{}", encode(uuid.as_u128())))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A string that should have been an event id, but is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event id has 1 to 64 characters of A-Z, a-z, 0-9, _ and -")]
pub struct InvalidEventId;

impl TryFrom<String> for EventId {
    type Error = InvalidEventId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = (1..=EVENT_ID_CHARS_MAX).contains(&text.len());
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if fits && text.bytes().all(plain) {
            Ok(Self(text))
        } else {
            Err(InvalidEventId)
        }
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.0
    }
}

fn encode(value: u128) -> String {
    (0..ENCODED_CHARS)
        .rev()
        .filter_map(|group| ALPHABET.get(((value >> (group * 5)) & 31) as usize))
        .map(|&b| char::from(b))
        .collect()
}

fn decode(text: &str) -> Option<u128> {
    if text.len() != ENCODED_CHARS {
        return None;
    }
    text.bytes().enumerate().try_fold(0u128, |value, (i, b)| {
        let digit = ALPHABET.iter().position(|&a| a == b)? as u128;
        // The first character carries the top three bits only.
        (i > 0 || digit < 8).then_some((value << 5) | digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_id_survives_its_public_form() {
        for value in [0, 1, u128::MAX, 0x0193_5b1c_7d2e_7abc_8def_0123_4567_89ab] {
            let id = DeliveryId(Uuid::from_u128(value));
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.to_string().len(), 30);
        }
    }

    #[test]
    fn public_forms_sort_as_their_ids_do() {
        let ids: Vec<_> = [3u128, 1 << 100, 7 << 60, u128::MAX]
            .map(|v| DeliveryId(Uuid::from_u128(v)))
            .into();
        let mut by_id = ids.clone();
        by_id.sort();
        let mut by_text = ids;
        by_text.sort_by_key(ToString::to_string);
        assert_eq!(by_id, by_text);
    }

    #[test]
    fn what_is_no_delivery_id_is_refused() {
        for text in [
            "",
            "dlv_",
            "evt_00000000000000000000000000",
            "dlv_z0000000000000000000000000",
            "dlv_0000000000000000000000000I",
        ] {
            assert_eq!(text.parse::<DeliveryId>(), Err(InvalidDeliveryId), "{text}");
        }
    }

    #[test]
    fn a_delivery_lies_in_the_millisecond_of_its_event_and_is_a_uuid_v7() {
        let event = EventKey(Uuid::from_u128(0x0193_5b1c_7d2e_7abc_8def_0123_4567_89ab));
        let id = DeliveryId::for_event(event, u128::MAX).0;
        assert_eq!(id.as_u128() >> 80, event.0.as_u128() >> 80);
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        assert_ne!(id, event.0);
    }

    #[test]
    fn event_ids_are_short_and_plain() {
        for good in ["a", "evt_01J", &"x".repeat(64), "A-b_9"] {
            assert!(good.parse::<EventId>().is_ok(), "{good}");
        }
        for bad in ["", &"x".repeat(65), "a b", "a.b", "é", "a\0"] {
            assert!(bad.parse::<EventId>().is_err(), "{bad}");
        }
    }
}
