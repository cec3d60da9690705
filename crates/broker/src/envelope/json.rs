//! Our own JSON form: `{"id", "type", "partner_id", "timestamp", "data"}`. Unknown members are ignored.

use bytes::Bytes;
use chrono::{DateTime, Datelike as _, Utc};
use domain::content_hash::content_hash;
use domain::event::{Event, EventType};
use domain::id::{EventId, PartnerId};
use domain::rejection::{Rejection, RejectionCode};
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::Peek;

/// The members as they stand in the text, so that each can be judged by itself.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Members<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    event_type: Option<&'a RawValue>,
    #[serde(borrow)]
    partner_id: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

pub(super) fn decode(body: &Bytes) -> Result<Event, Rejection> {
    let members = members(body)?;
    let id = id(members.id)?;
    let event_type = event_type(members.event_type)?;
    let partner_id = partner_id(members.partner_id)?;
    let timestamp = timestamp(members.timestamp)?;
    let data = data(members.data)?;
    let content_hash = content_hash(&event_type, data)
        .map_err(|error| reject(RejectionCode::InvalidData, format!("The event's {error}.")))?;
    Ok(Event {
        id,
        event_type,
        partner_id,
        timestamp,
        data: body.slice_ref(data.get().as_bytes()),
        content_hash,
    })
}

pub(super) fn peek(body: &[u8]) -> Peek {
    match members(body) {
        Ok(members) => Peek {
            id: id(members.id).ok(),
            event_type: event_type(members.event_type).ok(),
            partner_id: partner_id(members.partner_id).ok(),
        },
        Err(_) => Peek::default(),
    }
}

fn members(body: &[u8]) -> Result<Members<'_>, Rejection> {
    let text = std::str::from_utf8(body).map_err(|_| {
        let reason = "The message's body is not valid JSON: it is not UTF-8.";
        reject(RejectionCode::InvalidJson, reason)
    })?;
    // A list would pass for the members in order.
    let is_object = text.trim_ascii_start().starts_with('{');
    match serde_json::from_str(text) {
        Ok(members) if is_object => Ok(members),
        Err(error) if error.classify() != Category::Data => {
            let reason = format!("The message's body is not valid JSON: {error}.");
            Err(reject(RejectionCode::InvalidJson, reason))
        }
        Err(_) if is_object => {
            let reason = "One of the event's members id, type, partner_id, timestamp and data stands there twice.";
            Err(reject(RejectionCode::InvalidEnvelope, reason))
        }
        Ok(_) | Err(_) => {
            let reason = "The message's body is not a JSON object with id, type, partner_id, timestamp and data.";
            Err(reject(RejectionCode::InvalidEnvelope, reason))
        }
    }
}

fn id(member: Option<&RawValue>) -> Result<EventId, Rejection> {
    let why = match string(member) {
        Err(why) => why.to_owned(),
        Ok(text) => match EventId::try_from(text) {
            Ok(id) => return Ok(id),
            Err(error) => format!("is not one: {error}"),
        },
    };
    let reason = format!("The event's id {why}.");
    Err(reject(RejectionCode::InvalidId, reason))
}

fn event_type(member: Option<&RawValue>) -> Result<EventType, Rejection> {
    let why = match string(member) {
        Err(why) => why.to_owned(),
        Ok(text) => match EventType::try_from(text) {
            Ok(event_type) => return Ok(event_type),
            Err(error) => format!("is not one: {error}"),
        },
    };
    let reason = format!("The event's type {why}.");
    Err(reject(RejectionCode::InvalidEnvelope, reason))
}

/// A number and not a string of digits: the contract says so, and one spelling is enough.
fn partner_id(member: Option<&RawValue>) -> Result<PartnerId, Rejection> {
    let why = match present(member) {
        Err(why) => why,
        Ok(value) => match value.get().parse() {
            Ok(number) if number > 0 => return Ok(PartnerId(number)),
            _ => "must be a whole number from 1 up, without quotes",
        },
    };
    let reason = format!("The event's partner_id {why}.");
    Err(reject(RejectionCode::InvalidEnvelope, reason))
}

fn timestamp(member: Option<&RawValue>) -> Result<DateTime<Utc>, Rejection> {
    let why = match string(member) {
        Err(why) => why,
        Ok(text) => match utc_seconds(&text) {
            Some(time) => return Ok(time),
            None => "must be a time as in RFC 3339, such as 2026-02-26T14:20:00Z",
        },
    };
    let reason = format!("The event's timestamp {why}.");
    Err(reject(RejectionCode::InvalidTimestamp, reason))
}

/// UTC, fractions cut. A time whose offset carries it out of the four-digit years can't be written down again.
fn utc_seconds(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    let time = DateTime::from_timestamp(time.timestamp(), 0)?;
    (0..=9999).contains(&time.year()).then_some(time)
}

fn data(member: Option<&RawValue>) -> Result<&RawValue, Rejection> {
    let why = match present(member) {
        Err(why) => why,
        Ok(value) if value.get().starts_with('{') => return Ok(value),
        Ok(_) => "must be a JSON object",
    };
    let reason = format!("The event's data {why}.");
    Err(reject(RejectionCode::InvalidData, reason))
}

fn present(member: Option<&RawValue>) -> Result<&RawValue, &'static str> {
    member.ok_or("is missing")
}

fn string(member: Option<&RawValue>) -> Result<String, &'static str> {
    let value = present(member)?;
    serde_json::from_str(value.get()).map_err(|_| "must be a string")
}

fn reject(code: RejectionCode, reason: impl Into<String>) -> Rejection {
    Rejection::new(code, reason)
}
