//! Events that can't be used: each kind ends as a row with a code and a sentence, and the good ones flow on.

use tests::stack::{Leftovers, new_event_id};
use tests::wait::until_equal;
use tests::{Message, Partner, Receiver, Stack};

const BYTES_MAX: usize = 256 * 1024;

/// One of each kind, with its code.
fn bad_events(partner: &Partner, stranger: &Partner) -> Vec<(&'static str, Message)> {
    let event = |event_type: &str, data: &str| {
        Message::event(&new_event_id(), event_type, partner.id, data)
    };
    let good = || event("listing.created", r#"{"listing_id":1}"#);
    let changed = |from: &str, to: &str| {
        let body = String::from_utf8(good().body).unwrap();
        assert!(body.contains(from), "{from} in {body}");
        Message {
            body: body.replacen(from, to, 1).into_bytes(),
            ..good()
        }
    };
    let with_body = |body: &[u8]| Message::raw("listing.created", body);
    let padding = "x".repeat(BYTES_MAX);
    vec![
        ("invalid_json", with_body(b"{\"id\":")),
        ("invalid_json", with_body(b"")),
        ("invalid_json", with_body(b"{\"id\":\"\xff\"}")),
        ("invalid_envelope", with_body(b"[1,2,3]")),
        (
            "invalid_envelope",
            changed("\"partner_id\":", "\"partner\":"),
        ),
        (
            "invalid_envelope",
            changed(r#""type":"listing.created""#, r#""type":7"#),
        ),
        ("invalid_id", changed("evt_", "evt!")),
        ("invalid_id", changed("\"id\"", "\"identity\"")),
        (
            "invalid_timestamp",
            changed("2026-02-26T14:20:00Z", "yesterday"),
        ),
        ("invalid_timestamp", changed("\"timestamp\"", "\"time\"")),
        ("invalid_data", event("listing.created", "[]")),
        ("unknown_type", event("listing.vanished", "{}")),
        (
            "unknown_partner",
            Message::event(&new_event_id(), "listing.created", 999_999, "{}"),
        ),
        (
            "type_mismatch",
            Message {
                routing_key: "listing.updated".to_owned(),
                ..good()
            },
        ),
        (
            "partner_mismatch",
            good().header("partner_id", &stranger.id.to_string()),
        ),
        (
            "schema_violation",
            event("listing.created", r#"{"listing_id":"one"}"#),
        ),
        (
            "too_large",
            event("listing.created", &format!(r#"{{"status":"{padding}"}}"#)),
        ),
        (
            "unsupported_content_type",
            good().content_type(Some("text/plain")),
        ),
    ]
}

#[tokio::test]
async fn each_kind_of_bad_event_ends_as_a_row_and_good_ones_flow_on() {
    let mut stack = Stack::start().await;
    let receiver = Receiver::start().await;
    let (partner, stranger) = (stack.partner().await, stack.partner().await);
    for partner in [&partner, &stranger] {
        let path = format!("/{}", partner.id);
        partner
            .create_webhook(&receiver.url(&path), &["listing.created"])
            .await;
    }
    let bad = bad_events(&partner, &stranger);
    let mut good = Vec::new();
    for (code, message) in &bad {
        let message = message.clone().header("traceparent", TRACEPARENT);
        stack
            .amqp()
            .await
            .publish(&message.header("x-kind", code))
            .await;
        good.push(stack.publish(&partner, "listing.created", "{}").await);
    }

    for id in &good {
        receiver.wait_for_delivery(id).await;
    }
    let sql = stack.database.sql().await;
    until_equal("every bad event is a row", bad.len() as i64, async || {
        sql.count("dead_letters WHERE line = 'rejected'").await
    })
    .await;
    let mut expected: Vec<_> = bad.iter().map(|(code, _)| (*code).to_owned()).collect();
    expected.sort();
    let codes: Vec<String> = sql
        .column("SELECT code FROM dead_letters ORDER BY code")
        .await;
    assert_eq!(codes, expected);
    for (code, message) in &bad {
        let found: i64 = sql
            .value_of(
                "SELECT count(*) FROM dead_letters WHERE code = $1 AND body = $2 AND reason ~ '^[A-Z].+\\.$'
                     AND routing_key = $3 AND app_id = 'tests' AND traceparent = $4",
                &[code, &message.body, &message.routing_key, &TRACEPARENT],
            )
            .await;
        assert_eq!(
            found,
            1,
            "{code}: {:#?}",
            sql.column::<String>("SELECT reason FROM dead_letters")
                .await
        );
    }
    assert_eq!(receiver.requests().len(), good.len());
    // An event is recorded after its first attempts, so a receiver may be ahead of its row.
    until_equal(
        "every good event is recorded",
        good.len() as i64,
        async || sql.count("events").await,
    )
    .await;
    // A rejected event leaves no claim, so that it may be sent again once it is mended.
    assert_eq!(sql.count("claims").await, good.len() as i64);
    stack.may_leave(Leftovers {
        rejected: true,
        ..Leftovers::default()
    });
    stack.finish().await;
}

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

#[tokio::test]
async fn an_event_at_the_size_limit_and_one_without_the_partners_header_are_delivered() {
    let stack = Stack::start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &["listing.created"])
        .await;
    let empty = Message::event(
        "evt_largest",
        "listing.created",
        partner.id,
        r#"{"status":""}"#,
    );
    let data = format!(
        r#"{{"status":"{}"}}"#,
        "x".repeat(BYTES_MAX - empty.body.len())
    );
    let largest = Message::event("evt_largest", "listing.created", partner.id, &data);
    assert_eq!(largest.body.len(), BYTES_MAX);
    let bare = Message::event("evt_bare", "listing.created", partner.id, "{}")
        .without_header("partner_id")
        .content_type(None);
    for message in [&largest, &bare] {
        stack.amqp().await.publish(message).await;
    }
    let request = receiver.wait_for_delivery("evt_largest").await;
    assert!(request.body.len() > data.len());
    receiver.wait_for_delivery("evt_bare").await;
    for id in ["evt_largest", "evt_bare"] {
        stack.until_delivery_is(id, "delivered").await;
    }
    stack.finish().await;
}
