//! Partitions, retention, and what is trimmed: one step of each, and the service that does them.

use domain::id::PartnerId;
use retry::cadence::{Rest, Step as _};
use retry::metrics::Metrics;
use retry::partitions::Partitions;
use retry::trim::Trimming;
use store::partition::Retention;
use tests::service::{Kind, metric};
use tests::wait::until_equal;
use tests::{Database, Stack};

fn metrics() -> Metrics {
    Metrics::register(&runtime::metrics::registry("retry").unwrap()).unwrap()
}

fn partitions(database: &Database) -> Partitions {
    Partitions {
        store: database.store(),
        metrics: metrics(),
        days_ahead: 7,
        alert_below_days: 3,
        retention: Retention::default(),
    }
}

/// How many of the three tables of that day are left.
async fn tables_of_day(database: &Database, days_ago: i32) -> i64 {
    let query = format!(
        "SELECT count(*) FROM pg_class
         WHERE relkind = 'r' AND relname ~ ('^(events|deliveries|attempts)_'
             || to_char((now() AT TIME ZONE 'UTC')::date - {days_ago}, 'YYYYMMDD') || '$')"
    );
    database.sql().await.value(&query).await
}

#[tokio::test]
async fn the_days_to_come_are_made_and_an_alert_can_be_raised_before_they_run_out() {
    let mut stack = Stack::builder().without_services().start().await;
    let sql = stack.database.sql().await;
    for table in ["events", "deliveries", "attempts"] {
        let names: Vec<String> = sql
            .column(&format!(
                "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname ~ '^{table}_[0-9]{{8}}$'
                 ORDER BY 1 DESC LIMIT 6"
            ))
            .await;
        for name in names {
            sql.execute(&format!("DROP TABLE {name}")).await;
        }
    }
    assert_eq!(
        store::partition::days_ahead(&mut stack.database.store().get().await.unwrap())
            .await
            .unwrap(),
        1
    );
    stack.add(Kind::Retry).await;
    let admin = stack.services(Kind::Retry).next().unwrap().admin();
    until_equal("seven days are there", 7.0, async || {
        metric(admin, "retry_partition_days_ahead", "").await
    })
    .await;
    assert_eq!(tables_of_day(&stack.database, -7).await, 3);
    stack.finish().await;
}

#[tokio::test]
async fn days_go_when_their_time_is_over_but_none_with_a_delivery_that_is_not_final() {
    let database = Database::create().await;
    let sql = database.sql().await;
    for days_ago in [7, 8, 30, 31, 32] {
        database.make_day(days_ago).await;
    }
    // A delivery of 32 days ago that still waits keeps its day, events included.
    sql.execute(
        "INSERT INTO deliveries (id, event_key, event_id, event_type, partner_id, webhook_id, webhook_version, status,
             turn, attempts, next_attempt_at, expires_at)
         SELECT uuid_v7(at), uuid_v7(at), 'evt_1', 'listing.updated', 1, 1, 1, 'pending', 1, 1, now(), now()
         FROM (SELECT ((now() AT TIME ZONE 'UTC')::date - 32)::timestamp AT TIME ZONE 'UTC' + interval '1 h' AS at) AS t",
    )
    .await;
    let partitions = partitions(&database);
    assert_eq!(partitions.step().await.unwrap(), Rest::Nothing);
    let mut left = Vec::new();
    for days_ago in [7, 8, 30, 31, 32] {
        left.push(tables_of_day(&database, days_ago).await);
    }
    // Events are kept for 7 days, the others for 30.
    assert_eq!(left, [3, 2, 2, 0, 3]);

    sql.execute("UPDATE deliveries SET status = 'exhausted', next_attempt_at = NULL")
        .await;
    partitions.step().await.unwrap();
    assert_eq!(tables_of_day(&database, 32).await, 0);
    assert_eq!(tables_of_day(&database, 0).await, 3);
}

