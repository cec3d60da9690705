//! A receiver that slows down gradually until its answers come too late, and recovers.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tests::wait::let_pass;
use tests::{Answer, Receiver, eventually};

use super::hell_fixture::{Delivery, Hell};

/// Time-outs in a row that open the breaker, and requests in flight that the receiver may have whatever it does.
const FAILURES_IN_ROW: usize = 3;
const TIMED_OUT: &str = "no answer within 4 s";
/// A probe takes 4 s until it is given up, and the next one comes 2 s later at the soonest.
const MOST_OF_A_PROBE: Duration = Duration::from_secs(1);
/// How long each answer takes while it still comes in time.
const SLOWER_AND_SLOWER_MS: [u64; 4] = [0, 500, 1500, 2000];
/// No answer of this kind is waited for.
const TOO_SLOW: Duration = Duration::from_secs(30);

async fn hell() -> Hell {
    Hell::start_with(&[
        ("retry_policy.schedule_s", "2,2,2,2,2,2,2,2,2,2"),
        ("dispatcher.deliver.timeout_ms", "4000"),
        ("dispatcher.isolation.cap_min", "3"),
        ("dispatcher.isolation.breaker_failures_in_row", "3"),
        ("dispatcher.isolation.breaker_open_for_s", "2"),
    ])
    .await
}

/// The state that operators see, and why.
async fn until_open(hell: &Hell) {
    eventually("the breaker is seen to be open", async || {
        let query = "SELECT reason FROM webhook_breakers WHERE state = 'open'";
        let reasons: Vec<String> = hell.sql.column(query).await;
        (reasons == [TIMED_OUT]).then_some(())
    })
    .await;
}

/// So many events for the same webhook, at once.
async fn send(hell: &Hell, first: &Delivery, count: usize) -> Vec<Delivery> {
    join_all((0..count).map(|_| hell.send_again(first))).await
}

/// Slow answers hold back what is over the webhook's cap. They are no failures: nothing is tried twice, and the breaker
/// stays closed.
async fn assert_slowness_fails_nothing(hell: &Hell, first: &Delivery) {
    let burst = send(hell, first, 2 * FAILURES_IN_ROW).await;
    eventually("what is over the cap is parked untried", async || {
        let parked = "deliveries WHERE attempts = 0 AND park_reason = 'cap'";
        (hell.sql.count(parked).await >= 1).then_some(())
    })
    .await;
    for delivery in &burst {
        hell.delivered(delivery).await.assert_delivered(200);
    }
    assert_eq!(hell.sql.count("webhook_breakers").await, 0);
}

#[tokio::test]
async fn a_receiver_that_slows_down_is_left_alone_probed_and_given_everything_once_it_recovers() {
    let hell = hell().await;
    let receiver = Receiver::start().await;
    let first = hell.send(&receiver.url("/")).await;
    hell.delivered(&first).await.assert_delivered(200);
    for answer_ms in SLOWER_AND_SLOWER_MS {
        receiver.always(Answer::ok().after(Duration::from_millis(answer_ms)));
        let delivery = hell.send_again(&first).await;
        let shown = hell.delivered(&delivery).await;
        shown.assert_delivered(200);
        assert!(shown.ms("first_byte").unwrap() >= answer_ms as f64);
    }
    assert_slowness_fails_nothing(&hell, &first).await;

    receiver.always(Answer::ok().after(TOO_SLOW));
    let failed = send(&hell, &first, FAILURES_IN_ROW).await;
    until_open(&hell).await;
    let shown = hell
        .shown_when(&failed[0], "attempts >= 1 AND status <> 'in_flight'")
        .await;
    assert_eq!(shown.attempts()[0]["error"], TIMED_OUT);
    assert_eq!(shown.attempts()[0]["error_kind"], "timeout");

    // The breaker is open: what comes now is parked untried.
    let parked = send(&hell, &first, 5).await;
    let shown = hell.shown_when(&parked[4], "parkings >= 1").await;
    assert_eq!(shown.document["park_reason"], "breaker_open");
    assert!(
        shown.text.contains(", last: breaker_open\n"),
        "{}",
        shown.text
    );

    // Whoever comes first when its time is over is the probe; as long as that fails, nobody else is sent.
    let asked = receiver.requests().len();
    receiver.wait_for(asked + 1).await;
    let_pass(MOST_OF_A_PROBE).await;
    assert_eq!(receiver.requests().len(), asked + 1);

    receiver.always(Answer::ok());
    for delivery in failed.iter().chain(&parked) {
        let shown = hell.delivered(delivery).await;
        let last = shown.last_attempt();
        assert_eq!(
            (&last["response_code"], &last["error"]),
            (&json!(200), &json!(null))
        );
        assert_eq!(shown.document["attempt_count"], shown.attempts().len());
        let ids = receiver.requests();
        assert!(
            ids.iter()
                .any(|request| request.delivery() == delivery.event_id)
        );
    }
    let untried = hell.shown_when(&parked[4], "status = 'delivered'").await;
    let parkings = untried.document["parkings"].as_i64().unwrap();
    let times = if parkings == 1 { "time" } else { "times" };
    let line = format!("parked          {parkings} {times}\n");
    assert!(untried.text.contains(&line), "{}", untried.text);
    eventually("the breaker has no row any more", async || {
        (hell.sql.count("webhook_breakers").await == 0).then_some(())
    })
    .await;
    // Healed: the next one goes out at once.
    let last = hell.send_again(&first).await;
    let shown = hell.delivered(&last).await;
    shown.assert_delivered(200);
    assert_eq!(shown.document["parkings"], 0);
    hell.finish().await;
}
