//! A dispatcher that ends at each step of an event's way: nothing is lost, and no more is repeated than what was in hand.

use broker::topology::FAILED_QUEUE;
use tests::service::Kind;
use tests::{Answer, FailPoints, PostgresProxy};

use super::crash_fixture::{Scene, until_events, without_dispatcher};

#[tokio::test]
async fn after_the_claim_and_before_the_request_the_event_is_sent_once_by_another() {
    let mut scene = Scene::start(without_dispatcher()).await;
    let mut doomed = scene
        .dispatcher(&FailPoints::abort_at("fan_out.claimed"))
        .await;
    let id = scene.publish().await;
    doomed.until_aborted().await;
    assert_eq!(scene.rows().await, [1, 0, 0, 0], "claimed, and no more");
    scene.assert_requests(&id, 0);

    scene.another_dispatcher().await;
    scene.assert_delivered(&id, 1, 1).await;
    scene.finish().await;
}

#[tokio::test]
async fn after_the_answer_and_before_the_commit_the_event_is_sent_again_under_its_id() {
    let mut scene = Scene::start(without_dispatcher()).await;
    let mut doomed = scene
        .dispatcher(&FailPoints::abort_at("deliver.answered"))
        .await;
    let id = scene.publish().await;
    doomed.until_aborted().await;
    assert_eq!(scene.rows().await, [1, 0, 0, 0], "sent, and not recorded");
    scene.assert_requests(&id, 1);

    scene.another_dispatcher().await;
    // The lost attempt used up none.
    scene.assert_delivered(&id, 2, 1).await;
    scene.finish().await;
}

#[tokio::test]
async fn after_commit_was_sent_and_before_its_answer_a_crash_repeats_nothing() {
    let mut scene = Scene::start(without_dispatcher()).await;
    let direct = scene.stack.database.url();
    let proxy = PostgresProxy::start(&direct).await;
    scene.stack.set("postgres.url", proxy.url());
    let mut doomed = scene.dispatcher(&FailPoints::default()).await;
    proxy.keep_next_commit();
    let id = scene.publish().await;
    proxy.until_kept().await;
    assert_eq!(scene.rows().await, [1, 1, 1, 1], "committed");
    doomed.kill();

    scene.stack.set("postgres.url", &direct);
    scene.another_dispatcher().await;
    scene.until_the_copy_is_a_duplicate().await;
    scene.assert_delivered(&id, 1, 1).await;
    scene.finish().await;
}

#[tokio::test]
async fn a_dispatcher_that_never_gets_the_answer_to_its_commit_records_the_batch_again_and_changes_nothing()
 {
    let mut scene = Scene::start(without_dispatcher()).await;
    let direct = scene.stack.database.url();
    let proxy = PostgresProxy::start(&direct).await;
    scene.stack.set("postgres.url", proxy.url());
    let dispatcher = scene.dispatcher(&FailPoints::default()).await;
    proxy.keep_next_commit();
    let id = scene.publish().await;
    proxy.until_kept().await;
    let committed = scene.delivery().await;
    proxy.break_connection();
    until_events(dispatcher.admin(), "recorded", 1.0).await;
    scene.assert_delivered(&id, 1, 1).await;
    assert_eq!(scene.delivery().await, committed);
    scene.stack.keep(dispatcher);
    scene.finish().await;
}

#[tokio::test]
async fn after_the_commit_and_before_the_ack_the_copy_is_a_duplicate() {
    let mut scene = Scene::start(without_dispatcher()).await;
    let mut doomed = scene
        .dispatcher(&FailPoints::abort_at("record.committed"))
        .await;
    let id = scene.publish().await;
    doomed.until_aborted().await;
    assert_eq!(scene.rows().await, [1, 1, 1, 1]);

    scene.another_dispatcher().await;
    scene.until_the_copy_is_a_duplicate().await;
    scene.assert_delivered(&id, 1, 1).await;
    scene.finish().await;
}

#[tokio::test]
async fn after_the_ack_and_before_the_announcement_the_sweep_finds_the_delivery() {
    let builder = without_dispatcher()
        .retries(0)
        .set("dispatcher.prefetch", "1")
        .set("retry.sweep_overdue_s", "1");
    let mut scene = Scene::start(builder).await;
    let mut doomed = scene
        .dispatcher(&FailPoints::hold_at("announce.publish"))
        .await;
    scene.receiver.next([Answer::status(500)]);
    let id = scene.publish().await;
    doomed.until_held("announce.publish").await;
    // With one event out at a time, the broker hands out the second when it has the ack of the first.
    let second = scene.publish().await;
    scene.stack.until_delivery_is(&second, "delivered").await;
    doomed.kill();
    let failed = scene.stack.amqp().await.depth(FAILED_QUEUE).await;
    assert_eq!(failed.ready, 0, "nothing was announced");

    scene.another_dispatcher().await;
    scene.stack.add(Kind::Retry).await;
    scene.stack.until_delivery_is(&id, "delivered").await;
    let requests = scene.receiver.requests();
    let of = |id: &str| requests.iter().filter(|r| r.delivery() == id).count();
    assert_eq!((of(&id), of(&second)), (2, 1));
    let attempts: Vec<i32> = scene
        .sql
        .column("SELECT attempts FROM deliveries ORDER BY attempts")
        .await;
    assert_eq!(attempts, [1, 2]);
    scene.finish().await;
}
