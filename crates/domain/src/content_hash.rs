//! A hash by which two copies of an event are told apart from two different events under one id.
//!
//! Same content means the same type and the same `data`, compared with sorted keys and with numbers as they are
//! spelled: `1.0` and `1` differ, the order of members and white space do not count.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::event::EventType;
use crate::limits::EVENT_DATA_DEPTH_MAX;

/// SHA-256 over type and canonical data.
pub type ContentHash = [u8; 32];

/// Data that can't be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incomparable {
    #[error("data is nested more than {EVENT_DATA_DEPTH_MAX} levels deep")]
    TooDeep,
    #[error("data has a member whose name is no Unicode text, such as half of a surrogate pair")]
    Name,
}

/// The hash of an event's content.
///
/// # Errors
/// When the data can't be compared.
pub fn content_hash(event_type: &EventType, data: &RawValue) -> Result<ContentHash, Incomparable> {
    let mut hash = Sha256::new();
    hash.update(event_type.as_str().as_bytes());
    hash.update([0]);
    feed(&mut hash, data.get(), EVENT_DATA_DEPTH_MAX)?;
    Ok(hash.finalize().into())
}

/// Feeds one valid JSON value. `levels` is how many levels it may still have.
fn feed(hash: &mut Sha256, json: &str, levels: usize) -> Result<(), Incomparable> {
    match json.as_bytes().first() {
        Some(b'{') => feed_object(
            hash,
            json,
            levels.checked_sub(1).ok_or(Incomparable::TooDeep)?,
        ),
        Some(b'[') => feed_array(
            hash,
            json,
            levels.checked_sub(1).ok_or(Incomparable::TooDeep)?,
        ),
        Some(b'"') => {
            feed_string(hash, json);
            Ok(())
        }
        _ => {
            hash.update(json.as_bytes());
            Ok(())
        }
    }
}

fn feed_object(hash: &mut Sha256, json: &str, levels: usize) -> Result<(), Incomparable> {
    let members: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(json).map_err(|_| Incomparable::Name)?;
    hash.update(b"{");
    for (name, value) in members {
        feed_text(hash, &name);
        feed(hash, value.get(), levels)?;
    }
    hash.update(b"}");
    Ok(())
}

fn feed_array(hash: &mut Sha256, json: &str, levels: usize) -> Result<(), Incomparable> {
    let items: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
    hash.update(b"[");
    for item in items {
        feed(hash, item.get(), levels)?;
        hash.update(b",");
    }
    hash.update(b"]");
    Ok(())
}

/// Strings count by their value where they have one; a lone surrogate has none and counts as it is spelled.
fn feed_string(hash: &mut Sha256, json: &str) {
    match serde_json::from_str::<Cow<'_, str>>(json) {
        Ok(text) => feed_text(hash, &text),
        Err(_) => hash.update(json.as_bytes()),
    }
}

/// The length stands in front, so that no text can pass for the end of another.
fn feed_text(hash: &mut Sha256, text: &str) {
    hash.update(b"\"");
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(data: &str) -> ContentHash {
        let data: Box<RawValue> = serde_json::from_str(data).unwrap();
        content_hash(&"listing.updated".parse().unwrap(), &data).unwrap()
    }

    #[test]
    fn order_of_members_white_space_and_escapes_do_not_count() {
        assert_eq!(
            hash(r#"{"a":1,"b":{"c":"é","d":[1,2]}}"#),
            hash(r#" { "b":{"d":[1, 2],"c":"\u00e9"}, "a" : 1 } "#)
        );
    }

    #[test]
    fn spelling_of_numbers_order_of_items_and_values_count() {
        let different = [
            r#"{"a":1}"#,
            r#"{"a":1.0}"#,
            r#"{"a":"1"}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
            r#"{"a":[12]}"#,
            r#"{"a":null}"#,
            "{}",
        ];
        for (i, left) in different.iter().enumerate() {
            for right in &different[i + 1..] {
                assert_ne!(hash(left), hash(right), "{left} {right}");
            }
        }
    }

    #[test]
    fn another_type_is_other_content() {
        let data: Box<RawValue> = serde_json::from_str("{}").unwrap();
        let of = |t: &str| content_hash(&t.parse().unwrap(), &data).unwrap();
        assert_ne!(of("listing.updated"), of("listing.created"));
    }

    #[test]
    fn a_name_that_is_no_text_is_refused_and_not_left_out() {
        let data: Box<RawValue> = serde_json::from_str(r#"{"\ud800":1}"#).unwrap();
        let result = content_hash(&"a.b".parse().unwrap(), &data);
        assert_eq!(result, Err(Incomparable::Name));
    }

    #[test]
    fn data_nested_too_deep_is_refused_and_not_followed() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let result = |levels: usize| {
            let data: Box<RawValue> = serde_json::from_str(&nested(levels)).unwrap();
            content_hash(&"a.b".parse().unwrap(), &data).map(|_| ())
        };
        assert_eq!(result(EVENT_DATA_DEPTH_MAX), Ok(()));
        assert_eq!(result(EVENT_DATA_DEPTH_MAX + 1), Err(Incomparable::TooDeep));
        assert_eq!(result(100_000), Err(Incomparable::TooDeep));
    }
}
