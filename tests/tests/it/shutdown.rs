//! SIGTERM ends each service in order: exit code 0, nothing lost, nothing sent twice.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tests::process::Signal;
use tests::service::Kind;
use tests::{Answer, Process, Receiver, Stack, eventually};

const EVENTS: usize = 60;

async fn terminate(mut process: Process) {
    let status = process.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", process.output());
}

/// Every event was sent exactly once.
fn assert_each_once(receiver: &Receiver, published: &[String]) {
    let requests = receiver.requests();
    let sent: BTreeSet<_> = requests.iter().map(|request| request.delivery()).collect();
    let expected: BTreeSet<_> = published.iter().map(String::as_str).collect();
    assert_eq!(sent, expected);
    assert_eq!(requests.len(), published.len(), "something was sent twice");
}

async fn until_all_delivered(stack: &Stack) {
    let sql = stack.database.sql().await;
    eventually("all is delivered", async || {
        let delivered = sql.count("deliveries WHERE status = 'delivered'").await;
        (delivered == EVENTS as i64).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_dispatcher_finishes_what_it_has_begun_and_leaves_the_rest_to_the_next() {
    let mut stack = Stack::builder().dispatchers(0).start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &["cosell.completed"])
        .await;
    // Longer than an event is held: some of the attempts are recorded as in flight when the signal comes.
    receiver.always(Answer::ok().after(Duration::from_millis(600)));
    let first = stack.process(Kind::Dispatcher).await;
    let mut published = Vec::new();
    for _ in 0..EVENTS {
        published.push(stack.publish(&partner, "cosell.completed", "{}").await);
    }
    receiver.wait_for(1).await;
    terminate(first).await;
    receiver.always(Answer::ok());
    let second = stack.process(Kind::Dispatcher).await;
    until_all_delivered(&stack).await;
    assert_each_once(&receiver, &published);
    let sql = stack.database.sql().await;
    let attempts: Vec<i32> = sql.column("SELECT DISTINCT attempts FROM deliveries").await;
    assert_eq!(attempts, [1]);
    stack.keep(second);
    stack.finish().await;
}

#[tokio::test]
async fn dispatchers_that_are_replaced_one_after_the_other_send_nothing_twice() {
    let mut stack = Stack::builder().dispatchers(0).start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &["cosell.completed"])
        .await;
    let mut current = stack.process(Kind::Dispatcher).await;
    let mut published = Vec::new();
    for number in 0..EVENTS {
        published.push(stack.publish(&partner, "cosell.completed", "{}").await);
        if number % 20 == 19 {
            // As in a rolling update: the new one is there before the old one goes.
            let next = stack.process(Kind::Dispatcher).await;
            terminate(std::mem::replace(&mut current, next)).await;
        }
    }
    until_all_delivered(&stack).await;
    assert_each_once(&receiver, &published);
    stack.keep(current);
    stack.finish().await;
}

#[tokio::test]
async fn a_dispatcher_that_postgres_keeps_waiting_puts_back_what_it_has_not_sent() {
    let mut stack = Stack::builder().dispatchers(0).start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &["cosell.completed"])
        .await;
    let blocker = stack.database.sql().await;
    blocker
        .execute("BEGIN; LOCK TABLE claims IN ACCESS EXCLUSIVE MODE")
        .await;
    let first = stack.process(Kind::Dispatcher).await;
    let id = stack.publish(&partner, "cosell.completed", "{}").await;
    let sql = stack.database.sql().await;
    eventually("its claim waits", async || {
        let waiting = "pg_locks WHERE relation = 'claims'::regclass AND NOT granted";
        (sql.count(waiting).await > 0).then_some(())
    })
    .await;
    terminate(first).await;
    assert_eq!(receiver.requests().len(), 0);
    blocker.execute("COMMIT").await;
    let second = stack.process(Kind::Dispatcher).await;
    stack.until_delivery_is(&id, "delivered").await;
    assert_each_once(&receiver, &[id]);
    stack.keep(second);
    stack.finish().await;
}

#[tokio::test]
async fn a_retry_service_hands_over_what_it_has_not_placed() {
    let mut stack = Stack::builder()
        .retries(0)
        .set("retry_policy.schedule_s", "1,1,1,1")
        .start()
        .await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    // Many webhooks, so that no breaker opens.
    for number in 0..EVENTS {
        let url = receiver.url(&format!("/{number}"));
        partner.create_webhook(&url, &["cosell.completed"]).await;
        receiver.next_at(&format!("/{number}"), [Answer::status(500)]);
    }
    let mut current = stack.process(Kind::Retry).await;
    let id = stack.publish(&partner, "cosell.completed", "{}").await;
    receiver.wait_for(EVENTS).await;
    for _ in 0..2 {
        let next = stack.process(Kind::Retry).await;
        terminate(std::mem::replace(&mut current, next)).await;
    }
    until_all_delivered(&stack).await;
    for number in 0..EVENTS {
        let requests = receiver.requests_at(&format!("/{number}"));
        assert_eq!(requests.len(), 2, "/{number}");
        assert!(requests.iter().all(|request| request.delivery() == id));
    }
    stack.keep(current);
    stack.finish().await;
}

#[tokio::test]
async fn the_api_answers_what_it_has_begun_and_publishes_what_it_has_changed() {
    let mut stack = Stack::builder().apis(0).start().await;
    let api = stack.process(Kind::ManagementApi).await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    let webhook = partner
        .create_webhook(&receiver.url("/slow"), &["listing.created"])
        .await;
    receiver.next_at("/slow", [Answer::ok().after(Duration::from_secs(2))]);
    let (answer, ()) = tokio::join!(partner.test_webhook(&webhook), async {
        // The call is under way: its request has reached the receiver.
        receiver.wait_for_at("/slow", 1).await;
        let body = json!({"url": receiver.url("/late"), "events": ["listing.created"]});
        partner.create_webhook_from(&body).await;
        api.signal(Signal::Term);
    });
    assert_eq!(
        answer.expect(200).body["data"]["attributes"]["delivered"],
        true
    );
    let mut api = api;
    let status = api.exited().await;
    assert_eq!(status.code(), Some(0), "{}", api.output());
    let sql = stack.database.sql().await;
    assert_eq!(sql.count("outbox").await, 0, "every change was published");
    let id = stack.publish(&partner, "listing.created", "{}").await;
    receiver
        .wait_until("both webhooks get it", |requests| {
            ["/slow", "/late"].iter().all(|path| {
                requests
                    .iter()
                    .any(|r| r.path == *path && r.delivery() == id)
            })
        })
        .await;
    stack.until_delivery_is(&id, "delivered").await;
    stack.finish().await;
}
