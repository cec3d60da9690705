//! Two dispatchers with one event or one delivery: it is recorded once, by whoever holds it last.

use std::time::Duration;

use tests::process::{Process, Signal};
use tests::service::Kind;
use tests::stack::Leftovers;
use tests::wait::{let_pass, until_equal};
use tests::{Answer, FailPoints, eventually};

use super::crash_fixture::{
    EVENT_TYPE, Scene, until_announcements, until_events, without_dispatcher,
};

/// With one event and one announcement out at a time, so that a held dispatcher gets no second one.
async fn scene() -> Scene {
    let builder = without_dispatcher()
        .retries(0)
        .set("dispatcher.prefetch", "1")
        .set("dispatcher.due_prefetch", "1")
        .set("retry_policy.schedule_s", "600");
    Scene::start(builder).await
}

async fn claimed_key(scene: &Scene) -> String {
    scene.sql.value("SELECT event_key::text FROM claims").await
}

#[tokio::test]
async fn an_event_in_two_dispatchers_at_once_is_recorded_by_the_second_alone() {
    let mut scene = scene().await;
    let first = scene
        .dispatcher(&FailPoints::hold_at("fan_out.claimed"))
        .await;
    let id = scene.publish().await;
    first.until_held("fan_out.claimed").await;
    let fenced = claimed_key(&scene).await;

    scene.another_dispatcher().await;
    scene.publish_again(&id).await;
    scene.assert_delivered(&id, 1, 1).await;
    let recorded = scene.delivery().await;
    first.go_on();
    // Its request goes out, its rows do not.
    until_events(first.admin(), "recorded", 1.0).await;
    scene.assert_delivered(&id, 2, 1).await;
    assert_eq!(scene.delivery().await, recorded);
    let keys: Vec<String> = scene.sql.column("SELECT key::text FROM events").await;
    assert_eq!(keys, [claimed_key(&scene).await]);
    assert_ne!(keys, [fenced]);
    scene.stack.keep(first);
    scene.finish().await;
}

/// An event that is claimed by a dispatcher which is held there, and a copy of it that another one may take over later. The
/// claim stays young for so many seconds.
async fn copy_beside_a_holder(scene: &mut Scene, young_for_s: u32) -> (Process, String) {
    let holder = scene
        .dispatcher(&FailPoints::hold_at("fan_out.claimed"))
        .await;
    let id = scene.publish().await;
    holder.until_held("fan_out.claimed").await;
    scene.another_dispatcher().await;
    let sql =
        format!("UPDATE claims SET claimed_at = clock_timestamp() + interval '{young_for_s} s'");
    scene.sql.execute(&sql).await;
    scene.publish_again(&id).await;
    (holder, id)
}

#[tokio::test]
async fn a_copy_that_comes_back_lets_whoever_claimed_a_moment_ago_record_it() {
    let mut scene = scene().await;
    let (holder, id) = copy_beside_a_holder(&mut scene, 60).await;
    let_pass(Duration::from_secs(2)).await;
    scene.assert_requests(&id, 0);
    holder.go_on();
    scene.until_the_copy_is_a_duplicate().await;
    scene.assert_delivered(&id, 1, 1).await;
    scene.stack.keep(holder);
    scene.finish().await;
}

#[tokio::test]
async fn a_copy_that_waits_for_a_holder_that_is_gone_takes_its_place() {
    let mut scene = scene().await;
    let (mut holder, id) = copy_beside_a_holder(&mut scene, 2).await;
    holder.kill();
    scene.assert_delivered(&id, 1, 1).await;
    scene.finish().await;
}

#[tokio::test]
async fn two_copies_that_are_recorded_slowly_do_not_take_the_event_from_each_other_for_ever() {
    let mut scene = scene().await;
    let points = FailPoints::hold_at("fan_out.attempted");
    let first = scene.dispatcher(&points).await;
    let id = scene.publish().await;
    first.until_held("fan_out.attempted").await;
    let second = scene.dispatcher(&points).await;
    scene.publish_again(&id).await;
    second.until_held("fan_out.attempted").await;

    // The first finds itself fenced while the second is still busy. Were its message put back, it would be sent again.
    first.go_on();
    let_pass(Duration::from_secs(3)).await;
    scene.assert_requests(&id, 2);
    assert_eq!(scene.rows().await, [1, 0, 0, 0]);
    second.go_on();
    until_events(first.admin(), "duplicate", 1.0).await;
    scene.assert_delivered(&id, 2, 1).await;
    scene.stack.keep(first);
    scene.stack.keep(second);
    scene.finish().await;
}

