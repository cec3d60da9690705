//! `Retry-After`: a receiver's wish to be left alone, as far as it is sensible.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tests::{Answer, Receiver};

use super::hell_fixture::{Hell, Shown};

const DAY_S: f64 = 86_400.0;
/// Age at which a delivery is given up, without a receiver's wish.
const EXPIRES_AFTER_S: f64 = 60.0 * 3600.0;

/// One failed attempt each with 429 and with 503, and this header.
async fn refused(hell: &Hell, retry_after: &str) -> [Shown; 2] {
    let receiver = Receiver::start().await;
    for status in [429, 503] {
        let answer = Answer::status(status).header("Retry-After", retry_after);
        receiver.always_at(&format!("/{status}"), answer);
    }
    let urls = ["/429", "/503"].map(|path| receiver.url(path));
    let [to_429, to_503] = hell.send_to_each(urls.each_ref().map(String::as_str)).await;
    let shown = [hell.attempted(&to_429).await, hell.attempted(&to_503).await];
    let [many, busy] = &shown;
    many.assert_failed_for_now(Some(429), "status", "answered 429 Too Many Requests");
    busy.assert_failed_for_now(Some(503), "status", "answered 503 Service Unavailable");
    for shown in &shown {
        let line = format!("  | retry-after: {retry_after}\n");
        assert!(shown.text.contains(&line), "{}", shown.text);
    }
    shown
}

fn http_date(time: DateTime<Utc>) -> String {
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[tokio::test]
async fn seconds_are_waited_for_and_count_for_the_whole_webhook() {
    let hell = Hell::start().await;
    for shown in refused(&hell, "300").await {
        shown.assert_next_is_after(300.0);
    }
    // While it wants to be left alone, nothing else is tried there either.
    let receiver = Receiver::start().await;
    receiver.always(Answer::status(503).header("Retry-After", "300"));
    let first = hell.send(&receiver.url("/")).await;
    let until = hell.attempted(&first).await.ended_at() + TimeDelta::seconds(300);
    let next = hell.send_again(&first).await;
    let shown = hell.shown_when(&next, "parkings = 1").await;
    let document = &shown.document;
    assert_eq!(
        (&document["status"], &document["attempt_count"]),
        (&json!("pending"), &json!(0))
    );
    assert_eq!(document["park_reason"], "breaker_open");
    assert_eq!(document["attempts"], json!([]));
    assert!(
        shown.time("next_attempt_at") >= until - TimeDelta::milliseconds(10),
        "{document:#}"
    );
    assert!(
        shown.text.contains("1 time, last: breaker_open\n"),
        "{}",
        shown.text
    );
    assert_eq!(receiver.requests().len(), 1);
    hell.finish().await;
}

#[tokio::test]
async fn a_date_is_waited_for() {
    let hell = Hell::start().await;
    let date = Utc::now() + TimeDelta::seconds(600);
    for shown in refused(&hell, &http_date(date)).await {
        // HTTP's dates have no fractions.
        let late = shown.time("next_attempt_at") - date;
        assert!((-1..20).contains(&late.num_seconds()), "{late}");
        let wait_s = shown.wait_s();
        assert!((540.0..620.0).contains(&wait_s), "{wait_s} s");
    }
    hell.finish().await;
}

#[tokio::test]
async fn a_time_that_has_passed_or_makes_no_sense_leaves_the_schedule_alone() {
    let hell = Hell::start().await;
    let past = http_date(Utc::now() - TimeDelta::days(1));
    for senseless in ["0", &past, "soon", ""] {
        for shown in refused(&hell, senseless).await {
            shown.assert_next_is_scheduled();
        }
    }
    hell.finish().await;
}

#[tokio::test]
async fn an_absurd_time_counts_as_a_day() {
    let hell = Hell::start().await;
    let absurd = [
        "86401",
        "99999999999999999999999999",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ];
    for asked in absurd {
        for shown in refused(&hell, asked).await {
            shown.assert_next_is_after(DAY_S);
            // What the receiver asked for is not taken from the time that it has.
            let life = shown.time("expires_at") - shown.time("created_at");
            assert!(
                life.as_seconds_f64() > EXPIRES_AFTER_S + DAY_S - 120.0,
                "{life}"
            );
        }
    }
    hell.finish().await;
}
