//! `GET /partners/webhooks/events`: the catalogue, as the public page prints it.

use actix_web::http::StatusCode;
use domain::event::EventType;
use serde::Serialize;
use serde_json::value::RawValue;
use store::event_type::CatalogueEntry;

use crate::answer::{Answer, Data};
use crate::error::ApiError;
use crate::request::Call;

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a EventType,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_example: Option<&'a RawValue>,
}

impl<'a> From<&'a CatalogueEntry> for Entry<'a> {
    fn from(entry: &'a CatalogueEntry) -> Self {
        Self {
            name: &entry.name,
            description: &entry.description,
            payload_example: entry.payload_example.as_deref(),
        }
    }
}

/// # Errors
/// Those of the store.
pub async fn list(call: &Call) -> Result<Answer, ApiError> {
    let mut conn = call.gateway.store.get().await?;
    let catalogue = store::event_type::list(&mut conn).await?;
    let data: Vec<_> = catalogue.iter().map(Entry::from).collect();
    Ok(Answer::json(StatusCode::OK, &Data { data }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_keeps_its_order_and_is_left_out_where_there_is_none() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let mut entry = CatalogueEntry {
            name: "listing.created".parse().unwrap(),
            description: "Triggered".to_owned(),
            payload_example: Some(raw(r#"{"z":1.0,"a":2}"#)),
            schema: raw("{}"),
        };
        assert_eq!(
            serde_json::to_string(&Entry::from(&entry)).unwrap(),
            r#"{"name":"listing.created","description":"Triggered","payload_example":{"z":1.0,"a":2}}"#
        );
        entry.payload_example = None;
        assert_eq!(
            serde_json::to_string(&Entry::from(&entry)).unwrap(),
            r#"{"name":"listing.created","description":"Triggered"}"#
        );
    }
}