#[tokio::test]
async fn old_claims_go_in_batches_and_young_ones_and_unrecorded_ones_stay() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.execute(
        "INSERT INTO claims (partner_id, event_id, event_key, content_hash, claimed_at, recorded_at)
         SELECT 1, 'old_' || n, uuid_v7(), '\\x00'::bytea, now() - interval '25 h', now() - interval '25 h'
         FROM generate_series(1, 5) AS n
         UNION ALL SELECT 1, 'young', uuid_v7(), '\\x00'::bytea, now() - interval '23 h', now() - interval '23 h'
         UNION ALL SELECT 1, 'unrecorded', uuid_v7(), '\\x00'::bytea, now() - interval '25 h', NULL",
    )
    .await;
    let trimming = Trimming {
        store: database.store(),
        metrics: metrics(),
        batch: 2,
    };
    assert_eq!(trimming.step().await.unwrap(), Rest::More);
    assert_eq!(sql.count("claims").await, 5);
    assert_eq!(trimming.step().await.unwrap(), Rest::More);
    assert_eq!(trimming.step().await.unwrap(), Rest::Nothing);
    let left: Vec<String> = sql
        .column("SELECT event_id FROM claims ORDER BY event_id")
        .await;
    assert_eq!(left, ["unrecorded", "young"]);
}

#[tokio::test]
async fn what_dead_processes_left_is_trimmed() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.execute(
        "INSERT INTO service_instances (instance, service, version, ready, detail, heartbeat_at)
         VALUES ('gone', 'dispatcher', '1', true, '', now() - interval '2 h'),
                ('alive', 'dispatcher', '1', true, '', now());
         INSERT INTO webhook_breakers (webhook_id, instance, state, reason, until, updated_at)
         VALUES (1, 'gone', 'open', '', now(), now() - interval '2 h'),
                (1, 'alive', 'open', '', now(), now() - interval '2 h');
         INSERT INTO rate_limits (subject, window_started_at, requests)
         VALUES ('old', now() - interval '2 h', 1), ('young', now(), 1)",
    )
    .await;
    let trimming = Trimming {
        store: database.store(),
        metrics: metrics(),
        batch: 100,
    };
    assert_eq!(trimming.step().await.unwrap(), Rest::Nothing);
    for (query, left) in [
        ("SELECT instance FROM service_instances", "alive"),
        ("SELECT instance FROM webhook_breakers", "alive"),
        ("SELECT subject FROM rate_limits", "young"),
    ] {
        assert_eq!(sql.column::<String>(query).await, [left], "{query}");
    }
}

#[tokio::test]
async fn a_service_tells_that_it_is_alive_and_says_goodbye() {
    let mut stack = Stack::builder().apis(0).dispatchers(0).start().await;
    let sql = stack.database.sql().await;
    let alive = "service_instances WHERE service = 'retry' AND ready";
    until_equal("a sign of life", 1, async || sql.count(alive).await).await;
    stack.take(Kind::Retry).stop().await;
    assert_eq!(sql.count("service_instances").await, 0);
    stack.finish().await;
}

/// For the disabling tests: a webhook of a new partner with so many failures since so many days.
async fn failing(stack: &Stack, failures: i32, days: i32) -> (PartnerId, i64) {
    let partner = stack.partner().await;
    let webhook = partner
        .create_webhook("https://receiver.example/", &["listing.updated"])
        .await;
    let statement = format!(
        "UPDATE webhook_health SET failure_count = {failures}, failing_since = now() - interval '{days} days 1 h',
             last_triggered_at = now(), last_response_code = 500 WHERE webhook_id = {}",
        webhook.id
    );
    stack.database.sql().await.execute(&statement).await;
    (PartnerId(partner.id), webhook.id)
}

#[tokio::test]
async fn a_webhook_that_did_nothing_but_fail_for_five_days_is_disabled_and_the_dispatchers_hear_of_it()
 {
    let stack = Stack::builder()
        .dispatchers(0)
        .set("retry.disable_every_s", "1")
        .start()
        .await;
    let (_, few) = failing(&stack, 19, 6).await;
    let (_, young) = failing(&stack, 100, 4).await;
    let (_, done) = failing(&stack, 20, 5).await;
    let sql = stack.database.sql().await;
    let disabled = format!(
        "webhooks WHERE id = {done} AND NOT active AND disabled_reason = 'failing' AND version = 2
             AND deactivated_version = 2 AND disabled_at IS NOT NULL"
    );
    until_equal("it is disabled", 1, async || sql.count(&disabled).await).await;
    assert_eq!(
        sql.count(&format!(
            "webhooks WHERE id IN ({few}, {young}) AND active AND version = 1"
        ))
        .await,
        2
    );
    let history = format!(
        "webhook_versions WHERE webhook_id = {done} AND change = 'disabled' AND actor = 'retry'"
    );
    assert_eq!(sql.count(&history).await, 1);
    until_equal("the relay has told it", 0, async || {
        sql.count("outbox").await
    })
    .await;
    stack.finish().await;
}
