//! What the status of a complete answer makes of a delivery.

use serde_json::Value;
use tests::{Answer, Receiver, eventually};

use super::hell_fixture::Hell;

#[tokio::test]
async fn a_204_is_a_success_and_has_nothing_to_show() {
    let hell = Hell::start().await;
    let receiver = Receiver::start().await;
    receiver.always(Answer::status(204));
    let delivery = hell.send(&receiver.url("/")).await;
    let shown = hell.delivered(&delivery).await;
    shown.assert_delivered(204);
    assert_eq!(shown.steps(), ["connect", "first_byte"]);
    let attempt = shown.last_attempt();
    assert_eq!(
        (&attempt["response_headers"], &attempt["response_body"]),
        (&"".into(), &"".into())
    );
    assert!(!shown.text.contains('|'), "{}", shown.text);
    // The connection is as good as after an answer with a body.
    let next = hell.send_again(&delivery).await;
    let shown = hell.delivered(&next).await;
    assert_eq!(shown.last_attempt()["reused_connection"], true);
    hell.finish().await;
}

#[tokio::test]
async fn a_302_without_a_target_is_a_failure() {
    let hell = Hell::start().await;
    let receiver = Receiver::start().await;
    receiver.always(Answer::status(302));
    let delivery = hell.send(&receiver.url("/")).await;
    let shown = hell.attempted(&delivery).await;
    shown.assert_failed(
        Some(302),
        "status",
        "answered 302: redirects are not followed",
    );
    hell.finish().await;
}

#[tokio::test]
async fn a_500_is_shown_with_its_headers_and_its_body() {
    let hell = Hell::start().await;
    let receiver = Receiver::start().await;
    let answer = Answer::status(500).header("X-Trace", "7");
    receiver.always(answer.body("Traceback:\n  line 1\r\n  line 2\n"));
    let delivery = hell.send(&receiver.url("/")).await;
    let shown = hell.attempted(&delivery).await;
    shown.assert_failed(Some(500), "status", "answered 500 Internal Server Error");
    assert_eq!(shown.steps(), ["connect", "first_byte"]);
    let times = ["connect", "first_byte", "total"].map(|name| shown.ms(name).unwrap());
    assert!(times.is_sorted(), "{times:?}");
    let attempt = shown.last_attempt();
    assert_eq!(
        attempt["response_body"],
        "Traceback:\n  line 1\r\n  line 2\n"
    );
    let answer =
        "  | x-trace: 7\n  | content-length: 30\n  |\n  | Traceback:\n  |   line 1\n  |   line 2\n";
    assert!(shown.text.ends_with(answer), "{}", shown.text);
    hell.finish().await;
}

#[tokio::test]
async fn a_410_ends_the_delivery_and_its_webhook_with_what_waits_for_it() {
    let hell = Hell::start().await;
    let receiver = Receiver::start().await;
    receiver.next([
        Answer::status(500),
        Answer::status(410).body("no longer here"),
    ]);
    let waiting = hell.send(&receiver.url("/")).await;
    let shown = hell.attempted(&waiting).await;
    shown.assert_failed(Some(500), "status", "answered 500 Internal Server Error");

    let delivery = hell.send_again(&waiting).await;
    let shown = hell.shown_when(&delivery, "status = 'exhausted'").await;
    shown.assert_result(Some(410), "status", "answered 410 Gone");
    assert_eq!(shown.document["next_attempt_at"], Value::Null);
    assert!(shown.document["finished_at"].is_string());
    assert_eq!(shown.last_attempt()["response_body"], "no longer here");
    assert!(!shown.text.contains("next attempt"), "{}", shown.text);

    let disabled = eventually("the webhook is disabled", async || {
        let query = "SELECT disabled_reason FROM webhooks WHERE id = $1 AND NOT active";
        let rows = hell.sql.rows(query, &[&waiting.webhook_id]).await;
        rows.first().map(|row| row.get::<_, String>(0))
    })
    .await;
    assert_eq!(disabled, "gone");
    let shown = hell.shown_when(&delivery, "true").await;
    assert_eq!(shown.document["webhook_state"], "gone");
    let line = ", now disabled: its receiver answered 410 Gone\n";
    assert!(shown.text.contains(line), "{}", shown.text);
    // It reads so at once, before its row's turn has come.
    let shown = hell.shown_when(&waiting, "attempts = 1").await;
    assert_eq!(shown.document["status"], "cancelled");
    assert_eq!(shown.document["next_attempt_at"], Value::Null);
    assert!(!shown.text.contains("next attempt"), "{}", shown.text);
    assert!(!shown.text.contains("ended           -"), "{}", shown.text);
    hell.finish().await;
}
