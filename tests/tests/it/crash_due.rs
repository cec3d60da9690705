//! A dispatcher that ends in the middle of a later attempt: its lease ends, the sweep announces the delivery again, and
//! another dispatcher tries it.

use tests::service::Kind;
use tests::{Answer, FailPoints, eventually};

use super::crash_fixture::{Scene, without_dispatcher};

/// A delivery has failed once and is due; a dispatcher ends at the step of its second attempt.
async fn abort_at(point: &str) -> (Scene, String) {
    let builder = without_dispatcher()
        .set("retry_policy.schedule_s", "600")
        .set("dispatcher.deliver.connect_timeout_ms", "500")
        .set("dispatcher.deliver.timeout_ms", "500")
        .set("dispatcher.lease_margin_ms", "1000")
        .set("retry.sweep_overdue_s", "1");
    let mut scene = Scene::start(builder).await;
    scene.another_dispatcher().await;
    scene.receiver.next([Answer::status(500)]);
    let id = scene.publish().await;
    eventually("the first failure is recorded", async || {
        let failed = "deliveries WHERE status = 'pending' AND attempts = 1";
        (scene.sql.count(failed).await == 1).then_some(())
    })
    .await;
    scene.stack.take(Kind::Dispatcher).stop().await;
    let mut doomed = scene.dispatcher(&FailPoints::abort_at(point)).await;
    scene
        .sql
        .execute("UPDATE deliveries SET next_attempt_at = now()")
        .await;
    doomed.until_aborted().await;
    let (status, turn, attempts) = scene.delivery().await;
    assert_eq!((status.as_str(), turn, attempts), ("in_flight", 2, 1));
    (scene, id)
}

#[tokio::test]
async fn a_later_attempt_that_ends_before_its_request_is_made_again() {
    let (mut scene, id) = abort_at("due.started").await;
    scene.assert_requests(&id, 1);
    scene.another_dispatcher().await;
    scene.assert_delivered(&id, 2, 2).await;
    scene.finish().await;
}

#[tokio::test]
async fn a_later_attempt_that_ends_before_its_commit_comes_twice_and_counts_once() {
    let (mut scene, id) = abort_at("deliver.answered").await;
    scene.assert_requests(&id, 2);
    scene.another_dispatcher().await;
    scene.assert_delivered(&id, 3, 2).await;
    scene.finish().await;
}
