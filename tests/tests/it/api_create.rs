//! `POST /partners/webhooks`: what is answered, what is stored, and what is refused without storing anything.

use reqwest::Method;
use serde_json::{Value, json};
use tests::Partner;

use super::api_fixture::{URL, api, assert_nothing_stored, faults, raw};

#[tokio::test]
async fn a_new_webhook_is_answered_as_the_page_prints_it() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let body = json!({"url": URL, "events": ["listing.updated", "cosell.created"]});
    let created = partner.api.post(Partner::WEBHOOKS, &body).await.expect(201);
    let (id, secret) = (
        &created.body["data"]["id"],
        created.body["meta"]["secret"].as_str().unwrap(),
    );
    assert!(id.as_i64().unwrap() > 0);
    assert_eq!(secret.len(), 64);
    assert!(
        secret
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    );
    assert_eq!(
        created.text,
        format!(
            concat!(
                r#"{{"data":{{"type":"webhook","id":{},"attributes":{{"url":"{}","#,
                r#""events":["listing.updated","cosell.created"],"active":true}}}},"#,
                r#""meta":{{"secret":"{}","warning":"Store this secret securely. It will not be shown again."}}}}"#
            ),
            id, URL, secret
        )
    );
    assert_eq!(created.header("content-type"), Some("application/json"));
    assert_eq!(created.header("cache-control"), Some("no-store"));
    assert_eq!(created.header("x-content-type-options"), Some("nosniff"));
    stack.finish().await;
}

#[tokio::test]
async fn a_secret_is_shown_once_and_never_the_same_and_lies_sealed_in_the_database() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let one = partner.create_webhook(URL, &["listing.updated"]).await;
    let other = partner.create_webhook(URL, &["listing.updated"]).await;
    assert_ne!(one.secret, other.secret);
    assert_ne!(one.id, other.id, "the same URL twice is allowed");
    for path in [Partner::WEBHOOKS.to_owned(), Partner::webhook_path(one.id)] {
        let answer = partner.api.get(&path).await.expect(200);
        assert!(!answer.text.contains("secret"), "{}", answer.text);
    }
    let sql = stack.database.sql().await;
    for table in ["webhooks", "webhook_versions", "outbox"] {
        let rows: Vec<String> = sql.column(&format!("SELECT t::text FROM {table} t")).await;
        // As Postgres prints bytes.
        let hex = hex::encode(&one.secret);
        for row in rows {
            assert!(!row.contains(&one.secret) && !row.contains(&hex), "{table}");
        }
    }
    stack.finish().await;
}

#[tokio::test]
async fn description_and_active_may_be_left_out_or_given() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let events = ["listing.updated"];
    let cases = [
        (json!({}), Value::Null, true),
        (json!({"description": null}), Value::Null, true),
        (
            json!({"description": "é".repeat(255), "active": false}),
            json!("é".repeat(255)),
            false,
        ),
        (json!({"description": "", "active": true}), json!(""), true),
    ];
    for (more, description, active) in cases {
        let mut body = json!({"url": URL, "events": events});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let webhook = partner.create_webhook_from(&body).await;
        let shown = partner.show_webhook(&webhook).await;
        assert_eq!(shown["description"], description, "{more}");
        assert_eq!(shown["active"], active, "{more}");
    }
    stack.finish().await;
}

/// Body, field, and what its first message says.
fn bad_bodies() -> Vec<(Value, &'static str, &'static str)> {
    let url = |url: Value| json!({"url": url, "events": ["listing.updated"]});
    let events = |events: Value| json!({"url": URL, "events": events});
    let with = |name: &str, value: Value| {
        let mut body = json!({"url": URL, "events": ["listing.updated"]});
        body[name] = value;
        body
    };
    let long = format!("https://1.1.1.1/{}", "x".repeat(2048 - 15));
    let many: Vec<String> = (0..51).map(|n| format!("listing.n{n}")).collect();
    vec![
        (json!({"events": ["listing.updated"]}), "url", "is required"),
        (url(Value::Null), "url", "must be a string"),
        (url(json!(7)), "url", "must be a string"),
        (url(json!("")), "url", "absolute URL"),
        (url(json!("example.com/hook")), "url", "absolute URL"),
        (url(json!("https://")), "url", "absolute URL"),
        (url(json!(long)), "url", "longer than 2048 characters"),
        (url(json!("ftp://1.1.1.1/")), "url", "must begin with"),
        (url(json!("https://me@1.1.1.1/")), "url", "user name"),
        (url(json!("https://me:pw@1.1.1.1/")), "url", "password"),
        (url(json!("https://1.1.1.1:22/")), "url", "port 22"),
        (url(json!("https://1.1.1.1:1023/")), "url", "port 1023"),
        (json!({"url": URL}), "events", "is required"),
        (events(Value::Null), "events", "list of strings"),
        (
            events(json!("listing.updated")),
            "events",
            "list of strings",
        ),
        (events(json!([1])), "events", "list of strings"),
        (events(json!([])), "events", "at least one"),
        (events(json!(many)), "events", "more than 50"),
        (
            events(json!(["no.such"])),
            "events",
            "no.such is not a known event type",
        ),
        (events(json!(["not a type"])), "events", "not an event type"),
        (
            events(json!(["listing.updated", "listing.updated"])),
            "events",
            "more than once",
        ),
        (
            with("description", json!("x".repeat(256))),
            "description",
            "longer than 255",
        ),
        (
            with("description", json!(1)),
            "description",
            "string or null",
        ),
        (
            with("description", json!("a\u{0}b")),
            "description",
            "U+0000",
        ),
        (with("active", json!("true")), "active", "true or false"),
        (with("active", Value::Null), "active", "true or false"),
        (with("active", json!(1)), "active", "true or false"),
        (with("secret", json!("mine")), "secret", "not a known field"),
    ]
}

