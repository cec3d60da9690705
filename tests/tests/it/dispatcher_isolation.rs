//! Isolation in a running dispatcher: what a bad receiver gets, and what the others don't notice.

use std::time::{Duration, Instant};

use tests::wait::until_equal;
use tests::{Answer, Partner, Receiver, Stack, eventually};

const EVENT_TYPE: &str = "listing.updated";

async fn publish(stack: &Stack, partner: &Partner, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(stack.publish(partner, EVENT_TYPE, "{}").await);
    }
    ids
}

/// How many deliveries of the events satisfy a condition.
async fn count(stack: &Stack, ids: &[String], condition: &str) -> usize {
    let query = format!("SELECT count(*) FROM deliveries WHERE event_id = ANY($1) AND {condition}");
    let sql = stack.database.sql().await;
    let count: i64 = sql.value_of(&query, &[&ids]).await;
    usize::try_from(count).unwrap()
}

#[tokio::test]
async fn a_receiver_that_fails_in_a_row_is_left_alone_until_a_probe_finds_it_healed() {
    let stack = Stack::builder()
        .set("dispatcher.isolation.breaker_open_for_s", "4")
        .start()
        .await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
        .await;
    receiver.always(Answer::status(500));
    let failed = publish(&stack, &partner, 5).await;
    let sql = stack.database.sql().await;
    eventually("the breaker is seen to be open", async || {
        (sql.count("webhook_breakers WHERE state = 'open'").await == 1).then_some(())
    })
    .await;
    let parked = publish(&stack, &partner, 3).await;
    let condition = "attempts = 0 AND parkings >= 1 AND park_reason = 'breaker_open'";
    until_equal("later ones are parked untried", 3, async || {
        count(&stack, &parked, condition).await
    })
    .await;
    receiver.always(Answer::ok());
    for id in failed.iter().chain(&parked) {
        stack.until_delivery_is(id, "delivered").await;
    }
    until_equal("the breaker has no row any more", 0, async || {
        sql.count("webhook_breakers").await
    })
    .await;
    let at_once = "attempts = 1 AND parkings >= 1";
    assert!(
        count(&stack, &parked, at_once).await >= 2,
        "only a probe may have failed"
    );
    stack.finish().await;
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_its_cap_and_no_more_while_others_are_served() {
    const EVENTS: usize = 30;
    const CAP: usize = 2;
    const TIMEOUT: Duration = Duration::from_secs(4);
    let stack = Stack::builder()
        .set("dispatcher.deliver.timeout_ms", "4000")
        .set("dispatcher.isolation.cap_min", "2")
        // The breaker is not what is looked at here.
        .set("dispatcher.isolation.breaker_failures_in_row", "1000")
        .set("dispatcher.isolation.breaker_requests_min", "1000")
        .start()
        .await;
    let (hanging, healthy) = (Receiver::start().await, Receiver::start().await);
    let (bad, good) = (stack.partner().await, stack.partner().await);
    bad.create_webhook(&hanging.url("/"), &[EVENT_TYPE]).await;
    good.create_webhook(&healthy.url("/"), &[EVENT_TYPE]).await;
    hanging.always(Answer::silence());

    let begun = Instant::now();
    let stuck = publish(&stack, &bad, EVENTS).await;
    let fine = publish(&stack, &good, EVENTS).await;
    healthy.wait_for(EVENTS).await;
    let asked = hanging.requests().len();
    let rounds = 1 + usize::try_from(begun.elapsed().as_secs() / TIMEOUT.as_secs()).unwrap();
    assert!(asked <= CAP * rounds, "{asked} requests in {rounds} rounds");
    eventually("what is over the cap is parked", async || {
        let parked = count(&stack, &stuck, "attempts = 0 AND parkings >= 1").await;
        (parked >= EVENTS - 2 * CAP).then_some(())
    })
    .await;
    assert_eq!(count(&stack, &fine, "parkings > 0").await, 0);

    hanging.always(Answer::ok());
    for id in stuck.iter().chain(&fine) {
        stack.until_delivery_is(id, "delivered").await;
    }
    assert_eq!(healthy.requests().len(), EVENTS);
    stack.finish().await;
}

#[tokio::test]
async fn receivers_that_fail_without_an_answer_are_not_taken_for_our_own_network() {
    let stack = Stack::builder()
        .set("dispatcher.isolation.egress_partners", "3")
        .set("dispatcher.isolation.egress_quiet_s", "1")
        .set("dispatcher.isolation.breaker_failures_in_row", "1000")
        .set("dispatcher.isolation.breaker_requests_min", "1000")
        .start()
        .await;
    let (dead, healthy) = (Receiver::start().await, Receiver::start().await);
    dead.always(Answer::hang_up());
    let living = stack.partner().await;
    living
        .create_webhook(&healthy.url("/"), &[EVENT_TYPE])
        .await;
    // They never succeeded, so their failures say nothing about us.
    let mut failing = Vec::new();
    for _ in 0..4 {
        let partner = stack.partner().await;
        partner.create_webhook(&dead.url("/"), &[EVENT_TYPE]).await;
        failing.extend(publish(&stack, &partner, 2).await);
    }
    until_equal(
        "the attempts count against their deliveries",
        failing.len(),
        async || count(&stack, &failing, "attempts >= 2").await,
    )
    .await;
    let id = stack.publish(&living, EVENT_TYPE, "{}").await;
    stack.until_delivery_is(&id, "delivered").await;
    dead.always(Answer::ok());
    for id in &failing {
        stack.until_delivery_is(id, "delivered").await;
    }
    stack.finish().await;
}
