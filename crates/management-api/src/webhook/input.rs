//! What a partner writes of a webhook, checked: the fields of a create and of an update, and what only the name servers
//! and the catalogue know. Every fault of a body is told at once; nothing is stored before all of it is right.

use domain::event::EventType;
use domain::webhook::{Description, parse_events};
use domain::webhook_url::{InvalidWebhookUrl, UrlHost, WebhookUrl};
use serde_json::Value;
use store::event_type;

use crate::error::{ApiError, Faults};
use crate::gateway::Gateway;
use crate::request::fields::Fields;

const URL: &str = "url";
const EVENTS: &str = "events";
const DESCRIPTION: &str = "description";
const ACTIVE: &str = "active";

/// A webhook to be made.
#[derive(Debug)]
pub struct Create {
    pub url: WebhookUrl,
    pub events: Vec<EventType>,
    pub description: Option<Description>,
    pub active: bool,
}

/// # Errors
/// [`ApiError::Validation`] with all that is wrong, or [`ApiError::Unavailable`] without the catalogue.
pub async fn create(gateway: &Gateway, body: &[u8]) -> Result<Create, ApiError> {
    let mut fields = Fields::parse(body)?;
    let url = fields.require(URL);
    let url = url.and_then(|value| fields.noted(URL, parse_url(gateway, &value)));
    let events = fields.require(EVENTS);
    let events = events.and_then(|value| fields.noted(EVENTS, event_types(value)));
    let description = fields.take(DESCRIPTION);
    let description =
        description.and_then(|value| fields.noted(DESCRIPTION, description_of(value)));
    let active = fields.take(ACTIVE);
    let active = active.map_or(Some(true), |value| fields.noted(ACTIVE, truth(&value)));
    fields.refuse_others();
    let mut faults = fields.faults;
    check_elsewhere(gateway, url.as_ref(), events.as_deref(), &mut faults).await?;
    faults.none()?;
    match (url, events, active) {
        (Some(url), Some(events), Some(active)) => Ok(Create {
            url,
            events,
            description: description.flatten(),
            active,
        }),
        // Each of them that is missing has left a fault behind.
        _ => Err(ApiError::Validation(Faults::default())),
    }
}

/// A change of a webhook. A field that is absent stays; `null` only takes a description away.
///
/// # Errors
/// As [`create`].
pub async fn update(gateway: &Gateway, body: &[u8]) -> Result<store::webhook::Update, ApiError> {
    let mut fields = Fields::parse(body)?;
    let url = fields.take(URL);
    let url = url.and_then(|value| fields.noted(URL, parse_url(gateway, &value)));
    let events = fields.take(EVENTS);
    let events = events.and_then(|value| fields.noted(EVENTS, event_types(value)));
    let description = fields.take(DESCRIPTION);
    let description =
        description.and_then(|value| fields.noted(DESCRIPTION, description_of(value)));
    let active = fields.take(ACTIVE);
    let active = active.and_then(|value| fields.noted(ACTIVE, truth(&value)));
    fields.refuse_others();
    let mut faults = fields.faults;
    check_elsewhere(gateway, url.as_ref(), events.as_deref(), &mut faults).await?;
    faults.none()?;
    Ok(store::webhook::Update {
        url,
        events,
        description,
        active,
    })
}

fn parse_url(gateway: &Gateway, value: &Value) -> Result<WebhookUrl, String> {
    let text = value.as_str().ok_or("must be a string")?;
    WebhookUrl::parse(text, &gateway.policy).map_err(|error| error.to_string())
}

fn event_types(value: Value) -> Result<Vec<EventType>, String> {
    let must_be = "must be a list of strings";
    let Value::Array(items) = value else {
        return Err(must_be.to_owned());
    };
    let names = items.into_iter().map(|item| match item {
        Value::String(name) => Ok(name),
        _ => Err(must_be.to_owned()),
    });
    let names = names.collect::<Result<_, _>>()?;
    parse_events(names).map_err(|error| error.to_string())
}

fn description_of(value: Value) -> Result<Option<Description>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Description::try_from(text)
            .map(Some)
            .map_err(|error| error.to_string()),
        _ => Err("must be a string or null".to_owned()),
    }
}

fn truth(value: &Value) -> Result<bool, &'static str> {
    value.as_bool().ok_or("must be true or false")
}

/// Asks the name servers and the catalogue at the same time.
async fn check_elsewhere(
    gateway: &Gateway,
    url: Option<&WebhookUrl>,
    events: Option<&[EventType]>,
    faults: &mut Faults,
) -> Result<(), ApiError> {
    let (forbidden, unknown) =
        tokio::join!(leads_to_forbidden(gateway, url), unknown(gateway, events));
    if forbidden {
        faults.add(URL, InvalidWebhookUrl::ForbiddenAddress.to_string());
    }
    for event in unknown? {
        faults.add(EVENTS, format!("{event} is not a known event type"));
    }
    Ok(())
}

/// Whether any address of the host is one that nothing of ours may reach. A host without an address is accepted: it may
/// get one, and each connection checks again.
async fn leads_to_forbidden(gateway: &Gateway, url: Option<&WebhookUrl>) -> bool {
    let Some(UrlHost::Name(host)) = url.map(WebhookUrl::host) else {
        return false;
    };
    match gateway.resolver.lookup(&host).await {
        Ok(addresses) => addresses.iter().any(|it| !gateway.policy.permits(*it)),
        Err(error) => {
            tracing::info!(%error, "the host of a webhook does not resolve");
            false
        }
    }
}

async fn unknown(
    gateway: &Gateway,
    events: Option<&[EventType]>,
) -> Result<Vec<EventType>, ApiError> {
    let Some(events) = events else {
        return Ok(Vec::new());
    };
    let mut conn = gateway.store.get().await?;
    Ok(event_type::unknown(&mut conn, events).await?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_a_list_of_strings() {
        for (value, fault) in [
            (json!(null), "must be a list of strings"),
            (json!("a.b"), "must be a list of strings"),
            (json!({}), "must be a list of strings"),
            (json!(["a.b", 1]), "must be a list of strings"),
            (json!([null]), "must be a list of strings"),
            (json!([]), "must contain at least one event type"),
            (json!(["a.b", "a.b"]), "a.b is listed more than once"),
            (json!(["a b"]), "a b is not an event type"),
        ] {
            assert_eq!(event_types(value.clone()), Err(fault.to_owned()), "{value}");
        }
        assert_eq!(event_types(json!(["a.b"])).unwrap().len(), 1);
    }

    #[test]
    fn a_description_is_a_string_or_null() {
        assert_eq!(description_of(json!(null)), Ok(None));
        assert!(description_of(json!("")).unwrap().is_some());
        for value in [json!(1), json!([]), json!("x".repeat(256))] {
            assert!(description_of(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn only_true_and_false_are_booleans() {
        for value in [json!(null), json!("true"), json!(1), json!(0)] {
            assert!(truth(&value).is_err(), "{value}");
        }
        assert_eq!(truth(&json!(false)), Ok(false));
    }
}
