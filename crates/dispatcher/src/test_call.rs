//! Test calls: a person waits for the answer, so they come over a short queue of their own, past breaker and cap.
//!
//! Reads the queue `interactive`; answers on `vellocity.replies`. Changes nothing of the webhook, whatever comes of it.

use std::sync::Arc;

use broker::interactive::{Request, TestCall, TestResult};
use broker::{Delivery, Link, Publisher};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::event::format_timestamp;
use domain::webhook::Subscription;
use serde::Serialize;
use store::keyring::Keyring;
use store::{Store, StoreError};

use crate::attempt::{Attempts, Outgoing};
use crate::consume::Handle;

/// The type that a test call shows.
const EVENT_TYPE: &str = "webhook.test";

pub struct TestCalls {
    pub attempts: Arc<Attempts>,
    pub store: Store,
    pub keyring: Arc<Keyring>,
    pub publisher: Publisher,
}

/// Exactly the page's four members, in its order.
#[derive(Serialize)]
struct Body {
    event: &'static str,
    webhook_id: i64,
    timestamp: String,
    message: &'static str,
}

impl Handle for TestCalls {
    async fn handle(self: Arc<Self>, message: Delivery, link: Arc<Link>, _beside: usize) {
        if let Some(reply) = self.answer(&message, &link).await {
            // Whoever asked gets no answer in time then, and is told that.
            if let Err(error) = self.publisher.publish(reply).await {
                tracing::warn!(%error, "can't answer a test call");
            }
        }
        message.receipt.ack();
    }
}

impl TestCalls {
    async fn answer(&self, message: &Delivery, link: &Link) -> Option<broker::Message> {
        let call = match Request::read(message) {
            Ok(Request::Test(call)) => call,
            Err(error) => {
                tracing::warn!(error = error.line(), "a test call can't be read");
                return None;
            }
        };
        // Nobody waits any more for one that could not begin in time.
        if call.begin_before_ms < Utc::now().timestamp_millis()
            || !self.attempts.pulse.may_send(link)
        {
            return None;
        }
        let result = match self.find(&call).await {
            Ok(Some(subscription)) => self.send(&call, subscription).await,
            Ok(None) => failed(&call, "the webhook does not exist any more"),
            Err(StoreError::Corrupt(reason)) => {
                tracing::error!(reason, "a webhook can't be used");
                failed(
                    &call,
                    "the webhook can't be used because of an error on our side",
                )
            }
            Err(error) => {
                tracing::warn!(
                    error = runtime::exit::chain(&error),
                    "can't read the webhook of a test call"
                );
                return None;
            }
        };
        result.message(message)
    }

    async fn find(&self, call: &TestCall) -> Result<Option<Subscription>, StoreError> {
        let mut connection = self.store.get().await?;
        store::subscription::load_one(
            &mut connection,
            &self.keyring,
            call.partner_id,
            call.webhook_id,
        )
        .await
    }

    async fn send(&self, call: &TestCall, subscription: Subscription) -> TestResult {
        let outgoing = Outgoing {
            subscription: Arc::new(subscription),
            event_id: call.delivery_id.to_string().into(),
            event_type: EVENT_TYPE.into(),
            body: body(call),
        };
        let attempt = self.attempts.send_test(&outgoing).await;
        TestResult {
            delivery_id: call.delivery_id,
            delivered: attempt.is_delivered(),
            response_code: attempt.status(),
            duration_ms: u64::try_from(attempt.timings.total.as_millis()).unwrap_or(u64::MAX),
            error: attempt.failure().map(|failure| failure.message.clone()),
        }
    }
}

fn body(call: &TestCall) -> Bytes {
    let body = Body {
        event: EVENT_TYPE,
        webhook_id: call.webhook_id.0,
        timestamp: format_timestamp(
            DateTime::from_timestamp(call.timestamp, 0).unwrap_or_else(Utc::now),
        ),
        message: "This is a test webhook payload",
    };
    // A struct of texts and a number always has a JSON form.
    serde_json::to_vec(&body).unwrap_or_default().into()
}

fn failed(call: &TestCall, reason: &str) -> TestResult {
    TestResult {
        delivery_id: call.delivery_id,
        delivered: false,
        response_code: None,
        duration_ms: 0,
        error: Some(reason.to_owned()),
    }
}
