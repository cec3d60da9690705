//! A management API that ends before and after its relay publishes a change: dispatchers learn of it all the same.

use broker::subscription::ChangeKind;
use tests::service::Kind;
use tests::wait::until_equal;
use tests::{FailPoints, Partner, Stack, eventually};

use super::api_fixture::Listener;
use super::crash_fixture::Scene;

/// Deletes the webhook over an API that ends at the step, and returns who listens to the changes.
async fn delete_and_crash(point: &str) -> (Scene, Listener) {
    let mut scene = Scene::start(Stack::builder().retries(0)).await;
    let first = scene.publish().await;
    // From here on the dispatcher knows the webhook.
    scene.stack.until_delivery_is(&first, "delivered").await;
    until_equal("the outbox is empty", 0, async || {
        scene.sql.count("outbox").await
    })
    .await;
    scene.stack.take(Kind::ManagementApi).stop().await;
    let listener = Listener::start(&scene.stack).await;

    let points = FailPoints::abort_at(point);
    let mut doomed = scene.stack.process_with(Kind::ManagementApi, &points).await;
    let api = tests::Client::new(&scene.stack.api_origin(), Some(&scene.partner.key));
    let path = Partner::webhook_path(scene.webhook.id);
    // The process may end before it has answered.
    let _answer = api
        .try_send(api.request(reqwest::Method::DELETE, &path))
        .await;
    doomed.until_aborted().await;
    assert_eq!(scene.sql.count("outbox").await, 1, "still to be published");
    assert_eq!(
        scene
            .sql
            .count("webhooks WHERE deleted_at IS NOT NULL")
            .await,
        1
    );
    (scene, listener)
}

/// Another API takes the entry when its lease is over, which is here made to be so.
async fn lease_ends(scene: &mut Scene) {
    scene
        .sql
        .execute("UPDATE outbox SET leased_until = now() - interval '1 s'")
        .await;
    scene.stack.add(Kind::ManagementApi).await;
    until_equal("the outbox is empty", 0, async || {
        scene.sql.count("outbox").await
    })
    .await;
}

/// The dispatcher has dropped the webhook: events come to no delivery any more.
async fn until_the_dispatcher_knows(scene: &Scene) {
    eventually("an event matches nothing", async || {
        let id = scene.publish().await;
        eventually("it is recorded", async || {
            let query =
                "SELECT count(*) FROM claims WHERE event_id = $1 AND recorded_at IS NOT NULL";
            (scene.sql.value_of::<i64>(query, &[&id]).await == 1).then_some(())
        })
        .await;
        let query = "SELECT count(*) FROM deliveries WHERE event_id = $1";
        (scene.sql.value_of::<i64>(query, &[&id]).await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn before_a_change_is_published_another_publishes_it() {
    let (mut scene, mut listener) = delete_and_crash("relay.publish").await;
    lease_ends(&mut scene).await;
    let change = listener.next().await;
    assert_eq!((change.kind, change.version), (ChangeKind::Deleted, 2));
    until_the_dispatcher_knows(&scene).await;
    listener.close().await;
    scene.finish().await;
}

#[tokio::test]
async fn after_a_change_was_published_it_comes_twice_with_one_version() {
    let (mut scene, mut listener) = delete_and_crash("relay.published").await;
    let first = listener.next().await;
    until_the_dispatcher_knows(&scene).await;
    let sent = scene.receiver.requests().len();
    lease_ends(&mut scene).await;
    let again = listener.next().await;
    assert_eq!((first.kind, first.version), (again.kind, again.version));
    assert_eq!(first.webhook_id, again.webhook_id);
    until_the_dispatcher_knows(&scene).await;
    assert_eq!(scene.receiver.requests().len(), sent);
    listener.close().await;
    scene.finish().await;
}