#[tokio::test]
async fn a_claim_that_a_crash_of_postgres_lost_does_not_hide_another_event_under_its_id() {
    let mut scene = scene().await;
    scene.stack.may_leave(Leftovers {
        rejected: true,
        ..Leftovers::default()
    });
    let first = scene
        .dispatcher(&FailPoints::hold_at("fan_out.claimed"))
        .await;
    let id = scene.publish().await;
    first.until_held("fan_out.claimed").await;
    scene.sql.execute("DELETE FROM claims").await;

    scene.another_dispatcher().await;
    scene
        .stack
        .publish_as(&id, &scene.partner, EVENT_TYPE, r#"{"other":true}"#)
        .await;
    scene.assert_delivered(&id, 1, 1).await;
    first.go_on();
    // Not "recorded": nobody would ever learn that its content is not what is recorded.
    until_events(first.admin(), "rejected", 1.0).await;
    scene.stack.add(Kind::Retry).await;
    until_equal("it is among the rejected", 1, async || {
        scene
            .sql
            .count("dead_letters WHERE line = 'rejected' AND code = 'id_conflict'")
            .await
    })
    .await;
    assert_eq!(scene.rows().await, [1, 1, 1, 1]);
    scene.stack.keep(first);
    scene.finish().await;
}

#[tokio::test]
async fn a_dispatcher_that_wakes_up_after_its_lease_changes_nothing() {
    let builder = without_dispatcher()
        .set("dispatcher.deliver.connect_timeout_ms", "500")
        .set("dispatcher.deliver.timeout_ms", "500")
        .set("dispatcher.lease_margin_ms", "1000")
        .set("retry.sweep_overdue_s", "1");
    let mut scene = Scene::start(builder).await;
    let mut sleeper = scene
        .dispatcher(&FailPoints::hold_at("deliver.answered"))
        .await;
    scene.receiver.next([Answer::status(500)]);
    let id = scene.publish().await;
    sleeper.until_held("deliver.answered").await;
    // Longer than an event is held, so it is recorded as in flight under a lease.
    scene.stack.until_delivery_is(&id, "in_flight").await;
    sleeper.signal(Signal::Stop);

    scene.another_dispatcher().await;
    scene.assert_delivered(&id, 2, 1).await;
    let delivered = scene.delivery().await;
    sleeper.signal(Signal::Cont);
    sleeper.go_on();
    sleeper
        .until_output("fail point deliver.answered: goes on")
        .await;
    // It ends in order, so that whatever it wanted to record is recorded.
    assert!(sleeper.terminate().await.success(), "{}", sleeper.output());
    assert_eq!(scene.delivery().await, delivered);
    assert_eq!(scene.sql.count("attempts").await, 0, "no failure of old");
    let healthy = "webhook_health WHERE failure_count = 0";
    assert_eq!(scene.sql.count(healthy).await, 1);
    scene.assert_delivered(&id, 2, 1).await;
    scene.finish().await;
}

#[tokio::test]
async fn an_announcement_that_is_overtaken_before_its_start_is_stale() {
    let mut scene = scene().await;
    let first = scene.dispatcher(&FailPoints::hold_at("due.taken")).await;
    let id = scene.failed_and_due().await;
    scene.announce(1).await;
    first.until_held("due.taken").await;

    scene.another_dispatcher().await;
    scene.announce(1).await;
    scene.assert_delivered(&id, 2, 2).await;
    let delivered = scene.delivery().await;
    first.go_on();
    until_announcements(first.admin(), "stale", 1.0).await;
    scene.assert_delivered(&id, 2, 2).await;
    assert_eq!(scene.delivery().await, delivered);
    scene.stack.keep(first);
    scene.finish().await;
}

#[tokio::test]
async fn an_announcement_of_a_turn_that_is_over_does_not_start_a_second_attempt_beside_the_first() {
    let mut scene = scene().await;
    let first = scene.dispatcher(&FailPoints::hold_at("due.started")).await;
    let id = scene.failed_and_due().await;
    scene.announce(1).await;
    first.until_held("due.started").await;
    let (status, turn, _) = scene.delivery().await;
    assert_eq!((status.as_str(), turn), ("in_flight", 2));

    scene.another_dispatcher().await;
    scene.announce(1).await;
    until_announcements(scene.admin(), "stale", 1.0).await;
    // This one's turn has come, and its lease has not ended.
    scene.announce(2).await;
    until_announcements(scene.admin(), "early", 1.0).await;
    scene.assert_requests(&id, 1);
    first.go_on();
    scene.assert_delivered(&id, 2, 2).await;
    scene.stack.keep(first);
    scene.finish().await;
}

#[tokio::test]
async fn an_announcement_whose_row_is_gone_when_it_is_looked_for_is_dead() {
    let mut scene = scene().await;
    scene.stack.may_leave(Leftovers {
        dead: true,
        ..Leftovers::default()
    });
    let first = scene.dispatcher(&FailPoints::hold_at("due.taken")).await;
    let id = scene.failed_and_due().await;
    scene.announce(1).await;
    first.until_held("due.taken").await;
    scene.sql.execute("DELETE FROM deliveries").await;
    first.go_on();
    until_announcements(first.admin(), "missing", 1.0).await;
    scene.stack.add(Kind::Retry).await;
    eventually("it is a row with its reason", async || {
        let dead = "dead_letters WHERE line = 'dead' AND code = 'missing'";
        (scene.sql.count(dead).await == 1).then_some(())
    })
    .await;
    scene.assert_requests(&id, 1);
    scene.stack.keep(first);
    scene.finish().await;
}
