//! Events published on the command line, and what the command says became of them.

use std::time::Duration;

use serde_json::json;
use tests::stack::Leftovers;
use tests::wait::until_equal;
use tests::{Answer, Receiver, Stack};

use super::hookctl_line::Hookctl;

const SPELLED: &str = r#"{"b":1.0,"a":12345678901234567890,"s":"\u00e9"}"#;

#[tokio::test]
async fn data_arrives_byte_for_byte_from_the_line_a_file_and_stdin() {
    let stack = Stack::builder().retries(0).start().await;
    let hookctl = Hookctl::of(&stack);
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &["listing.updated"])
        .await;
    let id = partner.id.to_string();
    let file = std::env::temp_dir().join(format!("{}.json", tests::stack::new_event_id()));
    let spaced = b" { \"x\" : [ 1 ,2 ] }\n";
    std::fs::write(&file, spaced).unwrap();
    let at_file = format!("@{}", file.display());

    for (data, stdin, sent) in [
        (SPELLED, &b""[..], SPELLED.as_bytes()),
        (&at_file, b"", b"{ \"x\" : [ 1 ,2 ] }"),
        ("@-", SPELLED.as_bytes(), SPELLED.as_bytes()),
    ] {
        let line = [
            "publish",
            "listing.updated",
            "--partner",
            &id,
            "--data",
            data,
            "--json",
        ];
        let ended = hookctl.run_with_stdin(&line, stdin).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
        let answer = ended.document();
        assert_eq!(answer["confirmed"], true);
        let event_id = answer["id"].as_str().unwrap();
        assert!(event_id.starts_with("evt_"));
        let request = receiver.wait_for_delivery(event_id).await;
        let end = [b"\"data\":", sent, b"}"].concat();
        assert!(
            request.body.ends_with(&end),
            "{}",
            String::from_utf8_lossy(&request.body)
        );
    }
    std::fs::remove_file(&file).unwrap();
    stack.finish().await;
}

#[tokio::test]
async fn waiting_tells_of_every_matched_webhook_a_duplicate_and_an_unfinished_one() {
    let stack = Stack::builder()
        .set("retry_policy.schedule_s", "1")
        .start()
        .await;
    let hookctl = Hookctl::of(&stack);
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    let good = partner
        .create_webhook(&receiver.url("/good"), &["listing.updated"])
        .await;
    let bad = partner
        .create_webhook(&receiver.url("/bad"), &["listing.updated"])
        .await;
    receiver.always_at("/bad", Answer::status(500));
    let id = partner.id.to_string();
    let line = |event: &'static str, wait: &'static str| {
        let mut line = vec![
            "publish",
            "listing.updated",
            "--partner",
            &id,
            "--data",
            "{}",
        ];
        line.extend(["--id", event, "--wait", wait]);
        line
    };

    let first = line("evt_1", "20s");
    let ended = hookctl.run(&[&["--json"], &first[..]].concat()).await;
    assert_eq!(ended.code, 4, "not all of them were delivered: {ended:?}");
    let answer = ended.document();
    assert_eq!(
        (&answer["id"], &answer["confirmed"], &answer["outcome"]),
        (&json!("evt_1"), &json!(true), &json!("finished"))
    );
    let deliveries = answer["deliveries"].as_array().unwrap();
    let result = |webhook: i64| {
        let found = deliveries
            .iter()
            .find(|d| d["webhook_id"] == webhook)
            .unwrap();
        (
            found["status"].clone(),
            found["response_code"].clone(),
            found["attempt_count"].clone(),
        )
    };
    assert_eq!(result(good.id), (json!("delivered"), json!(200), json!(1)));
    assert_eq!(result(bad.id), (json!("exhausted"), json!(500), json!(2)));

    let again = hookctl.json(&first).await;
    assert_eq!(again["outcome"], "duplicate");
    assert_eq!(again["deliveries"].as_array().unwrap().len(), 2);

    receiver.always_at("/good", Answer::ok().after(Duration::from_secs(2)));
    let ended = hookctl
        .run(&[&line("evt_2", "300ms")[..], &["--json"]].concat())
        .await;
    assert_eq!(ended.code, 4, "{ended:?}");
    assert_eq!(ended.document()["outcome"], "unfinished");
    stack.finish().await;
}

/// Partner (`us` is the test's own), type, data, id, and the code that it is rejected with.
const REJECTED: [(&str, &str, &str, &str, &str); 7] = [
    ("us", "listing.updated", "not json", "evt_2", "invalid_json"),
    ("us", "listing.updated", "[]", "evt_3", "invalid_data"),
    ("us", "listing.updated", "{}", "not an id", "invalid_id"),
    (
        "us",
        "listing.updated",
        r#"{"a":1}"#,
        "evt_1",
        "id_conflict",
    ),
    ("us", "listing.lost", "{}", "evt_4", "unknown_type"),
    ("4711", "listing.updated", "{}", "evt_5", "unknown_partner"),
    (
        "us",
        "listing.updated",
        r#"{"listing_id":"x"}"#,
        "evt_6",
        "schema_violation",
    ),
];

