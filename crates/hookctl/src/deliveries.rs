//! Deliveries: a list of them, and one with all its attempts as they were recorded.

use std::fmt::Write as _;

use domain::delivery::DeliveryStatus;
use domain::id::{DeliveryId, WebhookId};
use domain::limits::{FAILURE_KEPT_BYTES_MAX, SUCCESS_KEPT_BYTES_MAX};
use domain::printable::printable;
use serde_json::{Map, Value, json};
use store::delivery::{self, AttemptView, DeliveryFilter, DeliveryView};

use crate::answer::{Answer, Table, or_dash};
use crate::arguments::Deliveries;
use crate::environment::Environment;
use crate::error::Error;
use crate::shown;

pub async fn run(command: Deliveries, environment: &Environment) -> Result<Answer, Error> {
    match command {
        Deliveries::List {
            webhook,
            event,
            partner,
            status,
            limit,
        } => {
            let filter = DeliveryFilter {
                webhook_id: webhook.map(WebhookId),
                event_id: event,
                partner_id: partner,
                status,
                limit: limit.into(),
            };
            list(&filter, environment).await
        }
        Deliveries::Show { id } => show(id, environment).await,
    }
}

async fn list(filter: &DeliveryFilter, environment: &Environment) -> Result<Answer, Error> {
    let mut conn = environment.postgres().await?;
    let deliveries = delivery::list(&mut conn, filter).await?;
    let document = Value::Array(deliveries.iter().map(document).collect());
    Ok(Answer::new(
        document,
        table(&deliveries).render_or("no deliveries"),
    ))
}

async fn show(id: DeliveryId, environment: &Environment) -> Result<Answer, Error> {
    let mut conn = environment.postgres().await?;
    let found = delivery::find(&mut conn, id)
        .await?
        .ok_or_else(|| Error::NotFound(format!("delivery {id}")))?;
    let attempts = delivery::attempts(&mut conn, id).await?;
    let mut document = document(&found);
    if let Some(object) = document.as_object_mut() {
        let attempts = attempts.iter().map(attempt).collect();
        object.insert("attempts".to_owned(), Value::Array(attempts));
    }
    Ok(Answer::new(document, text(&found, &attempts)))
}

/// A delivery with its last attempt's result.
#[must_use]
pub fn document(delivery: &DeliveryView) -> Value {
    json!({
        "id": DeliveryId(delivery.id),
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "partner_id": delivery.partner_id,
        "webhook_id": delivery.webhook_id,
        "webhook_version": delivery.webhook_version,
        "webhook_state": delivery.webhook_state,
        "status": delivery.status,
        "attempt_count": delivery.attempts,
        "parkings": delivery.parkings,
        "park_reason": delivery.park_reason,
        "next_attempt_at": delivery.next_attempt_at.map(shown::ms),
        "expires_at": shown::ms(delivery.expires_at),
        "origin": delivery.origin.map(DeliveryId),
        "traceparent": delivery.traceparent,
        "created_at": shown::ms(delivery.created_at),
        "finished_at": delivery.finished_at.map(shown::ms),
        "response_code": delivery.response_code,
        "error_kind": delivery.error_kind,
        "error": delivery.error,
    })
}

fn attempt(attempt: &AttemptView) -> Value {
    let ms = |us: i64| us as f64 / 1000.0;
    let mut object = Map::new();
    let members = [
        ("number", json!(attempt.number)),
        ("started_at", json!(shown::ms(attempt.started_at))),
        ("webhook_version", json!(attempt.sent_version)),
        ("response_code", json!(attempt.response_code)),
        ("error_kind", json!(attempt.error_kind)),
        ("error", json!(attempt.error)),
        ("reused_connection", json!(attempt.reused_connection)),
        (
            "times_ms",
            json!({
                "dns": attempt.dns_us.map(ms),
                "connect": attempt.connect_us.map(ms),
                "tls": attempt.tls_us.map(ms),
                "first_byte": attempt.first_byte_us.map(ms),
                "total": ms(attempt.total_us),
            }),
        ),
    ];
    object.extend(members.map(|(name, value)| (name.to_owned(), value)));
    for (name, bytes) in [
        ("response_headers", &attempt.response_headers),
        ("response_body", &attempt.response_body),
    ] {
        if let Some(bytes) = bytes {
            shown::put_bytes(&mut object, name, bytes);
        }
    }
    Value::Object(object)
}

/// Deliveries for people.
#[must_use]
pub fn table(deliveries: &[DeliveryView]) -> Table {
    let mut table = Table::new([
        "id",
        "event",
        "type",
        "webhook",
        "status",
        "attempts",
        "code",
        "next attempt",
        "error",
    ]);
    for delivery in deliveries {
        // While an attempt is under way, this is the end of its lease.
        let next_attempt = delivery.next_attempt_at.filter(|_| !is_in_flight(delivery));
        table.row([
            DeliveryId(delivery.id).to_string(),
            delivery.event_id.clone(),
            delivery.event_type.clone(),
            delivery.webhook_id.to_string(),
            delivery.status.clone(),
            delivery.attempts.to_string(),
            or_dash(delivery.response_code),
            or_dash(next_attempt.map(shown::ms)),
            or_dash(delivery.error.as_deref()),
        ]);
    }
    table
}

