//! `GET`, `PATCH` and `DELETE /partners/webhooks/{id}`.

use reqwest::Method;
use serde_json::{Value, json};
use tests::Partner;

use super::api_fixture::{URL, api, faults};

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let body = json!({"url": URL, "events": ["listing.updated"], "description": "first"});
    let webhook = partner.create_webhook_from(&body).await;
    let before = partner.show_webhook(&webhook).await;
    assert_eq!(before["disabled_reason"], Value::Null);
    assert_eq!(before["disabled_at"], Value::Null);
    for (change, field) in [
        (json!({"url": "http://127.0.0.1:9998/other"}), "url"),
        (
            json!({"events": ["cosell.created", "listing.updated"]}),
            "events",
        ),
        (json!({"description": "second"}), "description"),
        (json!({"description": null}), "description"),
        (json!({"active": false}), "active"),
        (json!({"active": true}), "active"),
    ] {
        let old = partner.show_webhook(&webhook).await;
        let mut expected = old.clone();
        expected[field] = change[field].clone();
        let mut new = partner.update_webhook(&webhook, &change).await;
        assert_eq!(new, partner.show_webhook(&webhook).await, "{change}");
        new["updated_at"] = old["updated_at"].clone();
        assert_eq!(new, expected, "{change}");
    }
    let sql = stack.database.sql().await;
    let changes: Vec<String> = sql
        .column("SELECT change || ' ' || version || ' ' || split_part(actor, ':', 1) FROM webhook_versions ORDER BY version")
        .await;
    assert_eq!(changes.len(), 7);
    assert_eq!(changes[0], "created 1 api_key");
    assert_eq!(changes[6], "updated 7 api_key");
    stack.finish().await;
}

#[tokio::test]
async fn a_patch_that_changes_nothing_makes_no_version() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let webhook = partner.create_webhook(URL, &["listing.updated"]).await;
    let before = partner.show_webhook(&webhook).await;
    for nothing in [
        json!({}),
        json!({"active": true, "url": URL, "events": ["listing.updated"], "description": null}),
    ] {
        assert_eq!(partner.update_webhook(&webhook, &nothing).await, before);
    }
    let sql = stack.database.sql().await;
    assert_eq!(sql.count("webhook_versions").await, 1);
    stack.finish().await;
}

#[tokio::test]
async fn a_patch_is_checked_like_a_create() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let webhook = partner.create_webhook(URL, &["listing.updated"]).await;
    let before = partner.show_webhook(&webhook).await;
    let path = Partner::webhook_path(webhook.id);
    for (change, field) in [
        (json!({"url": null}), "url"),
        (json!({"url": "ftp://1.1.1.1"}), "url"),
        (json!({"url": "http://10.0.0.1/"}), "url"),
        (json!({"events": null}), "events"),
        (json!({"events": []}), "events"),
        (json!({"events": ["no.such"]}), "events"),
        (json!({"description": 1}), "description"),
        (json!({"description": "x".repeat(256)}), "description"),
        (json!({"active": null}), "active"),
        (json!({"active": "no"}), "active"),
        (json!({"failure_count": 0}), "failure_count"),
        (json!({"active": false, "id": 7}), "id"),
        (json!([]), "body"),
    ] {
        let refused = partner.api.patch(&path, &change).await;
        assert_eq!(faults(refused, field).len(), 1, "{change}");
    }
    let untyped = partner.api.request(Method::PATCH, &path).body("{}");
    partner.api.send(untyped).await.expect(415);
    assert_eq!(partner.show_webhook(&webhook).await, before);
    stack.finish().await;
}

#[tokio::test]
async fn why_a_webhook_was_disabled_is_told_until_it_is_active_again() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let webhook = partner.create_webhook(URL, &["listing.updated"]).await;
    let mut conn = stack.database.store().get().await.unwrap();
    let (id, reason) = (
        domain::id::WebhookId(webhook.id),
        domain::webhook::DisabledReason::Gone,
    );
    assert!(
        store::webhook::disable(&mut conn, id, 1, reason, "dispatcher")
            .await
            .unwrap()
    );
    let disabled = partner.show_webhook(&webhook).await;
    assert_eq!(
        (&disabled["active"], &disabled["disabled_reason"]),
        (&json!(false), &json!("gone"))
    );
    let at = disabled["disabled_at"].as_str().unwrap();
    assert!(at.len() == 20 && at.ends_with('Z'), "{at}");

    let described = partner
        .update_webhook(&webhook, &json!({"description": "x"}))
        .await;
    assert_eq!(described["disabled_reason"], "gone");
    let enabled = partner
        .update_webhook(&webhook, &json!({"active": true}))
        .await;
    assert_eq!(enabled["active"], true);
    assert_eq!(enabled["disabled_reason"], Value::Null);
    assert_eq!(enabled["disabled_at"], Value::Null);
    stack.finish().await;
}

#[tokio::test]
async fn a_deleted_webhook_is_gone_and_its_secret_wiped() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let webhook = partner.create_webhook(URL, &["listing.updated"]).await;
    let path = Partner::webhook_path(webhook.id);
    let deleted = partner.api.delete(&path).await.expect(204);
    assert_eq!(deleted.text, "");
    assert_eq!(deleted.header("content-type"), None);
    for gone in [
        partner.api.delete(&path).await,
        partner.api.get(&path).await,
        partner.api.patch(&path, &json!({"active": true})).await,
        partner.test_webhook(&webhook).await,
    ] {
        assert_eq!(gone.expect(404).code(), Some("NOT_FOUND"));
    }
    let sql = stack.database.sql().await;
    assert_eq!(
        sql.count("webhooks WHERE secret IS NULL AND deleted_at IS NOT NULL")
            .await,
        1
    );
    stack.finish().await;
}

#[tokio::test]
async fn someone_elses_webhook_looks_like_none() {
    let stack = api().start().await;
    let (partner, other) = (stack.partner().await, stack.partner().await);
    let webhook = other.create_webhook(URL, &["listing.updated"]).await;
    let missing = Partner::webhook_path(webhook.id + 1000);
    let path = Partner::webhook_path(webhook.id);
    let change = json!({"active": false});
    for (theirs, nobodys) in [
        (
            partner.api.get(&path).await,
            partner.api.get(&missing).await,
        ),
        (
            partner.api.delete(&path).await,
            partner.api.delete(&missing).await,
        ),
        (
            partner.api.patch(&path, &change).await,
            partner.api.patch(&missing, &change).await,
        ),
    ] {
        assert_eq!(theirs.expect(404).text, nobodys.expect(404).text);
    }
    assert_eq!(
        partner.test_webhook(&webhook).await.expect(404).code(),
        Some("NOT_FOUND")
    );
    assert_eq!(other.show_webhook(&webhook).await["active"], true);
    stack.finish().await;
}

#[tokio::test]
async fn an_id_in_a_path_is_a_positive_whole_number_or_leads_nowhere() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    for id in [
        "0",
        "-1",
        "+1",
        "01",
        "1.0",
        "x",
        "9223372036854775808",
        "99999999999999999999999",
        "1%202",
    ] {
        let path = format!("/partners/webhooks/{id}");
        let change = json!({"active": false});
        for answer in [
            partner.api.get(&path).await,
            partner.api.delete(&path).await,
            partner.api.patch(&path, &change).await,
        ] {
            assert_eq!(answer.expect(404).code(), Some("NOT_FOUND"), "{id}");
        }
    }
    stack.finish().await;
}
