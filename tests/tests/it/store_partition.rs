//! Partitions: made ahead, and dropped when their time is over, but never under a delivery that is not final.

use std::time::Duration;

use domain::id::DeliveryId;
use store::partition::{Retention, create, days_ahead, drop_expired};
use store::record::Step;

use super::store_fixture::{
    Fixture, delivered, delivery, events, failed, key_in_days, record, retry_in,
};

const RETENTION: Retention = Retention {
    events_days: 7,
    deliveries_days: 30,
};

/// The name of a table's partition so many days from today.
async fn partition(fixture: &Fixture, table: &str, days: i32) -> String {
    let query = "SELECT $1::text || to_char((clock_timestamp() AT TIME ZONE 'UTC')::date + $2::integer, '_YYYYMMDD')";
    fixture.sql.value_of(query, &[&table, &days]).await
}

/// Makes the three partitions of a day.
async fn make_day(fixture: &Fixture, days: i32) {
    for table in ["events", "deliveries", "attempts"] {
        let name = partition(fixture, table, days).await;
        let statement = format!(
            "DO $$ DECLARE day date := (clock_timestamp() AT TIME ZONE 'UTC')::date + {days}; BEGIN \
               EXECUTE format('CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM (%L) TO (%L)', \
                 uuid_v7_floor(day), uuid_v7_floor(day + 1)); END $$"
        );
        fixture.sql.execute(&statement).await;
    }
}

/// An event with one delivery as it was recorded so many days ago.
async fn record_in_days(fixture: &Fixture, days: i64, event_id: &str, step: Step) -> DeliveryId {
    let webhook = fixture.webhook().await;
    let key = key_in_days(days);
    let attempt = match step {
        Step::Delivered => delivered(),
        _ => failed(500),
    };
    let row = delivery(key, &webhook, step, Some(attempt));
    let id = row.id;
    let mut session = fixture.session().await;
    record(
        &mut session,
        &events([fixture.event(key, event_id, vec![row])]),
    )
    .await;
    id
}

async fn exists(fixture: &Fixture, table: &str) -> bool {
    let query = "SELECT to_regclass($1) IS NOT NULL";
    fixture.sql.value_of(query, &[&table]).await
}

#[tokio::test]
async fn missing_days_are_made_by_whoever_comes_first_and_a_gap_is_seen() {
    let fixture = Fixture::new().await;
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    assert_eq!(days_ahead(&mut one).await.unwrap(), 7);
    let name = partition(&fixture, "attempts", 4).await;
    fixture.sql.execute(&format!("DROP TABLE {name}")).await;
    assert_eq!(days_ahead(&mut one).await.unwrap(), 3);
    let (first, second) = tokio::join!(create(&mut one, 9), create(&mut other, 9));
    assert_eq!(first.unwrap() + second.unwrap(), 7);
    assert_eq!(days_ahead(&mut one).await.unwrap(), 9);
    let name = partition(&fixture, "events", 0).await;
    fixture.sql.execute(&format!("DROP TABLE {name}")).await;
    assert_eq!(days_ahead(&mut one).await.unwrap(), 0);
}

#[tokio::test]
async fn days_are_dropped_when_their_time_is_over() {
    let fixture = Fixture::new().await;
    for days in [-31, -30, -8, -7] {
        make_day(&fixture, days).await;
    }
    record_in_days(&fixture, -31, "evt_1", Step::Delivered).await;
    let young = record_in_days(&fixture, -8, "evt_2", Step::Delivered).await;
    let dropped = drop_expired(&fixture.store, RETENTION).await.unwrap();
    assert!(dropped.kept.is_empty(), "{dropped:?}");
    let mut expected = Vec::new();
    for (table, days) in [
        ("attempts", -31),
        ("deliveries", -31),
        ("events", -31),
        ("events", -30),
        ("events", -8),
    ] {
        expected.push(partition(&fixture, table, days).await);
    }
    assert_eq!(dropped.tables, expected);
    for table in &expected {
        assert!(!exists(&fixture, table).await, "{table}");
    }
    assert_eq!(fixture.find(young).await.status, "delivered");
    let again = drop_expired(&fixture.store, RETENTION).await.unwrap();
    assert_eq!(again.tables, Vec::<String>::new());
}

#[tokio::test]
async fn a_day_with_a_delivery_that_is_not_final_is_kept_whole() {
    let fixture = Fixture::new().await;
    make_day(&fixture, -40).await;
    let waiting = retry_in(Duration::from_secs(60));
    let id = record_in_days(&fixture, -40, "evt_1", waiting).await;
    let dropped = drop_expired(&fixture.store, RETENTION).await.unwrap();
    assert!(dropped.tables.is_empty(), "{dropped:?}");
    assert_eq!(dropped.kept.len(), 3);
    fixture.make_due(id, 0.0).await;
    let mut session = fixture.session().await;
    let starting = fixture.start(&mut session, id, 1).await;
    assert!(
        matches!(starting, store::delivery::Starting::Started(_)),
        "{starting:?}"
    );
    fixture
        .sql
        .execute(
            "UPDATE deliveries SET status = 'exhausted', next_attempt_at = NULL, finished_at = now()",
        )
        .await;
    let dropped = drop_expired(&fixture.store, RETENTION).await.unwrap();
    assert_eq!(dropped.tables.len(), 3);
}

#[tokio::test]
async fn a_drop_that_was_interrupted_is_finished_by_the_next() {
    let fixture = Fixture::new().await;
    make_day(&fixture, -40).await;
    make_day(&fixture, -41).await;
    let events = partition(&fixture, "events", -40).await;
    let reader = fixture.database.sql().await;
    // A transaction that has seen the table holds the second half of a concurrent detach back.
    reader
        .execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM events")
        .await;
    let interrupted = fixture.database.sql().await;
    interrupted.execute("SET lock_timeout = '100 ms'").await;
    let detach = format!("ALTER TABLE events DETACH PARTITION {events} CONCURRENTLY");
    assert!(interrupted.try_execute(&detach).await.is_err());
    reader.execute("COMMIT").await;
    assert_eq!(
        fixture
            .sql
            .count("pg_inherits WHERE inhdetachpending")
            .await,
        1
    );
    // Another was detached whole, and its process was killed before the drop.
    let alone = partition(&fixture, "attempts", -41).await;
    fixture
        .sql
        .execute(&format!("ALTER TABLE attempts DETACH PARTITION {alone}"))
        .await;
    let dropped = drop_expired(&fixture.store, RETENTION).await.unwrap();
    assert_eq!(dropped.tables.len(), 6, "{dropped:?}");
    assert_eq!(
        dropped.tables[0], events,
        "what keeps others from starting comes first"
    );
    assert!(!exists(&fixture, &events).await && !exists(&fixture, &alone).await);
}

#[tokio::test]
async fn while_one_drops_another_does_nothing() {
    let fixture = Fixture::new().await;
    make_day(&fixture, -40).await;
    fixture
        .sql
        .execute("SELECT pg_advisory_lock(hashtext('drop_expired'))")
        .await;
    let dropped = drop_expired(&fixture.store, RETENTION).await.unwrap();
    assert!(dropped.tables.is_empty() && dropped.kept.is_empty());
    fixture
        .sql
        .execute("SELECT pg_advisory_unlock(hashtext('drop_expired'))")
        .await;
    assert_eq!(
        drop_expired(&fixture.store, RETENTION)
            .await
            .unwrap()
            .tables
            .len(),
        3
    );
}
