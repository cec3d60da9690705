//! What a dispatcher knows of webhooks: changes count as soon as they are announced, and what it can't use waits.

use std::time::Duration;

use domain::id::PartnerId;
use tests::service::Kind;
use tests::wait::within;
use tests::{Partner, Receiver, Stack, eventually};

const EVENT_TYPE: &str = "listing.updated";
/// Far below the 30 s after which the cache would find out by itself.
const SOON: Duration = Duration::from_secs(10);

/// Publishes an event and returns its id with the number of webhooks that it matched, once it is recorded.
async fn matched(stack: &Stack, partner: &Partner) -> (String, i64) {
    let id = stack.publish(partner, EVENT_TYPE, "{}").await;
    let sql = stack.database.sql().await;
    let count = eventually("the event is recorded", async || {
        let query = "SELECT (SELECT count(*) FROM deliveries AS d WHERE d.event_id = e.event_id) \
             FROM events AS e WHERE event_id = $1";
        let rows = sql.rows(query, &[&id]).await;
        rows.first().map(|row| row.get(0))
    })
    .await;
    (id, count)
}

/// Publishes until an event matches so many webhooks, and returns its id.
async fn until_matched(what: &str, stack: &Stack, partner: &Partner, webhooks: i64) -> String {
    within(SOON, what, async || {
        let (id, count) = matched(stack, partner).await;
        (count == webhooks).then_some(id)
    })
    .await
}

#[tokio::test]
async fn a_suspended_partner_matches_nothing_until_it_is_resumed() {
    let stack = Stack::start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
        .await;
    let id = until_matched("the webhook counts", &stack, &partner, 1).await;
    stack.until_delivery_is(&id, "delivered").await;
    let store = stack.database.store();
    let mut conn = store.get().await.unwrap();
    let partner_id = PartnerId(partner.id);
    store::partner::suspend(&mut conn, partner_id, "hookctl")
        .await
        .unwrap();
    let quiet = until_matched("the suspension counts", &stack, &partner, 0).await;
    store::partner::resume(&mut conn, partner_id, "hookctl")
        .await
        .unwrap();
    let loud = until_matched("the end of the suspension counts", &stack, &partner, 1).await;
    receiver.wait_for_delivery(&loud).await;
    let of_quiet = receiver
        .requests()
        .iter()
        .any(|request| request.delivery() == quiet);
    assert!(!of_quiet);
    stack.until_delivery_is(&loud, "delivered").await;
    stack.finish().await;
}

#[tokio::test]
async fn a_change_counts_on_every_dispatcher_as_soon_as_it_is_announced() {
    let stack = Stack::builder().dispatchers(2).start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    // Both know the partner by now, and that it has no webhook.
    for _ in 0..10 {
        assert_eq!(matched(&stack, &partner).await.1, 0);
    }
    partner
        .create_webhook(&receiver.url("/a"), &[EVENT_TYPE])
        .await;
    until_matched("the first webhook counts", &stack, &partner, 1).await;
    let second = partner
        .create_webhook(&receiver.url("/b"), &[EVENT_TYPE])
        .await;
    until_matched("the second webhook counts", &stack, &partner, 2).await;
    partner.delete_webhook(&second).await;
    until_matched("its end counts", &stack, &partner, 1).await;
    within(SOON, "it counts for both dispatchers", async || {
        for _ in 0..10 {
            if matched(&stack, &partner).await.1 != 1 {
                return None;
            }
        }
        Some(())
    })
    .await;
    stack.finish().await;
}

#[tokio::test]
async fn a_webhook_whose_secret_cant_be_read_loses_nothing() {
    let mut stack = Stack::builder().dispatchers(0).start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
        .await;
    stack.set("secrets.keys.other", &"ab".repeat(32));
    stack.set("secrets.active_key", "other");
    let with_both = stack.settings().clone();
    let without = {
        let mut settings = with_both.clone();
        settings.remove("secrets.keys.test");
        settings
    };
    let blind = tests::Service::start(Kind::Dispatcher, &without).await;
    blind.until_ready().await;
    let (id, count) = matched(&stack, &partner).await;
    assert_eq!(count, 1);
    let sql = stack.database.sql().await;
    let waits =
        "deliveries WHERE park_reason = 'unreadable' AND attempts = 0 AND status = 'pending'";
    eventually("the delivery waits", async || {
        (sql.count(waits).await == 1).then_some(())
    })
    .await;
    eventually("it is put off again when its time comes", async || {
        (sql.count("deliveries WHERE parkings >= 2 AND attempts = 0")
            .await
            == 1)
            .then_some(())
    })
    .await;
    blind.stop().await;
    assert!(receiver.requests().is_empty());
    // The key is back.
    let seeing = tests::Service::start(Kind::Dispatcher, &with_both).await;
    receiver.wait_for_delivery(&id).await;
    stack.until_delivery_is(&id, "delivered").await;
    seeing.stop().await;
    stack.finish().await;
}
