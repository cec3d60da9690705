//! What a dispatcher does when Postgres won't take what it has to record.

use tests::{Answer, Receiver, Stack};

const EVENT_TYPE: &str = "listing.updated";

#[tokio::test]
async fn a_row_that_postgres_refuses_is_recorded_without_the_receivers_bytes() {
    let stack = Stack::start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/good"), &[EVENT_TYPE])
        .await;
    partner
        .create_webhook(&receiver.url("/odd"), &[EVENT_TYPE])
        .await;
    receiver.always(Answer::ok().body("fine"));
    receiver.always_at("/odd", Answer::ok().body("poison"));
    let sql = stack.database.sql().await;
    sql.execute(
        "ALTER TABLE deliveries ADD CONSTRAINT no_poison CHECK (position('poison'::bytea IN response_body) = 0)",
    )
    .await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(stack.publish(&partner, EVENT_TYPE, "{}").await);
    }
    for id in &ids {
        stack.until_delivery_is(id, "delivered").await;
    }
    assert_eq!(sql.count("deliveries").await, 40);
    let without = sql
        .count("deliveries WHERE response_body = '' AND response_code = 200")
        .await;
    assert!(without >= 20, "{without}");
    assert_eq!(receiver.requests().len(), 40, "none is sent again for it");
    stack.finish().await;
}
