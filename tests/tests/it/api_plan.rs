//! How many webhooks a plan allows, also to requests that come at once.

use domain::id::PartnerId;
use domain::plan::Plan;
use futures_util::future::join_all;
use serde_json::json;
use tests::Partner;

use super::api_fixture::{URL, api};

#[tokio::test]
async fn a_plan_allows_so_many_webhooks_and_no_more() {
    let stack = api().start().await;
    let body = json!({"url": URL, "events": ["listing.updated"]});
    for (plan, allowed) in [
        (Plan::Starter, 2),
        (Plan::Accelerate, 5),
        (Plan::CommandPlus, 20),
    ] {
        let partner = stack.partner_with(plan).await;
        for _ in 0..allowed {
            partner.create_webhook(URL, &["listing.updated"]).await;
        }
        let refused = partner.api.post(Partner::WEBHOOKS, &body).await.expect(403);
        assert_eq!(refused.code(), Some("PLAN_LIMIT_REACHED"), "{plan}");
        let told = refused.body["error"]["message"].as_str().unwrap();
        assert!(told.contains(&allowed.to_string()), "{told}");
    }
    stack.finish().await;
}

#[tokio::test]
async fn deactivated_webhooks_count_and_deleted_ones_do_not() {
    let stack = api().start().await;
    let partner = stack.partner_with(Plan::Starter).await;
    let one = partner.create_webhook(URL, &["listing.updated"]).await;
    partner.create_webhook(URL, &["listing.updated"]).await;
    partner
        .update_webhook(&one, &json!({"active": false}))
        .await;
    let body = json!({"url": URL, "events": ["listing.updated"]});
    partner.api.post(Partner::WEBHOOKS, &body).await.expect(403);
    partner.delete_webhook(&one).await;
    partner.api.post(Partner::WEBHOOKS, &body).await.expect(201);
    stack.finish().await;
}

#[tokio::test]
async fn requests_at_once_never_pass_the_limit_together() {
    let stack = api().apis(2).start().await;
    let partner = stack.partner_with(Plan::Accelerate).await;
    let origins: Vec<String> = stack
        .services(tests::service::Kind::ManagementApi)
        .map(|service| format!("http://{}", service.api()))
        .collect();
    let body = json!({"url": URL, "events": ["listing.updated"]});
    let answers = join_all((0..24).map(|n| {
        let client = tests::Client::new(&origins[n % 2], Some(&partner.key));
        let body = body.clone();
        async move { client.post(Partner::WEBHOOKS, &body).await.status }
    }))
    .await;
    let count = |status| answers.iter().filter(|it| **it == status).count();
    assert_eq!((count(201), count(403)), (5, 19), "{answers:?}");
    let sql = stack.database.sql().await;
    assert_eq!(sql.count("webhooks").await, 5);
    stack.finish().await;
}

#[tokio::test]
async fn a_smaller_plan_stops_only_new_webhooks() {
    let stack = api().start().await;
    let partner = stack.partner_with(Plan::Accelerate).await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(partner.create_webhook(URL, &["listing.updated"]).await);
    }
    let mut conn = stack.database.store().get().await.unwrap();
    let id = PartnerId(partner.id);
    store::partner::set_plan(&mut conn, id, Plan::Starter)
        .await
        .unwrap();
    let body = json!({"url": URL, "events": ["listing.updated"]});
    partner.api.post(Partner::WEBHOOKS, &body).await.expect(403);
    for webhook in &made {
        let changed = partner
            .update_webhook(webhook, &json!({"description": "still here"}))
            .await;
        assert_eq!(changed["active"], true);
    }
    stack.finish().await;
}
