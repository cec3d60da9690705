//! Publishes an event as a product team does: persistent, mandatory, confirmed.
//!
//! The data goes out byte for byte inside an envelope that is written around it. Nothing is checked, so that people
//! can see what the dispatcher makes of a mistake; [`wait`] tells them.

mod envelope;
mod wait;

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use broker::topology::PARTNER_HEADER;
use broker::trace::Trace;
use broker::{Exchange, Message};
use chrono::Utc;
use domain::id::EventId;
use serde_json::json;
use uuid::Uuid;

use crate::answer::Answer;
use crate::arguments::{Format, Publish};
use crate::environment::Environment;
use crate::error::Error;

use wait::Watch;

/// How product teams recognise what was published by hand.
const APP_ID: &str = "hookctl";
/// Shards play no part here.
const SHARDS: u16 = 1;

/// An event on its way out, as unchecked as it was written.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub id: String,
    pub event_type: String,
    pub partner_id: i64,
    pub data: Vec<u8>,
    pub trace: Trace,
}

pub async fn run(command: Publish, environment: &Environment) -> Result<Answer, Error> {
    if command.format != Format::Json {
        return Err(Error::Usage(
            "only --format json works so far; protobuf and cloudevents come with their codecs"
                .to_owned(),
        ));
    }
    let event = Outgoing {
        id: command
            .id
            .unwrap_or_else(|| EventId::from_uuid(Uuid::now_v7()).to_string()),
        event_type: command.event_type,
        partner_id: command.partner,
        data: read(&command.data)?,
        trace: trace(command.traceparent.as_deref())?,
    };
    let watch = match command.wait {
        Some(limit) => Some((Watch::begin(environment.store()?, &event).await?, limit)),
        None => None,
    };
    let rabbitmq = environment.rabbitmq(SHARDS).await?;
    let confirmed = rabbitmq.publisher().publish(message(&event)).await;
    rabbitmq.close().await;
    confirmed?;
    match watch {
        Some((watch, limit)) => Ok(watch.until(limit).await?.answer(&event)),
        None => Ok(Answer::new(
            json!({"id": event.id, "confirmed": true}),
            format!("{} confirmed\n", event.id),
        )),
    }
}

fn message(event: &Outgoing) -> Message {
    let body = envelope::write(
        &event.id,
        &event.event_type,
        event.partner_id,
        Utc::now(),
        &event.data,
    );
    Message::new(Exchange::Events, event.event_type.as_str(), body)
        .content_type("application/json")
        .app_id(APP_ID)
        .header(PARTNER_HEADER, event.partner_id.to_string())
        .trace(&event.trace)
        .mandatory()
}

/// The data itself, or with an @ in front the file that holds it; `-` is stdin.
fn read(argument: &OsStr) -> Result<Vec<u8>, Error> {
    let Some(path) = argument.as_bytes().strip_prefix(b"@") else {
        return Ok(argument.as_bytes().to_vec());
    };
    let path = OsStr::from_bytes(path);
    let unreadable =
        |error: std::io::Error| Error::Failed(format!("{} can't be read: {error}", path.display()));
    if path == "-" {
        let mut data = Vec::new();
        std::io::stdin()
            .read_to_end(&mut data)
            .map_err(unreadable)?;
        return Ok(data);
    }
    std::fs::read(path).map_err(unreadable)
}

/// The trace that was asked for, or a new one, which is kept: whoever publishes by hand wants to look at it. It is also
/// how a rejected event is found again whose id nobody could read.
fn trace(given: Option<&str>) -> Result<Trace, Error> {
    let new = || {
        let (trace, span) = (rand::random::<u128>().max(1), rand::random::<u64>().max(1));
        format!("00-{trace:032x}-{span:016x}-01")
    };
    let traceparent = given.map_or_else(new, str::to_owned);
    let trace = Trace::new(Some(&traceparent), None);
    if trace.traceparent().is_none() {
        return Err(Error::Usage(format!(
            "{traceparent:?} is no W3C traceparent such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        )));
    }
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_taken_as_it_stands() {
        for data in [r#"{"b":1.0}"#, "", " not json", "-5"] {
            assert_eq!(read(OsStr::new(data)).unwrap(), data.as_bytes());
        }
        assert_eq!(read(OsStr::from_bytes(b"\xff\x00")).unwrap(), b"\xff\x00");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read(OsStr::new("@/does/not/exist.json")).unwrap_err();
        assert!(
            error.to_string().contains("/does/not/exist.json"),
            "{error}"
        );
    }

    #[test]
    fn a_trace_is_made_or_kept_and_a_malformed_one_refused() {
        let made = trace(None).unwrap();
        assert!(made.traceparent().unwrap().ends_with("-01"));
        assert_ne!(trace(None).unwrap(), made);
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        assert_eq!(trace(Some(given)).unwrap().traceparent(), Some(given));
        assert!(matches!(trace(Some("00-1-2-3")), Err(Error::Usage(_))));
    }
}
