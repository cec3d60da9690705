//! A dispatcher that is killed between a delivery and its acknowledgement: the event is delivered again under the same
//! id, and recorded once.

use tests::service::Kind;
use tests::{Receiver, Stack, eventually, signature};

#[tokio::test]
async fn a_dispatcher_killed_before_it_could_record_costs_a_duplicate_and_no_event() {
    let mut stack = Stack::builder().dispatchers(0).start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    let webhook = partner
        .create_webhook(&receiver.url("/"), &["listing.created"])
        .await;
    let mut doomed = stack.process(Kind::Dispatcher).await;
    // It can claim and send, but `record` waits: the delivery is made and neither recorded nor acknowledged.
    let sql = stack.database.sql().await;
    sql.execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        .await;
    let id = stack
        .publish(&partner, "listing.created", r#"{"listing_id":1}"#)
        .await;
    receiver.wait_for_delivery(&id).await;
    doomed.kill();
    sql.execute("COMMIT").await;
    assert_eq!(sql.count("events").await, 0);

    stack.add(Kind::Dispatcher).await;
    stack.until_delivery_is(&id, "delivered").await;
    let requests = receiver.wait_for(2).await;
    for request in &requests {
        assert_eq!(request.delivery(), id);
        assert_eq!(request.body, requests[0].body);
        signature::verify(request, &webhook.secret).unwrap();
    }
    assert_eq!(requests.len(), 2);
    assert_eq!(
        (sql.count("events").await, sql.count("deliveries").await),
        (1, 1)
    );
    let attempts: Vec<i32> = sql.column("SELECT attempts FROM deliveries").await;
    assert_eq!(attempts, [1], "the lost attempt burnt none");
    stack.finish().await;
}

#[tokio::test]
async fn dispatchers_killed_one_after_the_other_under_load_lose_no_event() {
    const EVENTS: usize = 200;
    let mut stack = Stack::builder().dispatchers(0).start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &["listing.created"])
        .await;
    let mut doomed = stack.process(Kind::Dispatcher).await;
    let mut published = Vec::new();
    for number in 0..EVENTS {
        published.push(stack.publish(&partner, "listing.created", "{}").await);
        if number % 50 == 49 {
            // In the middle of whatever it does with those that it has.
            let so_far = receiver.requests().len();
            receiver.wait_for(so_far.max(1)).await;
            doomed.kill();
            doomed = stack.process(Kind::Dispatcher).await;
        }
    }
    let sql = stack.database.sql().await;
    eventually("every event is delivered", async || {
        let delivered = sql.count("deliveries WHERE status = 'delivered'").await;
        (delivered == EVENTS as i64).then_some(())
    })
    .await;
    assert_eq!(
        sql.count("deliveries").await,
        EVENTS as i64,
        "each is recorded once"
    );
    let requests = receiver.requests();
    for id in &published {
        assert!(
            requests.iter().any(|request| request.delivery() == id),
            "{id} is lost"
        );
    }
    stack.keep(doomed);
    stack.finish().await;
}