fn waiting_line<'a>(
    us: &'a str,
    partner: &'a str,
    event_type: &'a str,
    data: &'a str,
    id: &'a str,
) -> Vec<&'a str> {
    let partner = if partner == "us" { us } else { partner };
    let event = ["publish", event_type, "--data", data, "--id", id];
    let options = ["--json", "--wait", "20s", "--partner", partner];
    event.into_iter().chain(options).collect()
}

#[tokio::test]
async fn waiting_tells_why_an_event_was_rejected() {
    let mut stack = Stack::builder().apis(0).start().await;
    let hookctl = Hookctl::of(&stack);
    let us = stack.partner().await.id.to_string();
    let accepted = waiting_line(&us, "us", "listing.updated", "{}", "evt_1");
    assert_eq!(hookctl.run(&accepted).await.code, 0);
    for (partner, event_type, data, id, code) in REJECTED {
        let ended = hookctl
            .run(&waiting_line(&us, partner, event_type, data, id))
            .await;
        assert_eq!(ended.code, 4, "{ended:?}");
        let answer = ended.document();
        let outcome = (&answer["confirmed"], &answer["outcome"]);
        assert_eq!(outcome, (&json!(true), &json!("rejected")), "{answer}");
        assert_eq!(answer["rejection"]["code"], code, "{answer}");
        assert!(!answer["rejection"]["reason"].as_str().unwrap().is_empty());
    }
    stack.may_leave(Leftovers {
        rejected: true,
        ..Leftovers::default()
    });
    stack.finish().await;
}

#[tokio::test]
async fn deliveries_are_listed_and_shown_with_their_attempts_as_recorded() {
    let stack = Stack::builder()
        .set("retry_policy.schedule_s", "1")
        .start()
        .await;
    let hookctl = Hookctl::of(&stack);
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    let webhook = partner
        .create_webhook(&receiver.url("/"), &["listing.updated"])
        .await;
    receiver.next([Answer::status(503)
        .header("X-Reason", "busy")
        .body(b"\xff\x00")]);
    let event = stack.publish(&partner, "listing.updated", "{}").await;
    stack.until_delivery_is(&event, "delivered").await;

    let listed = hookctl
        .json(&["deliveries", "list", "--event", &event])
        .await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let delivery = listed[0]["id"].as_str().unwrap();
    assert_eq!(
        (&listed[0]["status"], &listed[0]["attempt_count"]),
        (&json!("delivered"), &json!(2))
    );
    let webhook_id = webhook.id.to_string();
    assert_eq!(
        hookctl
            .json(&["deliveries", "list", "--webhook", &webhook_id])
            .await,
        listed
    );
    assert_eq!(
        hookctl
            .json(&["deliveries", "list", "--status", "exhausted"])
            .await,
        json!([])
    );

    let shown = hookctl.json(&["deliveries", "show", delivery]).await;
    let attempts = shown["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2);
    assert_eq!(
        (&attempts[0]["response_code"], &attempts[0]["error_kind"]),
        (&json!(503), &json!("status"))
    );
    assert!(attempts[0]["error"].as_str().unwrap().contains("503"));
    assert!(
        attempts[0]["response_headers"]
            .as_str()
            .unwrap()
            .to_lowercase()
            .contains("x-reason: busy")
    );
    assert_eq!(attempts[0]["response_body_base64"], "/wA=");
    assert!(attempts[0]["times_ms"]["total"].as_f64().unwrap() > 0.0);
    assert!(
        attempts[0]["times_ms"]["connect"].as_f64().is_some(),
        "{}",
        attempts[0]
    );
    assert_eq!(
        (&attempts[1]["response_code"], &attempts[1]["error"]),
        (&json!(200), &json!(null))
    );
    let text = hookctl.run(&["deliveries", "show", delivery]).await.stdout;
    assert!(
        text.contains("attempt 1 at") && text.contains("attempt 2 at"),
        "{text}"
    );
    stack.finish().await;
}

#[tokio::test]
async fn the_status_tells_depths_services_and_what_waits() {
    let stack = Stack::start().await;
    let hookctl = Hookctl::of(&stack)
        .with("VELLOCITY_API_URL", &stack.api_origin())
        .with("VELLOCITY__RABBITMQ__SHARDS", "2");
    let services = async || {
        let status = hookctl.json(&["status"]).await;
        let mut names: Vec<_> = status["services"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|service| service["ready"] == true)
            .map(|service| service["service"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let all = ["dispatcher", "management-api", "retry"]
        .map(str::to_owned)
        .to_vec();
    until_equal("all are alive", all, services).await;
    let status = hookctl.json(&["status"]).await;
    assert_eq!(status["api_reachable"], true);
    let queues = status["queues"].as_array().unwrap();
    assert!(
        queues.iter().all(|queue| queue["ready"].is_number()),
        "{status}"
    );
    let shard = queues
        .iter()
        .find(|queue| queue["name"] == "vellocity.events.1.v1")
        .unwrap();
    assert_eq!(
        (&shard["ready"], &shard["consumers"]),
        (&json!(0), &json!(1))
    );
    assert!(status["oldest_waiting_s"].is_null());

    let broken = hookctl
        .clone()
        .with("VELLOCITY_AMQP_URL", "amqp://127.0.0.1:1")
        .run(&["status", "--json"])
        .await;
    assert_eq!(broken.code, 69);
    assert!(broken.document()["rabbitmq_error"].is_string());
    assert!(broken.document()["services"].is_array());
    stack.finish().await;
}
