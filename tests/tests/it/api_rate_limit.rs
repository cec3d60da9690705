//! How many requests a minute: by partner and plan with a valid key, by address without one.

use domain::plan::Plan;
use reqwest::Method;
use serde_json::json;
use tests::service::{Kind, metric};
use tests::{Client, Partner, Response, Stack};

use super::api_fixture::{URL, api};

fn number(answer: &Response, header: &str) -> i64 {
    let text = answer
        .header(header)
        .unwrap_or_else(|| panic!("{header}: {answer:?}"));
    text.parse().unwrap()
}

/// As if the partner had made so many requests in a window that began so long ago.
async fn pretend(stack: &Stack, subject: &str, requests: i32, age_s: f64) {
    let sql = stack.database.sql().await;
    let statement = "INSERT INTO rate_limits VALUES ($1, now() - make_interval(secs => $3), $2)
         ON CONFLICT (subject) DO UPDATE
         SET requests = excluded.requests, window_started_at = excluded.window_started_at";
    sql.run(statement, &[&subject, &requests, &age_s]).await;
}

#[tokio::test]
async fn every_answer_to_a_valid_key_tells_the_limit_and_what_is_left() {
    let stack = api().start().await;
    let partner = stack.partner_with(Plan::Starter).await;
    let post = async |body| partner.api.post(Partner::WEBHOOKS, body).await;
    let put = partner.api.request(Method::PUT, Partner::WEBHOOKS);
    let answers = [
        partner.api.get(Partner::WEBHOOKS).await.expect(200),
        post(&json!({"url": URL, "events": ["listing.updated"]}))
            .await
            .expect(201),
        post(&json!({})).await.expect(422),
        partner.api.get("/partners/webhooks/4711").await.expect(404),
        partner.api.get("/nowhere").await.expect(404),
        partner.api.send(put).await.expect(405),
    ];
    let reset = number(&answers[0], "x-ratelimit-reset");
    let now = chrono::Utc::now().timestamp();
    assert!((now + 50..=now + 62).contains(&reset), "{reset} at {now}");
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(number(answer, "x-ratelimit-limit"), 60);
        assert_eq!(number(answer, "x-ratelimit-remaining"), 59 - n as i64);
        assert_eq!(number(answer, "x-ratelimit-reset"), reset);
    }
    stack.finish().await;
}

