//! What a partner reads of a webhook follows what happened at it.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Answer, Partner, Receiver, Stack, Webhook, eventually, wait};

/// Waits until the resource shows it, and returns the resource.
async fn until_shown(partner: &Partner, webhook: &Webhook, code: Value, failures: i64) -> Value {
    let what = format!("last_response_code {code} and failure_count {failures}");
    eventually(&what, async || {
        let shown = partner.show_webhook(webhook).await;
        let as_expected = shown["last_response_code"] == code && shown["failure_count"] == failures;
        as_expected.then_some(shown)
    })
    .await
}

#[tokio::test]
async fn time_code_and_failures_in_a_row_follow_each_attempt() {
    let stack = Stack::start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    let webhook = partner
        .create_webhook(&receiver.url("/"), &["listing.failed"])
        .await;
    let fresh = partner.show_webhook(&webhook).await;
    for name in ["last_triggered_at", "last_response_code"] {
        assert_eq!(fresh[name], Value::Null, "{name}");
    }
    assert_eq!(fresh["failure_count"], 0);

    receiver.next([
        Answer::status(500),
        Answer::status(404),
        Answer::status(204),
    ]);
    let id = stack.publish(&partner, "listing.failed", "{}").await;
    let after_one = until_shown(&partner, &webhook, json!(500), 1).await;
    let triggered = after_one["last_triggered_at"]
        .as_str()
        .expect("a time")
        .to_owned();
    assert!(
        triggered.ends_with('Z') && triggered.len() == 20,
        "{triggered}"
    );
    until_shown(&partner, &webhook, json!(404), 2).await;
    let after_all = until_shown(&partner, &webhook, json!(204), 0).await;
    assert!(after_all["last_triggered_at"].as_str().unwrap() > triggered.as_str());
    stack.until_delivery_is(&id, "delivered").await;

    // The list tells the same as the resource.
    let list = partner.api.get(Partner::WEBHOOKS).await.expect(200).body;
    let listed = &list["data"][0]["attributes"];
    for name in ["last_triggered_at", "last_response_code", "failure_count"] {
        assert_eq!(listed[name], after_all[name], "{name}");
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_receiver_that_says_nothing_counts_as_a_failure_without_a_code() {
    let stack = Stack::builder()
        .set("dispatcher.deliver.timeout_ms", "1000")
        .set("dispatcher.deliver.connect_timeout_ms", "1000")
        .start()
        .await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    let webhook = partner
        .create_webhook(&receiver.url("/"), &["listing.failed"])
        .await;
    receiver.next([Answer::silence(), Answer::ok()]);
    let id = stack.publish(&partner, "listing.failed", "{}").await;
    until_shown(&partner, &webhook, Value::Null, 1).await;
    until_shown(&partner, &webhook, json!(200), 0).await;
    stack.until_delivery_is(&id, "delivered").await;
    let sql = stack.database.sql().await;
    let kinds: Vec<Option<String>> = sql
        .column("SELECT error_kind FROM attempts ORDER BY number")
        .await;
    assert_eq!(kinds.len(), 2, "{kinds:?}");
    assert!(
        kinds[0]
            .as_deref()
            .is_some_and(|kind| kind.contains("timeout")),
        "{kinds:?}"
    );
    assert_eq!(kinds[1], None);
    stack.finish().await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_disables_its_webhook_until_it_is_enabled_again() {
    let stack = Stack::start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    let gone = partner
        .create_webhook(&receiver.url("/gone"), &["listing.failed"])
        .await;
    partner
        .create_webhook(&receiver.url("/stays"), &["listing.failed"])
        .await;
    receiver.next_at("/gone", [Answer::status(410)]);
    let id = stack.publish(&partner, "listing.failed", "{}").await;
    let shown = eventually("the webhook is disabled", async || {
        let shown = partner.show_webhook(&gone).await;
        (shown["active"] == false).then_some(shown)
    })
    .await;
    assert_eq!(shown["disabled_reason"], "gone");
    assert!(shown["disabled_at"].is_string(), "{shown}");
    let sql = stack.database.sql().await;
    let status: String = sql
        .value_of(
            "SELECT status FROM deliveries WHERE event_id = $1 AND webhook_id = $2",
            &[&id, &gone.id],
        )
        .await;
    assert_eq!(status, "exhausted");

    // Within that time a change counts.
    wait::let_pass(Duration::from_secs(1)).await;
    let unseen = stack.publish(&partner, "listing.failed", "{}").await;
    receiver
        .wait_until("the other webhook gets it", |requests| {
            requests
                .iter()
                .any(|r| r.path == "/stays" && r.delivery() == unseen)
        })
        .await;
    let enabled = partner
        .update_webhook(&gone, &json!({"active": true}))
        .await;
    assert_eq!(
        (&enabled["active"], &enabled["disabled_reason"]),
        (&json!(true), &Value::Null)
    );
    // The change counts within a second; until then events may still find the webhook as it was.
    let mut published = 2;
    eventually("the webhook gets events again", async || {
        stack.publish(&partner, "listing.failed", "{}").await;
        published += 1;
        (receiver.requests_at("/gone").len() > 1).then_some(())
    })
    .await;
    let to_gone = receiver.requests_at("/gone");
    assert!(to_gone.iter().all(|request| request.delivery() != unseen));
    eventually("all is recorded and delivered", async || {
        let recorded = sql.count("events").await;
        let open = sql
            .count("deliveries WHERE next_attempt_at IS NOT NULL")
            .await;
        (recorded == published && open == 0).then_some(())
    })
    .await;
    stack.finish().await;
}