/// Whether nothing more will happen to it.
#[must_use]
pub fn is_final(delivery: &DeliveryView) -> bool {
    let status: Result<DeliveryStatus, _> = delivery.status.parse();
    status.is_ok_and(DeliveryStatus::is_final)
}

/// Which version of it matched, and what became of the webhook, where it gets nothing more.
fn webhook(delivery: &DeliveryView) -> String {
    let matched = format!(
        "{}, matched in version {}",
        delivery.webhook_id, delivery.webhook_version
    );
    let now = match delivery.webhook_state.as_str() {
        "active" => return matched,
        "gone" => "disabled: its receiver answered 410 Gone",
        "failing" => "disabled: nothing but failures for days",
        "suspended" => "suspended with its partner",
        state => state,
    };
    format!("{matched}, now {now}")
}

/// How often it was put off untried, and why if it is at this moment.
fn parked(delivery: &DeliveryView) -> String {
    let times = match delivery.parkings {
        1 => "1 time".to_owned(),
        times => format!("{times} times"),
    };
    match &delivery.park_reason {
        Some(reason) => format!("{times}, last: {reason}"),
        None => times,
    }
}

fn is_in_flight(delivery: &DeliveryView) -> bool {
    delivery.status == DeliveryStatus::InFlight.as_str()
}

fn text(delivery: &DeliveryView, attempts: &[AttemptView]) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // A `String` takes everything.
        let _ = writeln!(text, "{name:16}{value}");
    };
    line("delivery", DeliveryId(delivery.id).to_string());
    line(
        "event",
        format!(
            "{} ({}) of partner {}",
            delivery.event_id, delivery.event_type, delivery.partner_id
        ),
    );
    line("webhook", webhook(delivery));
    line("status", delivery.status.clone());
    line("attempts", delivery.attempts.to_string());
    if delivery.parkings > 0 {
        line("parked", parked(delivery));
    }
    line("recorded", shown::ms(delivery.created_at));
    match (delivery.next_attempt_at, delivery.finished_at) {
        // An attempt is under way, and this is when it counts as lost.
        (Some(lease_end), _) if is_in_flight(delivery) => {
            line("result due", format!("by {}", shown::ms(lease_end)));
        }
        (Some(next), _) => line("next attempt", shown::ms(next)),
        (None, Some(finished)) => line("ended", shown::ms(finished)),
        // Cancelled, and to be written so when its turn comes.
        (None, None) => {}
    }
    for attempt in attempts {
        text.push('\n');
        text.push_str(&attempt_text(attempt));
    }
    text
}

fn attempt_text(attempt: &AttemptView) -> String {
    let result = match (attempt.response_code, &attempt.error) {
        (Some(code), None) => format!("answered {code}"),
        (_, Some(error)) => error.clone(),
        (None, None) => "no answer".to_owned(),
    };
    let mut text = format!(
        "attempt {} at {}: {result}\n",
        attempt.number,
        shown::ms(attempt.started_at)
    );
    let parts = [
        ("DNS", attempt.dns_us),
        ("connect", attempt.connect_us),
        ("TLS", attempt.tls_us),
        ("first byte", attempt.first_byte_us),
        ("total", Some(attempt.total_us)),
    ];
    let parts: Vec<_> = parts
        .into_iter()
        .filter_map(|(name, us)| us.map(|us| format!("{name} {:.1} ms", us as f64 / 1000.0)))
        .collect();
    let reused = if attempt.reused_connection {
        ", connection reused"
    } else {
        ""
    };
    let _ = writeln!(text, "  {}{reused}", parts.join(", "));
    let headers = attempt.response_headers.as_deref().unwrap_or_default();
    let body = attempt.response_body.as_deref().unwrap_or_default();
    quote(&mut text, headers);
    if !body.is_empty() {
        text.push_str("  |\n");
        quote(&mut text, body);
    }
    let kept_bytes_max = if attempt.error.is_some() {
        FAILURE_KEPT_BYTES_MAX
    } else {
        SUCCESS_KEPT_BYTES_MAX
    };
    // A cut leaves out the whole of its last character.
    if body.len() + 4 > kept_bytes_max {
        let _ = writeln!(
            text,
            "  (of a body at most {kept_bytes_max} bytes are kept)"
        );
    }
    text
}

/// What a receiver sent, indented. It must not steer a terminal.
fn quote(text: &mut String, bytes: &[u8]) {
    for line in String::from_utf8_lossy(bytes).lines() {
        let harmless = |c| if c == '\t' { c } else { printable(c) };
        let line: String = line.chars().map(harmless).collect();
        let _ = writeln!(text, "  | {line}");
    }
}

#[cfg(test)]
mod tests;
