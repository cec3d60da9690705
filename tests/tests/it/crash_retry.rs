//! A retry service that ends before and after each of its publishes: the delivery is tried once more, and only once.

use broker::topology::{FAILED_KEY, FAILED_QUEUE};
use tests::service::Kind;
use tests::stack::Leftovers;
use tests::wait::until_equal;
use tests::{Answer, FailPoints, Message, Process, Stack, eventually};

use super::crash_fixture::{Scene, until_announcements};

/// A dispatcher in this process and a retry service that ends at the step.
async fn start(point: &str) -> (Scene, Process) {
    let builder = Stack::builder()
        .retries(0)
        .set("retry.sweep_overdue_s", "1");
    let mut scene = Scene::start(builder).await;
    scene.receiver.next([Answer::status(500)]);
    let points = FailPoints::abort_at(point);
    let doomed = scene.stack.process_with(Kind::Retry, &points).await;
    (scene, doomed)
}

#[tokio::test]
async fn before_an_announcement_is_placed_another_places_it() {
    let (mut scene, mut doomed) = start("place.publish").await;
    // The sweep would announce it as well, and not before the time is over that is waited here.
    scene.stack.set("retry.sweep_overdue_s", "300");
    let id = scene.publish().await;
    doomed.until_aborted().await;
    scene.assert_requests(&id, 1);
    scene.stack.add(Kind::Retry).await;
    scene.assert_delivered(&id, 2, 2).await;
    scene.finish().await;
}

#[tokio::test]
async fn after_an_announcement_was_placed_it_comes_twice_and_counts_once() {
    let (mut scene, mut doomed) = start("place.published").await;
    // The sweep would announce it as well.
    scene.stack.set("retry.sweep_overdue_s", "30");
    let id = scene.publish().await;
    doomed.until_aborted().await;
    scene.stack.add(Kind::Retry).await;
    until_announcements(scene.admin(), "stale", 1.0).await;
    scene.assert_delivered(&id, 2, 2).await;
    scene.finish().await;
}

/// A delivery that has failed, whose announcement is lost, so that only the sweep knows of it.
async fn lost_announcement(scene: &Scene) -> String {
    let id = scene.publish().await;
    let amqp = scene.stack.amqp().await;
    eventually("the failure is announced", async || {
        amqp.take(FAILED_QUEUE).await
    })
    .await;
    id
}

/// As [`start`], once there is such a delivery.
async fn start_sweeping(point: &str) -> (Scene, Process, String) {
    let builder = Stack::builder()
        .retries(0)
        .set("retry.sweep_overdue_s", "1");
    let scene = Scene::start(builder).await;
    scene.receiver.next([Answer::status(500)]);
    let id = lost_announcement(&scene).await;
    let points = FailPoints::abort_at(point);
    // It sweeps as soon as it can, and may end before it is ready.
    let doomed = Process::service_with(Kind::Retry, scene.stack.settings(), &points).await;
    (scene, doomed, id)
}

#[tokio::test]
async fn before_the_sweep_has_announced_what_it_stamped_it_is_announced_later() {
    let (mut scene, mut doomed, id) = start_sweeping("sweep.publish").await;
    doomed.until_aborted().await;
    let stamped = scene
        .sql
        .count("deliveries WHERE announce_again_at IS NOT NULL AND status = 'pending'")
        .await;
    assert_eq!(stamped, 1);
    scene.assert_requests(&id, 1);
    scene.stack.add(Kind::Retry).await;
    scene.assert_delivered(&id, 2, 2).await;
    scene.finish().await;
}

#[tokio::test]
async fn after_the_sweep_has_announced_nobody_else_is_needed() {
    let (mut scene, mut doomed, id) = start_sweeping("sweep.published").await;
    doomed.until_aborted().await;
    scene.assert_delivered(&id, 2, 2).await;
    scene.stack.add(Kind::Retry).await;
    let second = scene.publish().await;
    scene.stack.until_delivery_is(&second, "delivered").await;
    assert_eq!(scene.receiver.requests().len(), 3, "nothing more was tried");
    scene.finish().await;
}

/// What can't be read is buried; a crash before or after that leaves so many rows.
async fn bury(point: &str, rows: i64) {
    let (mut scene, mut doomed) = start(point).await;
    scene.stack.may_leave(Leftovers {
        dead: true,
        ..Leftovers::default()
    });
    let mut message = Message::raw(FAILED_KEY, "no announcement");
    message.exchange = broker::Exchange::Deliveries.name().to_owned();
    scene.stack.amqp().await.publish(&message).await;
    doomed.until_aborted().await;
    scene.stack.add(Kind::Retry).await;
    until_equal("rows of dead messages", rows, async || {
        scene
            .sql
            .count("dead_letters WHERE code = 'malformed_announcement'")
            .await
    })
    .await;
    let bodies: Vec<Vec<u8>> = scene.sql.column("SELECT body FROM dead_letters").await;
    assert!(bodies.iter().all(|body| body == b"no announcement"));
    scene.finish().await;
}

#[tokio::test]
async fn before_a_message_is_buried_another_buries_it() {
    bury("bury.publish", 1).await;
}

#[tokio::test]
async fn after_a_message_was_buried_it_is_there_twice_rather_than_never() {
    bury("bury.published", 2).await;
}
