//! Deliveries whose announcement was lost. No dispatcher runs: the tests look at what it would get.

use std::time::Duration;

use broker::topology::DUE_QUEUE;
use broker::{Broker, Publisher};
use retry::cadence::{Rest, Step as _};
use retry::metrics::Metrics;
use retry::sweep::Sweep;
use serde_json::Value;
use tests::service::{Kind, metric};
use tests::wait::until_equal;
use tests::{Amqp, Stack, eventually};
use tokio_util::task::TaskTracker;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A delivery that waits since `overdue_s` seconds for its next attempt.
async fn insert(stack: &Stack, overdue_s: i32, announcements: i32) {
    let statement = format!(
        "INSERT INTO deliveries (id, event_key, event_id, event_type, partner_id, webhook_id, webhook_version, status,
             turn, attempts, next_attempt_at, expires_at, announcements, announce_again_at, traceparent)
         VALUES (uuid_v7(), uuid_v7(), 'evt_1', 'listing.updated', 1, 7, 1, 'pending', 3, 1,
             now() - make_interval(secs => {overdue_s}), now() + interval '1 day', {announcements},
             CASE WHEN {announcements} > 0 THEN now() - interval '2 hours' END, '{TRACEPARENT}')"
    );
    stack.database.sql().await.execute(&statement).await;
}

async fn take(amqp: &Amqp) -> Value {
    let body = eventually("an announcement is due", async || {
        amqp.take(DUE_QUEUE).await
    })
    .await;
    serde_json::from_slice(&body).unwrap()
}

/// One step of a sweep, without the service around it.
struct Stepping {
    sweep: Sweep,
    broker: Broker,
    tracker: TaskTracker,
}

impl Stepping {
    async fn new(stack: &Stack, batch: i64) -> Self {
        let tracker = TaskTracker::new();
        let broker = Broker::start(stack.settings().retry().rabbitmq, "tests", &tracker).unwrap();
        broker.link().await.unwrap();
        let publisher: Publisher = broker.publisher();
        let sweep = Sweep {
            store: stack.database.store(),
            broker: broker.clone(),
            publisher,
            metrics: Metrics::register(&runtime::metrics::registry("retry").unwrap()).unwrap(),
            overdue: Duration::from_secs(30),
            batch,
        };
        Self {
            sweep,
            broker,
            tracker,
        }
    }

    async fn end(self) {
        drop(self.sweep);
        self.broker.close().await;
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[tokio::test]
async fn an_overdue_delivery_is_announced_with_all_that_a_dispatcher_needs() {
    let mut stack = Stack::builder().without_services().start().await;
    // There before the service, which measures at its start and then not for a while.
    insert(&stack, 40, 0).await;
    stack.add(Kind::Retry).await;
    let announced = take(stack.amqp().await).await;
    let sql = stack.database.sql().await;
    let next_ms: i64 = sql
        .value("SELECT floor(extract(epoch FROM next_attempt_at) * 1000)::bigint FROM deliveries")
        .await;
    let announcements: i32 = sql.value("SELECT announcements FROM deliveries").await;
    assert_eq!(announced["not_before_ms"], next_ms);
    assert_eq!(announced["webhook_id"], 7);
    assert_eq!(announced["turn"], 3);
    assert_eq!(announced["reason"], "sweep");
    assert_eq!(announcements, 1);
    let admin = stack.services(Kind::Retry).next().unwrap().admin();
    until_equal("it is counted", 1.0, async || {
        metric(admin, "retry_swept_total", "").await
    })
    .await;
    until_equal("the gauge tells of it", true, async || {
        metric(admin, "retry_oldest_waiting_seconds", "").await >= 40.0
    })
    .await;
    stack.finish().await;
}

#[tokio::test]
async fn a_step_takes_the_oldest_first_and_no_row_twice_before_its_time() {
    let stack = Stack::builder().without_services().start().await;
    let stepping = Stepping::new(&stack, 2).await;
    for overdue_s in [40, 60, 50, 20] {
        insert(&stack, overdue_s, 0).await;
    }
    let sql = stack.database.sql().await;
    let announced = "SELECT extract(epoch FROM now() - next_attempt_at)::int / 10 FROM deliveries \
                     WHERE announce_again_at IS NOT NULL ORDER BY 1";
    assert_eq!(stepping.sweep.step().await.unwrap(), Rest::More);
    assert_eq!(sql.column::<i32>(announced).await, [5, 6]);
    assert_eq!(stepping.sweep.step().await.unwrap(), Rest::Nothing);
    assert_eq!(sql.column::<i32>(announced).await, [4, 5, 6]);
    assert_eq!(stepping.sweep.step().await.unwrap(), Rest::Nothing);
    until_equal("each is announced once", 3, async || {
        stack.amqp().await.depth(DUE_QUEUE).await.ready
    })
    .await;
    stepping.end().await;
    stack.finish().await;
}

#[tokio::test]
async fn sweeps_at_the_same_time_share_the_work() {
    let stack = Stack::builder().without_services().start().await;
    let (one, other) = tokio::join!(Stepping::new(&stack, 500), Stepping::new(&stack, 500));
    for _ in 0..50 {
        insert(&stack, 100, 0).await;
    }
    let (a, b) = tokio::join!(one.sweep.step(), other.sweep.step());
    assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
    // Rows that one of them held were skipped by the other.
    one.sweep.step().await.unwrap();
    until_equal("each is announced once", 50, async || {
        stack.amqp().await.depth(DUE_QUEUE).await.ready
    })
    .await;
    let sql = stack.database.sql().await;
    assert_eq!(sql.count("deliveries WHERE announcements = 1").await, 50);
    one.end().await;
    other.end().await;
    stack.finish().await;
}

#[tokio::test]
async fn the_tenth_announcement_without_an_attempt_raises_an_alert_and_ends_nothing() {
    let stack = Stack::builder().apis(0).dispatchers(0).start().await;
    insert(&stack, 100_000, 9).await;
    take(stack.amqp().await).await;
    let admin = stack.services(Kind::Retry).next().unwrap().admin();
    assert_eq!(metric(admin, "retry_unheard_total", "").await, 1.0);
    let sql = stack.database.sql().await;
    assert_eq!(
        sql.count("deliveries WHERE status = 'pending' AND announcements = 10")
            .await,
        1
    );
    stack.finish().await;
}

#[tokio::test]
async fn nothing_is_stamped_while_rabbitmq_is_away() {
    let stack = Stack::builder().without_services().start().await;
    let stepping = Stepping::new(&stack, 500).await;
    insert(&stack, 40, 0).await;
    stepping.broker.close().await;
    assert_eq!(stepping.sweep.step().await.unwrap(), Rest::Nothing);
    let sql = stack.database.sql().await;
    assert_eq!(
        sql.count("deliveries WHERE announce_again_at IS NULL")
            .await,
        1
    );
    stepping.end().await;
    stack.finish().await;
}
