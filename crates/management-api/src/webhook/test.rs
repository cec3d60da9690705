//! `POST /partners/webhooks/test`: sends a test delivery now, by way of a dispatcher, and tells what really happened.
//! Changes nothing of the webhook.

use actix_web::http::StatusCode;
use actix_web::web::Payload;
use broker::interactive::{TestCall, TestResult};
use broker::trace::Trace;
use chrono::Utc;
use domain::id::{DeliveryId, WebhookId};
use serde::Serialize;
use serde_json::Value;
use store::Session;
use uuid::Uuid;

use super::unknown;
use crate::answer::{Answer, Data};
use crate::error::ApiError;
use crate::idempotency::{self, Key};
use crate::metrics::TestCallResult;
use crate::request::fields::Fields;
use crate::request::{Call, body};

#[derive(Serialize)]
struct Outcome {
    #[serde(rename = "type")]
    kind: &'static str,
    attributes: Attributes,
}

/// All `null` but the id when no dispatcher answered.
#[derive(Serialize)]
struct Attributes {
    delivered: Option<bool>,
    response_code: Option<u16>,
    duration_ms: Option<u64>,
    error: Option<String>,
    delivery_id: DeliveryId,
}

/// # Errors
/// [`ApiError::Validation`] for a body without an id, [`ApiError::NotFound`] when the partner has no such webhook,
/// [`ApiError::Unavailable`] when RabbitMQ does not take the call.
pub async fn test(call: &Call, payload: Payload) -> Result<Answer, ApiError> {
    let body = body::read(&call.request, payload).await?;
    let key = Key::of(call, &body)?;
    let Some(key) = key else {
        let webhook = parse(&body)?;
        let mut conn = call.gateway.store.get().await?;
        find(call, &mut conn, webhook).await?;
        drop(conn);
        return ask(call, webhook).await;
    };
    // The key is held by an open transaction until the answer is there.
    let slow = call.gateway.slow_calls.acquire().await;
    let _slow = slow.map_err(|closed| ApiError::Server(Box::new(closed)))?;
    idempotency::once(call, &key, async |conn: &mut Session| {
        let answered = async {
            let webhook = parse(&body)?;
            find(call, conn, webhook).await?;
            ask(call, webhook).await
        };
        match answered.await {
            Err(wrong @ (ApiError::Validation(_) | ApiError::NotFound(_))) => {
                Ok(wrong.into_answer())
            }
            answered => answered,
        }
    })
    .await
}

fn parse(body: &[u8]) -> Result<WebhookId, ApiError> {
    const WEBHOOK_ID: &str = "webhook_id";
    let mut fields = Fields::parse(body)?;
    let id = fields.require(WEBHOOK_ID);
    let id = id.and_then(|value| fields.noted(WEBHOOK_ID, positive(&value)));
    fields.refuse_others();
    fields.faults.none()?;
    id.ok_or_else(unknown)
}

fn positive(value: &Value) -> Result<WebhookId, &'static str> {
    match value.as_i64() {
        Some(id) if id > 0 => Ok(WebhookId(id)),
        _ => Err("must be a positive whole number"),
    }
}

async fn find(call: &Call, conn: &mut Session, webhook: WebhookId) -> Result<(), ApiError> {
    let found = store::webhook::get(conn, call.caller.partner_id, webhook).await?;
    found.map(|_| ()).ok_or_else(unknown)
}

async fn ask(call: &Call, webhook_id: WebhookId) -> Result<Answer, ApiError> {
    let gateway = &call.gateway;
    let now = Utc::now();
    let delivery_id = DeliveryId(Uuid::now_v7());
    let question = TestCall {
        webhook_id,
        partner_id: call.caller.partner_id,
        delivery_id,
        timestamp: now.timestamp(),
        begin_before_ms: (now + gateway.config.test_call_begin_within()).timestamp_millis(),
    };
    let limit = gateway.config.test_call_timeout();
    let trace = Trace::current();
    let answered = gateway
        .desk
        .ask(&gateway.publisher, question, limit, &trace);
    let answered = answered.await.map_err(|error| {
        gateway.metrics.test_call(TestCallResult::Unavailable);
        ApiError::Unavailable(
            "The service can't reach its message broker.",
            Some(Box::new(error)),
        )
    })?;
    gateway.metrics.test_call(match &answered {
        Some(result) if result.delivered => TestCallResult::Delivered,
        Some(_) => TestCallResult::Failed,
        None => TestCallResult::Unanswered,
    });
    Ok(outcome(delivery_id, answered))
}

fn outcome(delivery_id: DeliveryId, answered: Option<TestResult>) -> Answer {
    let (status, attributes) = match answered {
        Some(result) => (
            StatusCode::OK,
            Attributes {
                delivered: Some(result.delivered),
                response_code: result.response_code,
                duration_ms: Some(result.duration_ms),
                error: result.error,
                delivery_id,
            },
        ),
        None => (
            StatusCode::ACCEPTED,
            Attributes {
                delivered: None,
                response_code: None,
                duration_ms: None,
                error: None,
                delivery_id,
            },
        ),
    };
    let data = Outcome {
        kind: "webhook_test",
        attributes,
    };
    Answer::json(status, &Data { data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: &Answer) -> &str {
        std::str::from_utf8(answer.body().unwrap()).unwrap()
    }

    #[test]
    fn the_answer_tells_what_happened_in_the_decided_order() {
        let delivery_id = DeliveryId(Uuid::from_u128(0));
        let result = TestResult {
            delivery_id,
            delivered: false,
            response_code: Some(500),
            duration_ms: 12,
            error: Some("The receiver answered with status 500.".to_owned()),
        };
        let answer = outcome(delivery_id, Some(result));
        assert_eq!(answer.status(), 200);
        assert_eq!(
            text(&answer),
            concat!(
                r#"{"data":{"type":"webhook_test","attributes":{"delivered":false,"response_code":500,"#,
                r#""duration_ms":12,"error":"The receiver answered with status 500.","#,
                r#""delivery_id":"dlv_00000000000000000000000000"}}}"#
            )
        );
        let answer = outcome(delivery_id, None);
        assert_eq!(answer.status(), 202);
        assert!(text(&answer).contains(r#""delivered":null,"response_code":null"#));
    }

    #[test]
    fn an_id_in_a_body_is_a_positive_whole_number() {
        assert_eq!(parse(br#"{"webhook_id":7}"#).unwrap(), WebhookId(7));
        for bad in [
            "{}",
            r#"{"webhook_id":0}"#,
            r#"{"webhook_id":-1}"#,
            r#"{"webhook_id":1.0}"#,
            r#"{"webhook_id":"1"}"#,
            r#"{"webhook_id":null}"#,
            r#"{"webhook_id":9223372036854775808}"#,
            r#"{"webhook_id":1,"other":2}"#,
        ] {
            assert!(
                matches!(parse(bad.as_bytes()), Err(ApiError::Validation(_))),
                "{bad}"
            );
        }
    }
}
