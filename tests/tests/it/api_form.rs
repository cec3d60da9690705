//! The form that every answer has: errors, unknown addresses, other methods, the request's id.

use reqwest::Method;
use serde_json::json;
use tests::service::{Kind, metric};
use tests::{Client, Partner, Response};

use super::api_fixture::{api, raw};

#[track_caller]
fn assert_error(answer: &Response, code: &str) {
    assert_eq!(answer.code(), Some(code), "{}", answer.text);
    assert_eq!(answer.body["success"], false);
    let error = answer.body["error"].as_object().unwrap();
    let members: Vec<_> = error.keys().map(String::as_str).collect();
    assert_eq!(members, ["code", "details", "message"]);
    assert!(error["details"].is_object());
    assert!(error["message"].as_str().unwrap().ends_with('.'));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(answer.header("x-request-id").is_some());
}

#[tokio::test]
async fn an_unknown_address_is_answered_in_the_one_form_with_and_without_a_key() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    for path in [
        "",
        "/partners",
        "/partners/webhooks/",
        "/partners/webhooks/1/deliveries",
        "/partners/Webhooks",
        "/partners/webhooks/events/x",
    ] {
        for client in [&partner.api, &partner.api.with_key(None)] {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                let answer = client.send(client.request(method, path)).await.expect(404);
                assert_error(&answer, "NOT_FOUND");
            }
        }
    }
    let elsewhere = reqwest::get(stack.api_origin()).await.unwrap();
    assert_eq!(elsewhere.status(), 404);
    stack.finish().await;
}

#[tokio::test]
async fn another_method_is_told_which_ones_there_are() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let made_up = Method::from_bytes(b"FOO").unwrap();
    for (path, allow, others) in [
        (
            "/partners/webhooks",
            "GET, HEAD, POST, OPTIONS",
            [Method::PUT, Method::PATCH, Method::DELETE, made_up.clone()],
        ),
        (
            "/partners/webhooks/events",
            "GET, HEAD, OPTIONS",
            [Method::POST, Method::PATCH, Method::DELETE, made_up.clone()],
        ),
        (
            "/partners/webhooks/test",
            "POST, OPTIONS",
            [Method::GET, Method::HEAD, Method::DELETE, made_up.clone()],
        ),
        (
            "/partners/webhooks/1",
            "GET, HEAD, PATCH, DELETE, OPTIONS",
            [Method::POST, Method::PUT, Method::TRACE, made_up.clone()],
        ),
    ] {
        for method in others {
            let answer = partner
                .api
                .send(partner.api.request(method.clone(), path))
                .await
                .expect(405);
            assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
            if method != Method::HEAD {
                assert_error(&answer, "METHOD_NOT_ALLOWED");
            }
        }
        let options = partner.api.request(Method::OPTIONS, path);
        let options = partner.api.send(options).await.expect(204);
        assert_eq!(options.header("allow"), Some(allow));
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_head_is_a_get_without_the_body() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    for path in ["/partners/webhooks", "/partners/webhooks/events"] {
        let get = partner.api.get(path).await.expect(200);
        let head = partner.api.request(Method::HEAD, path);
        let head = partner.api.send(head).await.expect(200);
        assert_eq!(head.text, "");
        assert_eq!(
            head.header("content-length"),
            Some(get.text.len().to_string().as_str())
        );
        assert_eq!(head.header("content-type"), Some("application/json"));
    }
    stack.finish().await;
}

#[tokio::test]
async fn every_answer_carries_the_requests_id() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let call = async |path: &str, id: &str| {
        let request = partner.api.request(Method::GET, path);
        let answer = partner.api.send(request.header("x-request-id", id)).await;
        answer.header("x-request-id").unwrap().to_owned()
    };
    for path in ["/partners/webhooks", "/partners/webhooks/4711", "/nowhere"] {
        assert_eq!(call(path, "My_id-1").await, "My_id-1");
        for bad in ["", "two words", "a\"b", &"x".repeat(65)] {
            let id = call(path, bad).await;
            assert!(id.parse::<uuid::Uuid>().is_ok(), "{bad:?} became {id:?}");
        }
    }
    let (one, two) = (
        partner.api.get(Partner::WEBHOOKS).await,
        partner.api.get(Partner::WEBHOOKS).await,
    );
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
    stack.finish().await;
}

#[tokio::test]
async fn a_path_that_is_no_text_and_a_target_in_full_are_answered_in_the_one_form() {
    let stack = api().start().await;
    let key = stack.partner().await.key;
    for (target, expected) in [
        ("/api/v1/partners/webhooks/%ff%fe", "NOT_FOUND"),
        ("/api/v1/partners/webhooks/%00", "NOT_FOUND"),
        ("/api/v1/../v1/partners/webhooks/x", "NOT_FOUND"),
        ("*", "NOT_FOUND"),
    ] {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n");
        let answer = raw(&stack, request.as_bytes()).await;
        assert!(
            answer.contains(&format!(r#""code":"{expected}""#)),
            "{target}: {answer}"
        );
    }
    let request = format!(
        "GET http://elsewhere.example/api/v1/partners/webhooks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
    );
    let answer = raw(&stack, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stack.finish().await;
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_what_a_client_made_up() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    partner.api.get("/partners/webhooks/4711").await.expect(404);
    partner.api.get("/made/up").await.expect(404);
    partner
        .api
        .post("/partners/webhooks", &json!({}))
        .await
        .expect(422);
    Client::new(&stack.api_origin(), None)
        .get("/partners/webhooks")
        .await
        .expect(401);
    let admin = stack.services(Kind::ManagementApi).next().unwrap().admin();
    for labels in [
        r#"method="GET",route="/api/v1/partners/webhooks/{id}",status="404""#,
        r#"method="GET",route="none",status="404""#,
        r#"method="POST",route="/api/v1/partners/webhooks",status="422""#,
        r#"method="GET",route="/api/v1/partners/webhooks",status="401""#,
    ] {
        let count = metric(admin, "api_requests_total", labels).await;
        assert!((count - 1.0).abs() < 0.5, "{labels}: {count}");
    }
    let made_up = metric(admin, "api_requests_total", "made").await;
    assert!(made_up.abs() < 0.5);
    stack.finish().await;
}
