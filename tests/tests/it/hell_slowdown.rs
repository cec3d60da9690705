//! A receiver that slows down gradually, breaks down, and recovers.

use std::time::Duration;

use serde_json::json;
use tests::wait::let_pass;
use tests::{Answer, Receiver, eventually};

use super::hell_fixture::{Delivery, Hell};

/// Time-outs in a row that open the breaker.
const FAILURES_IN_ROW: usize = 3;
const TIMED_OUT: &str = "no answer within 1.5 s";
/// A probe takes 1.5 s until it is given up, and the next one comes a second later at the soonest.
const MOST_OF_A_PROBE: Duration = Duration::from_secs(1);
/// How long each answer takes while there still is one.
const SLOWER_AND_SLOWER_MS: [u64; 5] = [0, 100, 200, 400, 600];

async fn hell() -> Hell {
    Hell::start_with(&[
        ("retry_policy.schedule_s", "1,1,1,1,1,1,1,1,1,1"),
        ("dispatcher.deliver.timeout_ms", "1500"),
        ("dispatcher.deliver.connect_timeout_ms", "1500"),
        ("dispatcher.isolation.breaker_failures_in_row", "3"),
        ("dispatcher.isolation.breaker_open_for_s", "1"),
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

async fn send(hell: &Hell, first: &Delivery, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for _ in 0..count {
        deliveries.push(hell.send_again(first).await);
    }
    deliveries
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

    receiver.always(Answer::silence());
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