#[tokio::test]
async fn each_plan_has_its_limit_and_the_request_after_it_waits() {
    let stack = api().start().await;
    for (plan, limit) in [
        (Plan::Starter, 60),
        (Plan::Accelerate, 300),
        (Plan::CommandPlus, 600),
        (Plan::Enterprise, 1000),
    ] {
        let partner = stack.partner_with(plan).await;
        let subject = format!("partner:{}", partner.id);
        pretend(&stack, &subject, limit - 1, 10.0).await;
        let last = partner.api.get(Partner::WEBHOOKS).await.expect(200);
        assert_eq!(number(&last, "x-ratelimit-remaining"), 0);
        for _ in 0..2 {
            let refused = partner.api.get(Partner::WEBHOOKS).await.expect(429);
            assert_eq!(refused.code(), Some("RATE_LIMITED"));
            assert_eq!(number(&refused, "x-ratelimit-limit"), i64::from(limit));
            assert_eq!(number(&refused, "x-ratelimit-remaining"), 0);
            let wait = number(&refused, "retry-after");
            assert!((1..=50).contains(&wait), "{wait}");
        }
        let refused = partner.api.get("/nowhere").await;
        refused.expect(429);

        pretend(&stack, &subject, limit + 1, 61.0).await;
        let fresh = partner.api.get(Partner::WEBHOOKS).await.expect(200);
        assert_eq!(
            number(&fresh, "x-ratelimit-remaining"),
            i64::from(limit) - 1
        );
    }
    let admin = stack.services(Kind::ManagementApi).next().unwrap().admin();
    let refused = metric(admin, "api_rate_limited_total", r#"by="partner""#).await;
    assert!((refused - 12.0).abs() < 0.5, "{refused}");
    stack.finish().await;
}

#[tokio::test]
async fn nothing_is_done_for_a_request_beyond_the_limit() {
    let stack = api().start().await;
    let partner = stack.partner_with(Plan::Starter).await;
    pretend(&stack, &format!("partner:{}", partner.id), 60, 0.0).await;
    let body = json!({"url": URL, "events": ["listing.updated"]});
    partner.api.post(Partner::WEBHOOKS, &body).await.expect(429);
    super::api_fixture::assert_nothing_stored(&stack).await;
    stack.finish().await;
}

#[tokio::test]
async fn all_api_processes_and_all_keys_of_a_partner_share_one_count() {
    let stack = api().apis(2).start().await;
    let (partner, other) = (stack.partner().await, stack.partner().await);
    let origins: Vec<String> = stack
        .services(Kind::ManagementApi)
        .map(|service| format!("http://{}", service.api()))
        .collect();
    let id = domain::id::PartnerId(partner.id);
    let scopes = [store::api_key::Scope::Read];
    let second = tests::partner::new_key(&stack.database.store(), id, &scopes).await;
    let mut left = Vec::new();
    for origin in &origins {
        for key in [&partner.key, &second] {
            let answer = Client::new(origin, Some(key)).get(Partner::WEBHOOKS).await;
            left.push(number(&answer, "x-ratelimit-remaining"));
        }
    }
    assert_eq!(left, [999, 998, 997, 996]);
    let others = other.api.get(Partner::WEBHOOKS).await;
    assert_eq!(number(&others, "x-ratelimit-remaining"), 999);
    stack.finish().await;
}

#[tokio::test]
async fn without_a_valid_key_requests_are_counted_by_address() {
    let stack = api()
        .set("api.address_requests_per_minute", "4")
        .start()
        .await;
    let partner = stack.partner().await;
    let nobody = partner.api.with_key(None);
    let stranger = domain::api_key::ApiKey::from_random([1; 32]);
    let stranger = partner.api.with_key(Some(stranger.reveal()));
    nobody.get(Partner::WEBHOOKS).await.expect(401);
    stranger.get(Partner::WEBHOOKS).await.expect(401);
    partner
        .api
        .with_key(Some("nonsense"))
        .get(Partner::WEBHOOKS)
        .await
        .expect(401);
    nobody.get("/nowhere").await.expect(404);
    for client in [&nobody, &stranger] {
        for path in [Partner::WEBHOOKS, "/nowhere"] {
            let refused = client.get(path).await.expect(429);
            assert_eq!(refused.code(), Some("RATE_LIMITED"));
            assert!(number(&refused, "retry-after") >= 1);
            assert_eq!(refused.header("x-ratelimit-limit"), None);
        }
    }
    partner.api.get(Partner::WEBHOOKS).await.expect(200);
    stack.finish().await;
}

#[tokio::test]
async fn a_forwarded_address_is_believed_from_a_trusted_proxy_alone() {
    let from = async |stack: &Stack, address: &str| {
        let nobody = Client::new(&stack.api_origin(), None);
        let request = nobody.request(Method::GET, Partner::WEBHOOKS);
        nobody
            .send(request.header("x-forwarded-for", address))
            .await
            .status
    };
    let limited = || api().set("api.address_requests_per_minute", "1");
    let behind = limited()
        .set("api.trusted_proxies", "127.0.0.0/8")
        .start()
        .await;
    assert_eq!(from(&behind, "1.1.1.1").await, 401);
    assert_eq!(from(&behind, "9.9.9.9, 1.1.1.1").await, 429);
    assert_eq!(from(&behind, "1.1.1.2").await, 401);
    behind.finish().await;

    let open = limited().start().await;
    assert_eq!(from(&open, "1.1.1.1").await, 401);
    assert_eq!(from(&open, "1.1.1.2").await, 429);
    open.finish().await;
}
