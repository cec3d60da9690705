//! Announcements of due deliveries: however many come, and whatever they say, Postgres decides.

use std::time::Duration;

use domain::id::DeliveryId;
use serde_json::json;
use tests::service::{self, Kind};
use tests::stack::Leftovers;
use tests::wait::until_equal;
use tests::{Answer, Message, Receiver, Stack, eventually};

const EVENT_TYPE: &str = "listing.updated";

/// An announcement as the delay buckets or a sweep bring it, whose time has come as far as it says itself.
fn announcement(delivery_id: DeliveryId, turn: i32) -> Message {
    let body = json!({
        "delivery_id": delivery_id, "webhook_id": 1, "partner_id": 1, "turn": turn,
        "not_before_ms": 0, "parkings": 0, "reason": "sweep", "hops": 0,
    });
    let mut message = Message::raw(broker::topology::DUE_KEY, body.to_string());
    message.exchange = broker::Exchange::Deliveries.name().to_owned();
    message
}

async fn taken(stack: &Stack, result: &str) -> f64 {
    let dispatcher = stack.services(Kind::Dispatcher).next().unwrap();
    let name = "vellocity_dispatcher_announcements_taken_total";
    let label = format!(r#"result="{result}""#);
    service::metric(dispatcher.admin(), name, &label).await
}

/// A delivery whose first attempt has failed, and whose second is a while off.
async fn failed_once(stack: &Stack, receiver: &Receiver) -> (String, DeliveryId) {
    let partner = stack.partner().await;
    partner
        .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
        .await;
    receiver.next([Answer::status(500)]);
    let event_id = stack.publish(&partner, EVENT_TYPE, "{}").await;
    let sql = stack.database.sql().await;
    let id = eventually("the first failure is recorded", async || {
        let query = "SELECT id::text FROM deliveries WHERE status = 'pending' AND attempts = 1";
        sql.column::<String>(query).await.pop()
    })
    .await;
    (event_id, DeliveryId(id.parse().unwrap()))
}

#[tokio::test]
async fn an_announcement_that_comes_many_times_starts_one_attempt() {
    const COPIES: usize = 40;
    let stack = Stack::builder()
        .set("retry_policy.schedule_s", "600")
        .start()
        .await;
    let receiver = Receiver::start().await;
    let (event_id, id) = failed_once(&stack, &receiver).await;
    let sql = stack.database.sql().await;
    sql.execute("UPDATE deliveries SET next_attempt_at = now()")
        .await;
    let message = announcement(id, 1);
    let amqp = stack.amqp().await;
    futures_util::future::join_all((0..COPIES).map(|_| amqp.publish(&message))).await;
    stack.until_delivery_is(&event_id, "delivered").await;
    until_equal("all others are stale", (COPIES - 1) as f64, async || {
        taken(&stack, "stale").await
    })
    .await;
    assert_eq!(receiver.requests().len(), 2);
    // It also fails when one of them was taken for a reference without a row.
    stack.finish().await;
}

#[tokio::test]
async fn an_announcement_before_its_time_waits_and_one_without_a_row_is_dead() {
    let mut stack = Stack::builder()
        .set("retry_policy.schedule_s", "4")
        .start()
        .await;
    stack.may_leave(Leftovers {
        dead: true,
        ..Leftovers::default()
    });
    let receiver = Receiver::start().await;
    let (event_id, id) = failed_once(&stack, &receiver).await;
    let amqp = stack.amqp().await;
    amqp.publish(&announcement(id, 1)).await;
    amqp.publish(&announcement(id, 7)).await;
    let nowhere = DeliveryId(uuid::Uuid::now_v7());
    amqp.publish(&announcement(nowhere, 1)).await;
    until_equal(
        "each is taken for what it is",
        (1.0, 1.0, 1.0),
        async || {
            (
                taken(&stack, "early").await,
                taken(&stack, "stale").await,
                taken(&stack, "missing").await,
            )
        },
    )
    .await;
    let sql = stack.database.sql().await;
    until_equal("the dead one is a row with its reason", 1, async || {
        sql.count("dead_letters WHERE line = 'dead' AND code = 'missing'")
            .await
    })
    .await;
    stack.until_delivery_is(&event_id, "delivered").await;
    let requests = receiver.requests();
    let waited = requests[1].arrived - requests[0].arrived;
    assert!(waited >= Duration::from_millis(3500), "{waited:?}");
    assert_eq!(requests.len(), 2);
    stack.finish().await;
}
