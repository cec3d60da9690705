//! What can't be recorded keeps the dispatcher from sending more.

use std::time::Duration;

use tests::wait::let_pass;
use tests::{eventually, service};

use super::crash_fixture::{Scene, without_dispatcher};

#[tokio::test]
async fn while_somebody_locks_what_is_recorded_nothing_more_is_sent_and_the_probe_says_so() {
    let mut scene = Scene::start(without_dispatcher()).await;
    scene.stack.set("postgres.statement_timeout_ms", "1000");
    scene.another_dispatcher().await;
    let blocker = scene.stack.database.sql().await;
    blocker
        .execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        .await;
    let first = scene.publish().await;
    let report = service::until_unready("dispatcher", scene.admin()).await;
    assert!(report.contains("can't record"), "{report}");
    let second = scene.publish().await;
    eventually("the second is claimed", async || {
        (scene.sql.count("claims").await == 2).then_some(())
    })
    .await;
    // It would be sent a moment after its claim.
    let_pass(Duration::from_secs(1)).await;
    scene.assert_requests(&first, 1);

    blocker.execute("COMMIT").await;
    for id in [&first, &second] {
        scene.stack.until_delivery_is(id, "delivered").await;
    }
    assert_eq!(scene.receiver.requests().len(), 2);
    service::until_ready("dispatcher", scene.admin()).await;
    scene.finish().await;
}
