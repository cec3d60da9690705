//! `Idempotency-Key`: the first answer, again.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tests::service::{Kind, Service};
use tests::{Client, Partner, Response};

use super::api_fixture::{URL, api, assert_nothing_stored, faults};

async fn post(client: &Client, key: &str, body: &Value) -> Response {
    let request = client.request(Method::POST, Partner::WEBHOOKS);
    client
        .send(request.header("idempotency-key", key).json(body))
        .await
}

#[tokio::test]
async fn a_request_sent_again_gets_the_first_answer_and_is_not_carried_out_again() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let body = json!({"url": URL, "events": ["listing.updated"]});
    let first = post(&partner.api, "key-1", &body).await.expect(201);
    assert_eq!(first.header("idempotent-replayed"), None);
    let again = post(&partner.api, "key-1", &body).await.expect(201);
    assert_eq!(again.text, first.text, "the secret included");
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let sql = stack.database.sql().await;
    assert_eq!(sql.count("webhooks").await, 1);

    let other = post(&partner.api, "key-2", &body).await.expect(201);
    assert_ne!(other.body["data"]["id"], first.body["data"]["id"]);
    stack.finish().await;
}

#[tokio::test]
async fn another_request_with_the_same_key_is_a_conflict() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let body = json!({"url": URL, "events": ["listing.updated"]});
    post(&partner.api, "key", &body).await.expect(201);
    let other = json!({"url": URL, "events": ["listing.updated"], "active": false});
    let refused = post(&partner.api, "key", &other).await.expect(409);
    assert_eq!(refused.code(), Some("CONFLICT"));
    let elsewhere = partner
        .api
        .request(Method::POST, "/partners/webhooks/test")
        .header("idempotency-key", "key")
        .json(&body);
    let refused = partner.api.send(elsewhere).await.expect(409);
    assert_eq!(refused.code(), Some("CONFLICT"));
    let sql = stack.database.sql().await;
    assert_eq!(sql.count("webhooks").await, 1);
    stack.finish().await;
}

#[tokio::test]
async fn a_key_belongs_to_its_partner_for_a_day() {
    let stack = api().start().await;
    let (partner, other) = (stack.partner().await, stack.partner().await);
    let body = json!({"url": URL, "events": ["listing.updated"]});
    let first = post(&partner.api, "key", &body).await.expect(201);
    let others = post(&other.api, "key", &body).await.expect(201);
    assert_eq!(others.header("idempotent-replayed"), None);
    assert_ne!(others.body["data"]["id"], first.body["data"]["id"]);
    let sql = stack.database.sql().await;
    sql.execute("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'")
        .await;
    let later = post(&partner.api, "key", &body).await.expect(201);
    assert_eq!(later.header("idempotent-replayed"), None);
    assert_ne!(later.body["data"]["id"], first.body["data"]["id"]);
    stack.finish().await;
}

#[tokio::test]
async fn of_requests_at_once_only_one_is_carried_out() {
    let stack = api().apis(2).start().await;
    let partner = stack.partner().await;
    let body = json!({"url": URL, "events": ["listing.updated"]});
    let origins: Vec<String> = stack
        .services(Kind::ManagementApi)
        .map(|service| format!("http://{}", service.api()))
        .collect();
    let answers = join_all((0..6).map(|n| {
        let client = Client::new(&origins[n % 2], Some(&partner.key));
        let body = body.clone();
        async move { post(&client, "key", &body).await.expect(201) }
    }))
    .await;
    assert!(answers.iter().all(|answer| answer.text == answers[0].text));
    let fresh = answers
        .iter()
        .filter(|answer| answer.header("idempotent-replayed").is_none());
    assert_eq!(fresh.count(), 1);
    let sql = stack.database.sql().await;
    assert_eq!(sql.count("webhooks").await, 1);
    stack.finish().await;
}

#[tokio::test]
async fn a_refusal_is_an_answer_too() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let bad = json!({"url": URL, "events": []});
    let first = post(&partner.api, "key", &bad).await.expect(422);
    let again = post(&partner.api, "key", &bad).await.expect(422);
    assert_eq!(again.text, first.text);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_nothing_stored(&stack).await;
    stack.finish().await;
}

#[tokio::test]
async fn a_key_that_is_no_short_printable_text_is_refused() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let body = json!({"url": URL, "events": ["listing.updated"]});
    for key in ["", &"x".repeat(256), "schlüssel"] {
        let told = faults(post(&partner.api, key, &body).await, "Idempotency-Key");
        assert!(told[0].contains("printable ASCII"), "{told:?}");
    }
    assert_nothing_stored(&stack).await;
    post(&partner.api, &"x".repeat(255), &body)
        .await
        .expect(201);
    stack.finish().await;
}

#[tokio::test]
async fn a_kept_answer_lies_sealed_in_the_database() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let body = json!({"url": URL, "events": ["listing.updated"]});
    let first = post(&partner.api, "key", &body).await.expect(201);
    let secret = first.body["meta"]["secret"].as_str().unwrap();
    let sql = stack.database.sql().await;
    let kept: Vec<u8> = sql.value("SELECT answer FROM idempotency_keys").await;
    let contains = |needle: &[u8]| kept.windows(needle.len()).any(|part| part == needle);
    assert!(!contains(secret.as_bytes()) && !contains(b"listing"));
    stack.finish().await;
}

#[tokio::test]
async fn a_failure_of_ours_is_not_kept() {
    let stack = api().without_services().start().await;
    let settings = stack.settings().with("rabbitmq.url", "amqp://127.0.0.1:1");
    let service = Service::start(Kind::ManagementApi, &settings).await;
    let origin = format!("http://{}", service.api());
    let partner = Partner::create(
        &stack.database.store(),
        &origin,
        domain::plan::Plan::Starter,
    )
    .await;
    tests::eventually("the database is used", async || {
        let answer = partner.api.get(Partner::WEBHOOKS).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let webhook = partner.create_webhook(URL, &["listing.updated"]).await;
    let request = partner
        .api
        .request(Method::POST, "/partners/webhooks/test")
        .header("idempotency-key", "key")
        .json(&json!({"webhook_id": webhook.id}));
    let failed = partner.api.send(request).await.expect(503);
    assert_eq!(failed.code(), Some("UNAVAILABLE"));
    let sql = stack.database.sql().await;
    assert_eq!(sql.count("idempotency_keys").await, 0);
    service.stop().await;
    stack.finish().await;
}
