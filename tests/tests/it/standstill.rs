//! A dispatcher that stood still (SIGSTOP, a suspended machine) while the broker gave its events to another: when it goes
//! on it sends none of them, gives its connection up by itself, and works again.

use tests::process::Signal;
use tests::service::{self, Kind};
use tests::{Receiver, Stack, eventually};

const EVENTS: usize = 10;

#[tokio::test]
async fn a_dispatcher_that_stood_still_sends_nothing_that_was_given_to_another() {
    let mut stack = Stack::builder()
        .dispatchers(0)
        .set("rabbitmq.heartbeat_s", "1")
        .start()
        .await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &["cosell.updated"])
        .await;
    let sleeper = stack.process(Kind::Dispatcher).await;
    let first = stack.publish(&partner, "cosell.updated", "{}").await;
    stack.until_delivery_is(&first, "delivered").await;

    sleeper.signal(Signal::Stop);
    let mut published = Vec::new();
    for _ in 0..EVENTS {
        // The broker writes them into the sleeper's socket.
        published.push(stack.publish(&partner, "cosell.updated", "{}").await);
    }
    stack.add(Kind::Dispatcher).await;
    for id in &published {
        stack.until_delivery_is(id, "delivered").await;
    }
    stack.take(Kind::Dispatcher).stop().await;

    sleeper.signal(Signal::Cont);
    eventually("the sleeper has noticed", async || {
        let stalls =
            service::metric(sleeper.admin(), "vellocity_dispatcher_stalls_total", "").await;
        (stalls > 0.0).then_some(())
    })
    .await;
    let last = stack.publish(&partner, "cosell.updated", "{}").await;
    stack.until_delivery_is(&last, "delivered").await;
    assert_eq!(receiver.requests().len(), 1 + EVENTS + 1);
    stack.keep(sleeper);
    stack.finish().await;
}
