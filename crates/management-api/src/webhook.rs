//! A webhook as its partner sees it, and what can be done with it: one file a verb.

pub mod create;
pub mod delete;
mod input;
pub mod list;
pub mod show;
pub mod test;
pub mod update;

use actix_web::http::StatusCode;
use chrono::{DateTime, SecondsFormat, Utc};
use domain::event::EventType;
use domain::id::WebhookId;
use serde::{Serialize, Serializer};
use store::webhook::Webhook;

use crate::answer::{Answer, Data};
use crate::error::ApiError;

/// Someone else's webhook and one that does not exist get the same answer.
fn unknown() -> ApiError {
    ApiError::NotFound("There is no such webhook.")
}

/// A positive whole number in its usual spelling, from a path.
fn id_of_path(text: &str) -> Result<WebhookId, ApiError> {
    let canonical = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(id) if canonical => Ok(WebhookId(id)),
        _ => Err(unknown()),
    }
}

/// `{"type": "webhook", "id": …, "attributes": …}`
#[derive(Serialize)]
struct Resource<A> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: WebhookId,
    attributes: A,
}

impl<A> Resource<A> {
    fn new(id: WebhookId, attributes: A) -> Self {
        Self {
            kind: "webhook",
            id,
            attributes,
        }
    }
}

/// What the public page prints for a webhook, in its order.
#[derive(Serialize)]
struct Attributes<'a> {
    url: &'a str,
    events: &'a [EventType],
    description: Option<&'a str>,
    active: bool,
    #[serde(serialize_with = "whole_seconds_or_null")]
    last_triggered_at: Option<DateTime<Utc>>,
    last_response_code: Option<i32>,
    failure_count: i32,
    #[serde(serialize_with = "whole_seconds")]
    created_at: DateTime<Utc>,
}

/// The same and what the page has no place for.
#[derive(Serialize)]
struct FullAttributes<'a> {
    #[serde(flatten)]
    public: Attributes<'a>,
    disabled_reason: Option<&'static str>,
    #[serde(serialize_with = "whole_seconds_or_null")]
    disabled_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "whole_seconds")]
    updated_at: DateTime<Utc>,
}

impl<'a> From<&'a Webhook> for Attributes<'a> {
    fn from(webhook: &'a Webhook) -> Self {
        Self {
            url: &webhook.url,
            events: &webhook.events,
            description: webhook.description.as_deref(),
            active: webhook.active,
            last_triggered_at: webhook.last_triggered_at,
            last_response_code: webhook.last_response_code,
            failure_count: webhook.failure_count,
            created_at: webhook.created_at,
        }
    }
}

/// 200 with one webhook in full.
fn full(webhook: &Webhook) -> Answer {
    let attributes = FullAttributes {
        public: webhook.into(),
        disabled_reason: webhook.disabled_reason.map(|reason| reason.as_str()),
        disabled_at: webhook.disabled_at,
        updated_at: webhook.updated_at,
    };
    let data = Resource::new(webhook.id, attributes);
    Answer::json(StatusCode::OK, &Data { data })
}

fn whole_seconds<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn whole_seconds_or_null<S: Serializer>(
    at: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => whole_seconds(at, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use domain::id::PartnerId;
    use domain::webhook::DisabledReason;

    use super::*;

    pub(super) fn webhook() -> Webhook {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        Webhook {
            id: WebhookId(1),
            partner_id: PartnerId(9),
            url: "https://your-app.com/webhooks/vellocity".to_owned(),
            events: vec![
                "listing.updated".parse().unwrap(),
                "cosell.created".parse().unwrap(),
            ],
            description: Some("Production webhook".to_owned()),
            active: true,
            version: 4,
            disabled_reason: None,
            disabled_at: None,
            created_at: at("2026-01-15T10:00:00.999Z"),
            updated_at: at("2026-01-16T10:00:00Z"),
            last_triggered_at: Some(at("2026-02-25T14:30:00.123456Z")),
            last_response_code: Some(200),
            failure_count: 0,
        }
    }

    #[test]
    fn a_webhook_is_what_the_page_prints_in_its_order() {
        let webhook = webhook();
        let resource = Resource::new(webhook.id, Attributes::from(&webhook));
        assert_eq!(
            serde_json::to_string(&resource).unwrap(),
            concat!(
                r#"{"type":"webhook","id":1,"attributes":{"url":"https://your-app.com/webhooks/vellocity","#,
                r#""events":["listing.updated","cosell.created"],"description":"Production webhook","#,
                r#""active":true,"last_triggered_at":"2026-02-25T14:30:00Z","last_response_code":200,"#,
                r#""failure_count":0,"created_at":"2026-01-15T10:00:00Z"}}"#
            )
        );
    }

    #[test]
    fn one_webhook_alone_tells_more() {
        let mut webhook = webhook();
        webhook.description = None;
        webhook.last_triggered_at = None;
        webhook.last_response_code = None;
        webhook.active = false;
        webhook.disabled_reason = Some(DisabledReason::Gone);
        webhook.disabled_at = Some(webhook.updated_at);
        let body = full(&webhook);
        assert_eq!(
            std::str::from_utf8(body.body().unwrap()).unwrap(),
            concat!(
                r#"{"data":{"type":"webhook","id":1,"attributes":{"url":"https://your-app.com/webhooks/vellocity","#,
                r#""events":["listing.updated","cosell.created"],"description":null,"active":false,"#,
                r#""last_triggered_at":null,"last_response_code":null,"failure_count":0,"#,
                r#""created_at":"2026-01-15T10:00:00Z","disabled_reason":"gone","#,
                r#""disabled_at":"2026-01-16T10:00:00Z","updated_at":"2026-01-16T10:00:00Z"}}}"#
            )
        );
    }

    #[test]
    fn an_id_in_a_path_is_a_positive_number_or_nothing() {
        assert_eq!(id_of_path("12").unwrap(), WebhookId(12));
        for bad in [
            "",
            "0",
            "-1",
            "+1",
            "01",
            "1.0",
            "1e3",
            "x",
            "9223372036854775808",
            "１",
        ] {
            assert!(id_of_path(bad).is_err(), "{bad}");
        }
    }
}
