//! What a published event becomes: the request that each webhook gets, to the byte, and who gets none.

use std::time::Duration;

use serde_json::json;
use tests::service::Kind;
use tests::{Message, Receiver, Stack, signature, wait};

/// The data of design's example: key order, the spelling of numbers and the escape must survive.
const SPELLED: &str = r#"{"b":1.0,"a":12345678901234567890,"s":"\u00e9"}"#;

#[tokio::test]
async fn a_delivery_is_the_pages_request_header_for_header_and_byte_for_byte() {
    let stack = Stack::start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    let url = receiver.url("/webhooks/vellocity?source=test");
    let webhook = partner.create_webhook(&url, &["listing.updated"]).await;
    let id = "evt_abc123";
    let message = Message::event_at(
        id,
        "listing.updated",
        partner.id,
        "2026-02-26T15:20:00.75+01:00",
        SPELLED,
    );
    stack.amqp().await.publish(&message).await;

    let request = receiver.wait_for_delivery(id).await;
    assert_eq!(request.method, "POST");
    assert_eq!(request.path, "/webhooks/vellocity?source=test");
    let body = format!(
        r#"{{"id":"evt_abc123","type":"listing.updated","timestamp":"2026-02-26T14:20:00Z","data":{SPELLED}}}"#
    );
    assert_eq!(String::from_utf8_lossy(&request.body), body);
    for (name, value) in [
        ("Content-Type", "application/json"),
        ("User-Agent", "Vellocity-Webhooks/1.0"),
        ("X-Vellocity-Event", "listing.updated"),
        ("X-Vellocity-Delivery", id),
        ("webhook-id", id),
        ("Host", &receiver.address().to_string()),
        ("Content-Length", &body.len().to_string()),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}: {request:?}");
    }
    signature::verify(&request, &webhook.secret).unwrap();
    assert_nothing_unexpected_is_sent(&request);
    stack.finish().await;
}

/// The page's and the Standard Webhooks headers, what HTTP needs, and nothing that would tell of our insides.
fn assert_nothing_unexpected_is_sent(request: &tests::receiver::Request) {
    let expected = [
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
        "x-vellocity-delivery",
        "x-vellocity-event",
        "x-vellocity-signature",
    ];
    let mut sent: Vec<_> = request
        .headers
        .iter()
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    sent.sort();
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn an_event_reaches_every_active_matching_webhook_and_no_other() {
    let stack = Stack::start().await;
    let receiver = Receiver::start().await;
    let (partner, stranger) = (stack.partner().await, stack.partner().await);
    let types = ["listing.updated"];
    let at = |path: &str| receiver.url(path);
    let one = partner.create_webhook(&at("/one"), &types).await;
    let two = partner
        .create_webhook(&at("/two"), &["cosell.created", "listing.updated"])
        .await;
    partner
        .create_webhook(&at("/other-type"), &["listing.created"])
        .await;
    stranger.create_webhook(&at("/stranger"), &types).await;
    let inactive = json!({"url": at("/inactive"), "events": types, "active": false});
    partner.create_webhook_from(&inactive).await;
    let deleted = partner.create_webhook(&at("/deleted"), &types).await;
    partner.delete_webhook(&deleted).await;
    let stopped = partner.create_webhook(&at("/stopped"), &types).await;
    partner
        .update_webhook(&stopped, &json!({"active": false}))
        .await;

    let first = stack.publish(&partner, "listing.updated", "{}").await;
    // A later event of the same partner, which shares the first one's lane: once both webhooks have it, whatever the
    // first was to send has been sent.
    let second = stack.publish(&partner, "listing.updated", "{}").await;
    for (path, webhook) in [("/one", &one), ("/two", &two)] {
        let requests = receiver.wait_for_at(path, 2).await;
        let mut ids: Vec<_> = requests.iter().map(|request| request.delivery()).collect();
        ids.sort();
        assert_eq!(ids, [first.as_str(), second.as_str()]);
        for request in &requests {
            signature::verify(request, &webhook.secret).unwrap();
        }
    }
    stack.until_delivery_is(&first, "delivered").await;
    stack.until_delivery_is(&second, "delivered").await;
    assert_eq!(receiver.requests().len(), 4, "{:#?}", receiver.requests());
    let sql = stack.database.sql().await;
    assert_eq!(sql.count("deliveries").await, 4);
    stack.finish().await;
}

#[tokio::test]
async fn a_new_webhook_gets_events_and_a_deleted_one_none_on_every_dispatcher() {
    let mut stack = Stack::builder().dispatchers(2).start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    let events = ["cosell.created"];
    // Both dispatchers have the partner in their caches before anything changes.
    let old = partner.create_webhook(&receiver.url("/old"), &events).await;
    for _ in 0..20 {
        stack.publish(&partner, "cosell.created", "{}").await;
    }
    receiver.wait_for_at("/old", 20).await;

    partner.create_webhook(&receiver.url("/new"), &events).await;
    partner.delete_webhook(&old).await;
    // Within that time a change counts on every dispatcher.
    wait::let_pass(Duration::from_secs(1)).await;
    // Each dispatcher alone: the one that is stopped takes nothing any more.
    let one = stack.take(Kind::Dispatcher);
    let id = stack.publish(&partner, "cosell.created", "{}").await;
    receiver.wait_for_delivery(&id).await;
    one.stop().await;
    let id = stack.publish(&partner, "cosell.created", "{}").await;
    receiver.wait_for_delivery(&id).await;
    stack.until_delivery_is(&id, "delivered").await;
    assert_eq!(receiver.requests_at("/old").len(), 20);
    assert_eq!(receiver.requests_at("/new").len(), 2);
    stack.finish().await;
}