#[tokio::test]
async fn each_fault_of_a_body_has_its_own_words_and_nothing_is_stored() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    for (body, field, words) in bad_bodies() {
        let refused = partner.api.post(Partner::WEBHOOKS, &body).await;
        let told = faults(refused, field);
        assert!(told[0].contains(words), "{body}: {told:?}");
    }
    assert_nothing_stored(&stack).await;
    stack.finish().await;
}

#[tokio::test]
async fn all_faults_of_a_body_are_told_at_once() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let body = json!({
        "url": "ftp://x", "events": ["no.such", "listing.updated", "nor.this"], "description": 1, "active": "x", "more": 1
    });
    let refused = partner.api.post(Partner::WEBHOOKS, &body).await.expect(422);
    let details = refused.body["error"]["details"].as_object().unwrap();
    let fields: Vec<_> = details.keys().map(String::as_str).collect();
    assert_eq!(fields, ["active", "description", "events", "more", "url"]);
    assert_eq!(details["events"].as_array().unwrap().len(), 2);
    assert_nothing_stored(&stack).await;
    stack.finish().await;
}

#[tokio::test]
async fn what_is_no_json_object_is_refused_in_the_one_form() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let good = json!({"url": URL, "events": ["listing.updated"]}).to_string();
    let twice = format!(r#"{{"url":"{URL}","url":"{URL}","events":["listing.updated"]}}"#);
    let bodies: [&[u8]; 10] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\"x\"",
        b"7",
        b"{\"url\":\"\xff\"}",
        b"url=x",
        format!("{good}{good}").leak().as_bytes(),
        twice.leak().as_bytes(),
    ];
    for body in bodies {
        let request = partner
            .api
            .request(Method::POST, Partner::WEBHOOKS)
            .header("content-type", "application/json")
            .body(body);
        faults(partner.api.send(request).await, "body");
    }
    assert_nothing_stored(&stack).await;
    stack.finish().await;
}

#[tokio::test]
async fn only_json_is_taken_and_at_most_64_kib_of_it() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let good = json!({"url": URL, "events": ["listing.updated"]}).to_string();
    let post = || partner.api.request(Method::POST, Partner::WEBHOOKS);
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json-seq",
    ] {
        let request = post()
            .header("content-type", content_type)
            .body(good.clone());
        let refused = partner.api.send(request).await.expect(415);
        assert_eq!(
            refused.code(),
            Some("UNSUPPORTED_MEDIA_TYPE"),
            "{content_type}"
        );
    }
    let untyped = partner
        .api
        .send(post().body(good.clone()))
        .await
        .expect(415);
    assert_eq!(untyped.code(), Some("UNSUPPORTED_MEDIA_TYPE"));

    for size in [64 * 1024 + 1, 3_000_000] {
        let padded = format!("{good}{}", " ".repeat(size - good.len()));
        let whole = post()
            .header("content-type", "application/json")
            .body(padded.clone());
        let refused = partner.api.send(whole).await.expect(413);
        assert_eq!(refused.code(), Some("PAYLOAD_TOO_LARGE"));
        let chunked = format!(
            "POST /api/v1/partners/webhooks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{padded}\r\n0\r\n\r\n",
            partner.key
        );
        let refused = raw(&stack, chunked.as_bytes()).await;
        assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
        assert!(
            refused.contains(r#""code":"PAYLOAD_TOO_LARGE""#),
            "{refused}"
        );
    }
    assert_nothing_stored(&stack).await;

    let padded = format!("{good}{}", " ".repeat(64 * 1024 - good.len()));
    let largest = post()
        .header("content-type", "Application/JSON; charset=UTF-8")
        .body(padded);
    partner.api.send(largest).await.expect(201);
    stack.finish().await;
}
