//! Deliveries: a list of them, and one with all its attempts as they were recorded.

use std::fmt::Write as _;

use domain::delivery::DeliveryStatus;
use domain::id::{DeliveryId, WebhookId};
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
        table.row([
            DeliveryId(delivery.id).to_string(),
            delivery.event_id.clone(),
            delivery.event_type.clone(),
            delivery.webhook_id.to_string(),
            delivery.status.clone(),
            delivery.attempts.to_string(),
            or_dash(delivery.response_code),
            or_dash(delivery.next_attempt_at.map(shown::ms)),
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
    line(
        "webhook",
        format!(
            "{}, matched in version {}",
            delivery.webhook_id, delivery.webhook_version
        ),
    );
    line("status", delivery.status.clone());
    line("attempts", delivery.attempts.to_string());
    if delivery.parkings > 0 {
        let reason = delivery.park_reason.as_deref().unwrap_or("unknown");
        line(
            "parked",
            format!("{} times, last: {reason}", delivery.parkings),
        );
    }
    line("made", shown::ms(delivery.created_at));
    match (delivery.next_attempt_at, delivery.finished_at) {
        (Some(next), _) => line("next attempt", shown::ms(next)),
        (None, finished) => line("ended", or_dash(finished.map(shown::ms))),
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
    for bytes in [&attempt.response_headers, &attempt.response_body] {
        let shown = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default());
        for line in shown.lines() {
            // What a receiver sends must not steer a terminal.
            let line: String = line
                .chars()
                .map(|c| if c.is_control() { '\u{fffd}' } else { c })
                .collect();
            let _ = writeln!(text, "  | {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn failed() -> AttemptView {
        AttemptView {
            number: 2,
            started_at: DateTime::from_timestamp_millis(1_700_000_000_123).unwrap(),
            sent_version: 1,
            response_code: Some(503),
            error_kind: Some("status".to_owned()),
            error: Some("the receiver answered 503".to_owned()),
            response_headers: Some(b"server: x\n".to_vec()),
            response_body: Some(vec![0xff, 0x1b]),
            dns_us: None,
            connect_us: Some(1500),
            tls_us: None,
            first_byte_us: Some(20_000),
            total_us: 21_250,
            reused_connection: false,
        }
    }

    #[test]
    fn an_attempt_is_shown_as_it_was_recorded() {
        let shown = attempt(&failed());
        assert_eq!(
            shown,
            json!({
                "number": 2,
                "started_at": "2023-11-14T22:13:20.123Z",
                "webhook_version": 1,
                "response_code": 503,
                "error_kind": "status",
                "error": "the receiver answered 503",
                "reused_connection": false,
                "times_ms": {"dns": null, "connect": 1.5, "tls": null, "first_byte": 20.0, "total": 21.25},
                "response_headers": "server: x\n",
                "response_body_base64": "/xs=",
            })
        );
    }

    #[test]
    fn what_a_receiver_sent_can_not_steer_a_terminal() {
        let text = attempt_text(&failed());
        assert!(text.contains("the receiver answered 503"), "{text}");
        assert!(
            text.contains("connect 1.5 ms, first byte 20.0 ms, total 21.2 ms"),
            "{text}"
        );
        assert!(!text.contains('\x1b'), "{text}");
    }
}
