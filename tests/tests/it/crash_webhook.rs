//! A delivery that is due while its webhook is deleted, changed or disabled.

use serde_json::json;
use tests::{Answer, FailPoints, Process, eventually};

use super::crash_fixture::{Scene, until_announcements, without_dispatcher};

/// A dispatcher that is held at the step with the announcement of a delivery that has failed once.
async fn due(point: &str) -> (Scene, Process, String) {
    let builder = without_dispatcher()
        .retries(0)
        .set("retry_policy.schedule_s", "600,600");
    let mut scene = Scene::start(builder).await;
    let dispatcher = scene.dispatcher(&FailPoints::hold_at(point)).await;
    let id = scene.failed_and_due().await;
    scene.announce(1).await;
    dispatcher.until_held(point).await;
    (scene, dispatcher, id)
}

async fn assert_cancelled(scene: Scene, dispatcher: Process, id: &str) {
    until_announcements(dispatcher.admin(), "ended", 1.0).await;
    let (status, _, attempts) = scene.delivery().await;
    assert_eq!((status.as_str(), attempts), ("cancelled", 1));
    scene.assert_requests(id, 1);
    let mut scene = scene;
    scene.stack.keep(dispatcher);
    scene.finish().await;
}

#[tokio::test]
async fn a_webhook_deleted_just_before_its_delivery_starts_gets_nothing() {
    let (scene, dispatcher, id) = due("due.taken").await;
    scene.partner.delete_webhook(&scene.webhook).await;
    dispatcher.go_on();
    assert_cancelled(scene, dispatcher, &id).await;
}

#[tokio::test]
async fn a_webhook_disabled_just_before_its_delivery_starts_gets_nothing_even_if_it_is_enabled_again()
 {
    let (scene, dispatcher, id) = due("due.taken").await;
    for active in [false, true] {
        scene
            .partner
            .update_webhook(&scene.webhook, &json!({"active": active}))
            .await;
    }
    dispatcher.go_on();
    assert_cancelled(scene, dispatcher, &id).await;
}

#[tokio::test]
async fn a_webhook_changed_just_before_its_delivery_starts_gets_it_at_the_new_address() {
    let (mut scene, dispatcher, id) = due("due.taken").await;
    let url = scene.receiver.url("/new");
    scene
        .partner
        .update_webhook(&scene.webhook, &json!({"url": url}))
        .await;
    dispatcher.go_on();
    scene.assert_delivered(&id, 2, 2).await;
    assert_eq!(scene.receiver.requests_at("/new").len(), 1);
    scene.stack.keep(dispatcher);
    scene.finish().await;
}

#[tokio::test]
async fn a_webhook_deleted_when_its_attempt_has_begun_gets_that_one_and_no_more() {
    let (scene, dispatcher, id) = due("due.started").await;
    scene.receiver.next([Answer::status(500)]);
    scene.partner.delete_webhook(&scene.webhook).await;
    dispatcher.go_on();
    let turn = eventually("the failure is recorded", async || {
        let (status, turn, attempts) = scene.delivery().await;
        (status == "pending" && attempts == 2).then_some(turn)
    })
    .await;
    scene.assert_requests(&id, 2);
    scene
        .sql
        .execute("UPDATE deliveries SET next_attempt_at = now()")
        .await;
    scene.announce(turn).await;
    until_announcements(dispatcher.admin(), "ended", 1.0).await;
    let (status, _, attempts) = scene.delivery().await;
    assert_eq!((status.as_str(), attempts), ("cancelled", 2));
    scene.assert_requests(&id, 2);
    let mut scene = scene;
    scene.stack.keep(dispatcher);
    scene.finish().await;
}
