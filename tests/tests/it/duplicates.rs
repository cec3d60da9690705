//! The same event again: within 24 hours it is not sent again, and an id with other content is rejected.

use tests::service::Kind;
use tests::stack::Leftovers;
use tests::wait::until_equal;
use tests::{Message, Receiver, Stack, eventually, service};

#[tokio::test]
async fn an_event_that_was_recorded_is_not_sent_again_whoever_takes_it() {
    let stack = Stack::builder().dispatchers(2).start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &["cosell.updated"])
        .await;
    let event = |timestamp: &str, data: &str| {
        Message::event_at("evt_same", "cosell.updated", partner.id, timestamp, data)
    };
    let amqp = stack.amqp().await;
    amqp.publish(&event("2026-02-26T14:20:00Z", r#"{"a":1,"b":2.0}"#))
        .await;
    receiver.wait_for_delivery("evt_same").await;
    stack.until_delivery_is("evt_same", "delivered").await;

    const COPIES: usize = 10;
    for _ in 0..COPIES {
        // Neither the time nor the order of members is content.
        amqp.publish(&event("2027-01-01T00:00:00Z", r#"{ "b" : 2.0, "a" : 1 }"#))
            .await;
    }
    eventually("all copies are counted as duplicates", async || {
        let mut counted = 0.0;
        for dispatcher in stack.services(Kind::Dispatcher) {
            counted += service::metric(
                dispatcher.admin(),
                "vellocity_dispatcher_events_total",
                r#"result="duplicate""#,
            )
            .await;
        }
        (counted >= COPIES as f64).then_some(())
    })
    .await;
    let later = stack.publish(&partner, "cosell.updated", "{}").await;
    receiver.wait_for_delivery(&later).await;
    stack.until_delivery_is(&later, "delivered").await;
    assert_eq!(receiver.requests().len(), 2);
    let sql = stack.database.sql().await;
    assert_eq!(
        (sql.count("events").await, sql.count("deliveries").await),
        (2, 2)
    );
    stack.finish().await;
}

#[tokio::test]
async fn an_id_with_other_content_is_rejected_and_the_first_stays_as_it_was() {
    let mut stack = Stack::start().await;
    let receiver = Receiver::start().await;
    let (partner, other) = (stack.partner().await, stack.partner().await);
    for partner in [&partner, &other] {
        let path = format!("/{}", partner.id);
        let types = ["cosell.updated", "cosell.created"];
        partner.create_webhook(&receiver.url(&path), &types).await;
    }
    stack
        .publish_as("evt_1", &partner, "cosell.updated", r#"{"a":1.0}"#)
        .await;
    receiver.wait_for_delivery("evt_1").await;
    stack.until_delivery_is("evt_1", "delivered").await;

    // Other data, data that is spelled otherwise, and another type.
    stack
        .publish_as("evt_1", &partner, "cosell.updated", r#"{"a":2.0}"#)
        .await;
    stack
        .publish_as("evt_1", &partner, "cosell.updated", r#"{"a":1}"#)
        .await;
    stack
        .publish_as("evt_1", &partner, "cosell.created", r#"{"a":1.0}"#)
        .await;
    // Another partner's ids are its own.
    stack
        .publish_as("evt_1", &other, "cosell.created", "{}")
        .await;
    let path = format!("/{}", other.id);
    receiver.wait_for_at(&path, 1).await;
    let sql = stack.database.sql().await;
    until_equal("three are rejected", 3, async || {
        sql.count("dead_letters WHERE code = 'id_conflict' AND event_id = 'evt_1'")
            .await
    })
    .await;
    let later = stack.publish(&partner, "cosell.updated", "{}").await;
    receiver.wait_for_delivery(&later).await;
    stack.until_delivery_is(&later, "delivered").await;
    assert_eq!(receiver.requests_at(&format!("/{}", partner.id)).len(), 2);
    stack.may_leave(Leftovers {
        rejected: true,
        ..Leftovers::default()
    });
    stack.finish().await;
}
