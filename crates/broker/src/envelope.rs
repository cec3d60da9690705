//! From a message to an event. Checks everything that the message alone can show; what it takes Postgres to know
//! (whether type and partner exist, whether the data fits the schema) is the dispatcher's to ask.
//!
//! Headers decide first, then the content type: see [`codec`].

mod json;

use bytes::Bytes;
use domain::event::{Event, EventType};
use domain::id::{EventId, PartnerId};
use domain::limits::EVENT_BYTES_MAX;
use domain::rejection::{Rejection, RejectionCode};

use crate::delivery::{Delivery, Headers};
use crate::topology::PARTNER_HEADER;

/// What a codec sees of a message.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    pub routing_key: &'a str,
    pub content_type: Option<&'a str>,
    pub headers: Headers<'a>,
    pub body: &'a Bytes,
}

impl<'a> From<&'a Delivery> for Parts<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        Self {
            routing_key: &delivery.routing_key,
            content_type: delivery.properties.content_type(),
            headers: delivery.headers(),
            body: &delivery.body,
        }
    }
}

/// What could be read of an event that can't be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peek {
    pub id: Option<EventId>,
    pub event_type: Option<EventType>,
    pub partner_id: Option<PartnerId>,
}

/// Decodes and checks an event.
///
/// # Errors
/// With a sentence that tells the publisher what to mend. It never holds the event's data.
pub fn decode<'a>(message: impl Into<Parts<'a>>) -> Result<Event, Rejection> {
    let parts = message.into();
    let size_bytes = parts.body.len();
    if size_bytes > EVENT_BYTES_MAX {
        let reason =
            format!("The message has {size_bytes} bytes; an event has {EVENT_BYTES_MAX} at most.");
        return Err(Rejection::new(RejectionCode::TooLarge, reason));
    }
    let event = match codec(&parts)? {
        Codec::Json => json::decode(parts.body)?,
    };
    agrees_with_routing_key(&event, parts.routing_key)?;
    agrees_with_header(&event, parts.headers)?;
    Ok(event)
}

/// Reads what can be read, for a row or a log line about a message that was rejected.
#[must_use]
pub fn peek<'a>(message: impl Into<Parts<'a>>) -> Peek {
    let parts = message.into();
    if parts.body.len() > EVENT_BYTES_MAX {
        return Peek::default();
    }
    match codec(&parts) {
        Ok(Codec::Json) => json::peek(parts.body),
        Err(_) => Peek::default(),
    }
}

/// The forms in which events come.
enum Codec {
    Json,
}

/// Prefixes of `CloudEvents` attributes among the headers, as the bindings and their forerunners write them.
const CLOUD_EVENTS_PREFIXES: [&str; 3] = ["cloudEvents_", "cloudEvents:", "ce-"];

/// Chooses by headers first, since in binary mode the content type is that of the data alone.
fn codec(parts: &Parts<'_>) -> Result<Codec, Rejection> {
    let is_binary_mode = CLOUD_EVENTS_PREFIXES
        .iter()
        .any(|prefix| parts.headers.contains(&format!("{prefix}specversion")));
    if is_binary_mode {
        return Err(unsupported("CloudEvents in binary mode are"));
    }
    let Some(content_type) = parts.content_type else {
        return Ok(Codec::Json);
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.is_empty() || essence.eq_ignore_ascii_case("application/json") {
        Ok(Codec::Json)
    } else {
        Err(unsupported("This content type is"))
    }
}

fn unsupported(what: &str) -> Rejection {
    let reason = format!(
        "{what} not accepted: publish events with the content type application/json, or none."
    );
    Rejection::new(RejectionCode::UnsupportedContentType, reason)
}

/// Topic permissions are given by routing key, so that a type of its own choice would go around them.
fn agrees_with_routing_key(event: &Event, routing_key: &str) -> Result<(), Rejection> {
    if event.event_type.as_str() == routing_key {
        return Ok(());
    }
    let reason = format!(
        "The event's type is {}, but it was published with another routing key; both must be the same.",
        event.event_type
    );
    Err(Rejection::new(RejectionCode::TypeMismatch, reason))
}

/// The header may be missing, in text or in any of AMQP's integer types, since clients choose those by themselves.
fn agrees_with_header(event: &Event, headers: Headers<'_>) -> Result<(), Rejection> {
    if !headers.contains(PARTNER_HEADER) {
        return Ok(());
    }
    let of_text = |text: &str| text.parse().ok();
    let number = headers
        .integer(PARTNER_HEADER)
        .or_else(|| headers.text(PARTNER_HEADER).and_then(of_text));
    if number == Some(event.partner_id.0) {
        return Ok(());
    }
    let reason = format!(
        "The event's partner_id is {}, but the header {PARTNER_HEADER} says otherwise; it must hold the same number as a string.",
        event.partner_id
    );
    Err(Rejection::new(RejectionCode::PartnerMismatch, reason))
}

#[cfg(test)]
mod tests;
