//! The day changes between two steps of one event, or has no partition.

use std::time::Duration;

use tests::service::{self, Kind};
use tests::wait::let_pass;
use tests::{Answer, FailPoints, eventually};

use super::crash_fixture::{Scene, until_events, without_dispatcher};

/// Until it is defined anew, every key is made in the last millisecond of yesterday.
const STOP_THE_CLOCK: &str = "DO $$
     BEGIN
         EXECUTE replace(pg_get_functiondef('uuid_v7_millis'::regproc), 'DEFAULT clock_timestamp()',
             'DEFAULT date_trunc(''day'', clock_timestamp(), ''UTC'') - interval ''1 millisecond''');
     END $$";

/// A day without partitions, which nobody has made in time.
const DROP_TODAY: &str = "DO $$
     DECLARE
         parent text;
     BEGIN
         FOREACH parent IN ARRAY ARRAY['events', 'deliveries', 'attempts'] LOOP
             EXECUTE format('DROP TABLE %I', parent || to_char(now() AT TIME ZONE 'UTC', '_YYYYMMDD'));
         END LOOP;
     END $$";

#[tokio::test]
async fn an_event_claimed_before_midnight_is_recorded_and_retried_after_it_in_its_own_day() {
    let mut scene = Scene::start(without_dispatcher()).await;
    let clock: String = scene
        .sql
        .value("SELECT pg_get_functiondef('uuid_v7_millis'::regproc)")
        .await;
    scene.stack.database.make_day(1).await;
    scene.sql.execute(STOP_THE_CLOCK).await;
    let dispatcher = scene
        .dispatcher(&FailPoints::hold_at("fan_out.claimed"))
        .await;
    scene.receiver.next([Answer::status(500)]);
    let id = scene.publish().await;
    dispatcher.until_held("fan_out.claimed").await;
    scene.sql.execute(&clock).await;
    dispatcher.go_on();
    scene.assert_delivered(&id, 2, 2).await;

    let yesterday = "to_char((now() AT TIME ZONE 'UTC')::date - 1, '_YYYYMMDD')";
    for (table, rows) in [("events", 1), ("deliveries", 1), ("attempts", 2)] {
        let there = format!("{table} WHERE tableoid::regclass::text = '{table}' || {yesterday}");
        assert_eq!(scene.sql.count(&there).await, rows, "{table}");
    }
    // Tomorrow's copy finds it.
    scene.publish_again(&id).await;
    until_events(dispatcher.admin(), "duplicate", 1.0).await;
    scene.assert_delivered(&id, 2, 2).await;
    scene.stack.keep(dispatcher);
    scene.finish().await;
}

#[tokio::test]
async fn events_of_a_day_without_partitions_wait_for_them_and_the_probe_says_so() {
    let mut scene = Scene::start(without_dispatcher().retries(0)).await;
    scene.sql.execute(DROP_TODAY).await;
    scene.another_dispatcher().await;
    let first = scene.publish().await;
    let report = service::until_unready("dispatcher", scene.admin()).await;
    assert!(report.contains("no partition of relation"), "{report}");
    // What comes now is claimed, and not sent before it can be recorded.
    let second = scene.publish().await;
    eventually("the second is claimed", async || {
        (scene.sql.count("claims").await == 2).then_some(())
    })
    .await;
    // It would be sent a moment after its claim.
    let_pass(Duration::from_secs(1)).await;
    scene.assert_requests(&first, 1);

    // Its first step makes the days that are missing.
    scene.stack.add(Kind::Retry).await;
    for id in [&first, &second] {
        scene.stack.until_delivery_is(id, "delivered").await;
    }
    service::until_ready("dispatcher", scene.admin()).await;
    let requests = scene.receiver.requests();
    let sent: Vec<_> = requests.iter().map(|request| request.delivery()).collect();
    assert_eq!(sent, [first.as_str(), second.as_str()]);
    scene.finish().await;
}
