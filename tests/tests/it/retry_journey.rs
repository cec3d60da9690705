//! A delivery that fails, on its way through the whole house until it succeeds or is given up.

use std::time::Duration;

use tests::service::Kind;
use tests::{Answer, Receiver, Stack, signature};

#[tokio::test]
async fn a_failed_delivery_is_tried_again_at_its_schedule_with_the_same_id_and_a_fresh_signature() {
    let stack = Stack::builder()
        .set("retry_policy.schedule_s", "1,2")
        .set("retry_policy.jitter", "0")
        .start()
        .await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    let webhook = partner
        .create_webhook(&receiver.url("/hook"), &["listing.updated"])
        .await;
    receiver.next([Answer::status(500), Answer::status(429)]);
    let id = stack
        .publish(&partner, "listing.updated", r#"{"listing_id":1}"#)
        .await;

    let requests = receiver.wait_for(3).await;
    stack.until_delivery_is(&id, "delivered").await;
    for request in &requests {
        assert_eq!(request.header("X-Vellocity-Delivery"), Some(id.as_str()));
        assert_eq!(request.body, requests[0].body);
        signature::verify(request, &webhook.secret).unwrap();
    }
    let waits: Vec<_> = requests
        .windows(2)
        .map(|pair| pair[1].arrived - pair[0].arrived)
        .collect();
    for (wait, schedule_s) in waits.iter().zip([1, 2]) {
        // Never early; late by the last hop's rounding, and by what a busy machine needs.
        let schedule = Duration::from_secs(schedule_s);
        assert!(*wait >= schedule.mul_f64(0.98), "{waits:?}");
        assert!(*wait < schedule + Duration::from_secs(5), "{waits:?}");
    }
    let signed_at = |n: usize| {
        requests[n]
            .header("webhook-timestamp")
            .unwrap()
            .parse::<i64>()
            .unwrap()
    };
    assert!(signed_at(0) < signed_at(1) && signed_at(1) < signed_at(2));
    stack.finish().await;
}

#[tokio::test]
async fn a_delivery_out_of_attempts_is_exhausted_and_all_attempts_are_kept() {
    let stack = Stack::builder()
        .set("retry_policy.schedule_s", "1,1")
        .start()
        .await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &["listing.updated"])
        .await;
    receiver.always(Answer::status(503));
    let id = stack.publish(&partner, "listing.updated", "{}").await;
    stack.until_delivery_is(&id, "exhausted").await;
    assert_eq!(receiver.requests().len(), 3);
    let sql = stack.database.sql().await;
    let numbers: Vec<i32> = sql
        .column("SELECT number FROM attempts ORDER BY number")
        .await;
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(
        sql.count("deliveries WHERE next_attempt_at IS NULL AND attempts = 3")
            .await,
        1
    );
    stack.finish().await;
}

#[tokio::test]
async fn a_retry_survives_a_restart_of_everything() {
    let mut stack = Stack::builder()
        .set("retry_policy.schedule_s", "4")
        .start()
        .await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &["listing.updated"])
        .await;
    receiver.next([Answer::status(500)]);
    let id = stack.publish(&partner, "listing.updated", "{}").await;
    stack.until_delivery_is(&id, "pending").await;
    for kind in [Kind::Retry, Kind::Dispatcher, Kind::ManagementApi] {
        stack.take(kind).stop().await;
    }
    for kind in [Kind::ManagementApi, Kind::Dispatcher, Kind::Retry] {
        stack.add(kind).await;
    }
    stack.until_delivery_is(&id, "delivered").await;
    assert_eq!(receiver.requests().len(), 2);
    stack.finish().await;
}

#[tokio::test]
async fn a_retry_whose_announcement_is_lost_is_found_by_the_sweep() {
    let mut stack = Stack::builder()
        .retries(0)
        .set("retry_policy.schedule_s", "1")
        .set("retry.sweep_overdue_s", "1")
        .start()
        .await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &["listing.updated"])
        .await;
    receiver.next([Answer::status(500)]);
    let id = stack.publish(&partner, "listing.updated", "{}").await;
    stack.until_delivery_is(&id, "pending").await;
    let amqp = stack.amqp().await;
    tests::eventually("the announcement is lost", async || {
        amqp.take(broker::topology::FAILED_QUEUE).await
    })
    .await;
    stack.add(Kind::Retry).await;
    stack.until_delivery_is(&id, "delivered").await;
    assert_eq!(receiver.requests().len(), 2);
    stack.finish().await;
}
