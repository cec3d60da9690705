//! Attempts of a dispatcher: what is held for an answer and what is not, and what receivers may not make it do.

use std::time::Duration;

use tests::service::{self, Kind};
use tests::{Answer, Receiver, Stack, eventually};

const EVENT_TYPE: &str = "listing.updated";

/// Error kinds and codes of an event's recorded attempts, in order.
async fn attempts(stack: &Stack, event_id: &str) -> Vec<(Option<String>, Option<i32>)> {
    let sql = stack.database.sql().await;
    let query = "SELECT a.error_kind, a.response_code FROM attempts AS a \
         JOIN deliveries AS d ON d.id = a.delivery_id WHERE d.event_id = $1 ORDER BY a.number";
    let rows = sql.rows(query, &[&event_id]).await;
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Status, turn and number of attempts of the only delivery of an event.
async fn row(stack: &Stack, event_id: &str) -> Option<(String, i32, i32)> {
    let sql = stack.database.sql().await;
    let query = "SELECT status, turn, attempts FROM deliveries WHERE event_id = $1";
    let rows = sql.rows(query, &[&event_id]).await;
    rows.first().map(|row| (row.get(0), row.get(1), row.get(2)))
}

async fn recorded(stack: &Stack) -> f64 {
    let dispatcher = stack.services(Kind::Dispatcher).next().unwrap();
    let name = "vellocity_dispatcher_events_total";
    service::metric(dispatcher.admin(), name, r#"result="recorded""#).await
}

#[tokio::test]
async fn no_event_is_held_for_a_slow_answer_and_the_answer_still_counts() {
    let stack = Stack::start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
        .await;
    receiver.always(Answer::ok().after(Duration::from_secs(3)));
    let id = stack.publish(&partner, EVENT_TYPE, "{}").await;
    eventually(
        "the event is done with while its attempt is in flight",
        async || {
            let done = recorded(&stack).await >= 1.0;
            let in_flight = row(&stack, &id).await? == ("in_flight".to_owned(), 1, 0);
            (done && in_flight).then_some(())
        },
    )
    .await;
    stack.until_delivery_is(&id, "delivered").await;
    assert_eq!(row(&stack, &id).await, Some(("delivered".to_owned(), 2, 1)));
    assert_eq!(receiver.requests().len(), 1);
    assert!(
        attempts(&stack, &id).await.is_empty(),
        "a success at once is one row"
    );
    stack.finish().await;
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_tried_again() {
    let stack = Stack::builder()
        .set("dispatcher.deliver.timeout_ms", "1000")
        .set("dispatcher.deliver.connect_timeout_ms", "500")
        .start()
        .await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
        .await;
    receiver.next([Answer::silence()]);
    let id = stack.publish(&partner, EVENT_TYPE, "{}").await;
    stack.until_delivery_is(&id, "delivered").await;
    let expected = [(Some("timeout".to_owned()), None), (None, Some(200))];
    assert_eq!(attempts(&stack, &id).await, expected);
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].delivery(), requests[1].delivery());
    stack.finish().await;
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it_and_the_delivery_lives_longer_for_it() {
    let stack = Stack::start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
        .await;
    receiver.next([Answer::status(503).header("Retry-After", "4")]);
    let id = stack.publish(&partner, EVENT_TYPE, "{}").await;
    stack.until_delivery_is(&id, "delivered").await;
    let requests = receiver.requests();
    let waited = requests[1].arrived - requests[0].arrived;
    assert!(waited >= Duration::from_secs(4), "{waited:?}");
    let expire_after = stack.settings().dispatcher().retry_policy.expire_after_s;
    let sql = stack.database.sql().await;
    let lives_s: f64 = sql
        .value("SELECT extract(epoch FROM expires_at - created_at)::float8 FROM deliveries")
        .await;
    assert!(lives_s > f64::from(expire_after) + 2.0, "{lives_s}");
    stack.finish().await;
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_not_followed() {
    let stack = Stack::start().await;
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    let partner = stack.partner().await;
    partner
        .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
        .await;
    receiver.next([Answer::status(307).header("Location", &elsewhere.url("/"))]);
    let id = stack.publish(&partner, EVENT_TYPE, "{}").await;
    stack.until_delivery_is(&id, "delivered").await;
    let expected = [(Some("status".to_owned()), Some(307)), (None, Some(200))];
    assert_eq!(attempts(&stack, &id).await, expected);
    assert!(elsewhere.requests().is_empty());
    stack.finish().await;
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_no_attempt() {
    let stack = Stack::start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
        .await;
    let first = stack.publish(&partner, EVENT_TYPE, "{}").await;
    stack.until_delivery_is(&first, "delivered").await;
    receiver.next([Answer::hang_up()]);
    let second = stack.publish(&partner, EVENT_TYPE, "{}").await;
    stack.until_delivery_is(&second, "delivered").await;
    assert_eq!(row(&stack, &second).await.unwrap().2, 1);
    assert!(attempts(&stack, &second).await.is_empty());
    let requests = receiver.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(
        requests[0].connection, requests[1].connection,
        "it was kept"
    );
    assert_ne!(requests[1].connection, requests[2].connection);
    stack.finish().await;
}

#[tokio::test]
async fn a_private_address_is_refused_when_it_is_connected_to() {
    let mut stack = Stack::builder().dispatchers(0).retries(0).start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
        .await;
    // The rules have become stricter since the webhook was made.
    stack.set("network.allowed_networks", "10.99.0.0/16");
    stack.add(Kind::Dispatcher).await;
    let id = stack.publish(&partner, EVENT_TYPE, "{}").await;
    let expected = [(Some("forbidden_address".to_owned()), None)];
    eventually("the refusal is recorded as an attempt", async || {
        (attempts(&stack, &id).await == expected).then_some(())
    })
    .await;
    assert!(receiver.requests().is_empty());
    stack.finish().await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_ends_its_delivery_and_its_webhook_at_once() {
    let stack = Stack::start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    let webhook = partner
        .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
        .await;
    receiver.always(Answer::status(410));
    let id = stack.publish(&partner, EVENT_TYPE, "{}").await;
    stack.until_delivery_is(&id, "exhausted").await;
    assert_eq!(row(&stack, &id).await, Some(("exhausted".to_owned(), 1, 1)));
    let sql = stack.database.sql().await;
    eventually("the webhook is disabled in a version of its own", async || {
        let query = "SELECT NOT active AND version = 2 AND deactivated_version = 2 AND disabled_reason = 'gone' \
             FROM webhooks WHERE id = $1";
        let disabled: bool = sql.value_of(query, &[&webhook.id]).await;
        disabled.then_some(())
    })
    .await;
    let changes =
        "webhook_versions WHERE version = 2 AND change = 'disabled' AND actor = 'dispatcher'";
    assert_eq!(sql.count(changes).await, 1);
    stack.finish().await;
}
