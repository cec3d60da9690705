//! Who may call: keys, their scopes and their end.

use domain::id::PartnerId;
use reqwest::Method;
use serde_json::json;
use store::api_key::Scope;
use tests::partner::new_key;
use tests::{Client, Partner, Response, Stack};

use super::api_fixture::{URL, api};

#[track_caller]
fn assert_unauthorized(answer: Response) -> String {
    let answer = answer.expect(401);
    assert_eq!(answer.code(), Some("UNAUTHORIZED"));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    assert_eq!(answer.header("x-ratelimit-limit"), None);
    answer.body["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_operation_needs_a_key() {
    let stack = api().start().await;
    let nobody = Client::new(&stack.api_origin(), None);
    let body = json!({"url": URL, "events": ["listing.updated"]});
    for answer in [
        nobody.get(Partner::WEBHOOKS).await,
        nobody.post(Partner::WEBHOOKS, &body).await,
        nobody.get("/partners/webhooks/1").await,
        nobody.patch("/partners/webhooks/1", &json!({})).await,
        nobody.delete("/partners/webhooks/1").await,
        nobody.get("/partners/webhooks/events").await,
        nobody
            .post("/partners/webhooks/test", &json!({"webhook_id": 1}))
            .await,
    ] {
        let told = assert_unauthorized(answer);
        assert!(told.contains("Authorization: Bearer"), "{told}");
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_key_is_a_bearer_token_and_nothing_else() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let nobody = partner.api.with_key(None);
    let call = async |value: String| {
        let request = nobody
            .request(Method::GET, Partner::WEBHOOKS)
            .header("authorization", value);
        nobody.send(request).await
    };
    for scheme in ["Bearer", "bearer", "BEARER"] {
        call(format!("{scheme} {}", partner.key)).await.expect(200);
    }
    for value in [
        partner.key.clone(),
        format!("Basic {}", partner.key),
        "Bearer".to_owned(),
        "Bearer nonsense".to_owned(),
        format!("Bearer {}x", partner.key),
        format!("Bearer {}", partner.key.to_uppercase()),
    ] {
        let told = assert_unauthorized(call(value).await);
        assert!(told.contains("vel_"), "{told}");
    }
    let in_the_query = format!("/partners/webhooks?api_key={}", partner.key);
    assert_unauthorized(nobody.get(&in_the_query).await);
    stack.finish().await;
}

#[tokio::test]
async fn an_unknown_a_revoked_and_an_expired_key_are_told_the_same() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let (store, id) = (stack.database.store(), PartnerId(partner.id));
    let expired = new_key(&store, id, &Scope::ALL).await;
    let revoked = new_key(&store, id, &Scope::ALL).await;
    for key in [&expired, &revoked] {
        partner
            .api
            .with_key(Some(key))
            .get(Partner::WEBHOOKS)
            .await
            .expect(200);
    }
    let sql = stack.database.sql().await;
    let end = "UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE prefix = $1";
    sql.run(end, &[&&expired[..12]]).await;
    let end = "UPDATE api_keys SET revoked_at = now() WHERE prefix = $1";
    sql.run(end, &[&&revoked[..12]]).await;
    let unknown = domain::api_key::ApiKey::from_random([7; 32])
        .reveal()
        .to_owned();
    let mut told = Vec::new();
    for key in [&expired, &revoked, &unknown] {
        let client = partner.api.with_key(Some(key));
        told.push(assert_unauthorized(client.get(Partner::WEBHOOKS).await));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    partner.api.get(Partner::WEBHOOKS).await.expect(200);
    stack.finish().await;
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let webhook = partner.create_webhook(URL, &["listing.updated"]).await;
    let (store, id) = (stack.database.store(), PartnerId(partner.id));
    let reader = partner
        .api
        .with_key(Some(&new_key(&store, id, &[Scope::Read]).await));
    let writer = partner
        .api
        .with_key(Some(&new_key(&store, id, &[Scope::Write]).await));
    let path = Partner::webhook_path(webhook.id);
    let body = json!({"url": URL, "events": ["listing.updated"]});
    let reads = async |client: &Client| {
        [
            client.get(Partner::WEBHOOKS).await.status,
            client.get("/partners/webhooks/events").await.status,
            client.get(&path).await.status,
        ]
    };
    let writes = async |client: &Client| {
        let of_nobodys = json!({"webhook_id": 4711});
        [
            client.post(Partner::WEBHOOKS, &body).await.status,
            client.patch(&path, &json!({})).await.status,
            client
                .post("/partners/webhooks/test", &of_nobodys)
                .await
                .status,
            client.delete(&path).await.status,
        ]
    };
    assert_eq!(reads(&reader).await, [200, 200, 200]);
    assert_eq!(writes(&reader).await, [403, 403, 403, 403]);
    assert_eq!(reads(&writer).await, [403, 403, 403]);
    assert_eq!(writes(&writer).await, [201, 200, 404, 204]);
    let refused = reader.delete(&path).await;
    assert_eq!(refused.code(), Some("FORBIDDEN"));
    assert!(refused.header("x-ratelimit-limit").is_some());
    stack.finish().await;
}

#[tokio::test]
async fn a_suspended_partner_may_do_nothing_until_it_is_resumed() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let mut conn = stack.database.store().get().await.unwrap();
    let id = PartnerId(partner.id);
    store::partner::suspend(&mut conn, id, "hookctl")
        .await
        .unwrap();
    for answer in [
        partner.api.get(Partner::WEBHOOKS).await,
        partner.api.get("/partners/webhooks/events").await,
        partner.api.post(Partner::WEBHOOKS, &json!({})).await,
    ] {
        let answer = answer.expect(403);
        assert_eq!(answer.code(), Some("FORBIDDEN"));
        assert!(answer.text.contains("suspended"), "{}", answer.text);
    }
    store::partner::resume(&mut conn, id, "hookctl")
        .await
        .unwrap();
    partner.api.get(Partner::WEBHOOKS).await.expect(200);
    stack.finish().await;
}

#[tokio::test]
async fn the_last_use_of_a_key_is_noted_once_a_minute() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let used = async |stack: &Stack| -> Option<String> {
        let sql = stack.database.sql().await;
        sql.value("SELECT last_used_at::text FROM api_keys").await
    };
    assert_eq!(used(&stack).await, None);
    partner.api.get(Partner::WEBHOOKS).await.expect(200);
    let first = used(&stack).await;
    assert!(first.is_some());
    partner.api.get(Partner::WEBHOOKS).await.expect(200);
    assert_eq!(used(&stack).await, first);
    let sql = stack.database.sql().await;
    sql.execute("UPDATE api_keys SET last_used_at = now() - interval '61 s'")
        .await;
    let earlier = used(&stack).await;
    partner.api.get(Partner::WEBHOOKS).await.expect(200);
    assert_ne!(used(&stack).await, earlier);
    stack.finish().await;
}
