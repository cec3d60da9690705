//! The health of webhooks: what `record` makes of results, in whatever order and from however many writers they come.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::id::WebhookId;
use domain::webhook::HealthVersion;
use store::Session;
use store::health::{BreakerRow, trim_breakers, write_breaker};
use store::record::{NewDelivery, Step, record as try_record};
use store::service_instance::{Heartbeat, heartbeat};
use store::webhook::{Update, Webhook};
use uuid::Uuid;

use super::store_fixture::{
    ACTOR, Fixture, HEALTH_VERSION, delivered, delivery, ended, events, failed, record, retry_in,
    url,
};

const WAIT: Duration = Duration::from_secs(60);

async fn shown(fixture: &Fixture, webhook: &Webhook) -> Webhook {
    let mut session = fixture.session().await;
    let found = store::webhook::get(&mut session, fixture.partner, webhook.id).await;
    found.unwrap().unwrap()
}

async fn is_failing(fixture: &Fixture, webhook: &Webhook) -> bool {
    let condition = format!(
        "webhook_health WHERE webhook_id = {} AND failing_since IS NOT NULL",
        webhook.id
    );
    fixture.sql.count(&condition).await > 0
}

#[tokio::test]
async fn failures_are_counted_until_a_success() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let before = shown(&fixture, &webhook).await;
    assert_eq!((before.failure_count, before.last_triggered_at), (0, None));
    for (n, code) in [500, 503].into_iter().enumerate() {
        let attempt = failed(code);
        let begun = attempt.started_at;
        fixture
            .deliver(
                &mut session,
                &format!("evt_{n}"),
                &webhook,
                retry_in(WAIT),
                Some(attempt),
            )
            .await;
        let now = shown(&fixture, &webhook).await;
        assert_eq!(now.failure_count, i32::try_from(n).unwrap() + 1);
        assert_eq!(
            (now.last_response_code, now.last_triggered_at),
            (Some(code.into()), Some(begun))
        );
    }
    assert!(is_failing(&fixture, &webhook).await);
    fixture
        .deliver(
            &mut session,
            "evt_9",
            &webhook,
            Step::Delivered,
            Some(delivered()),
        )
        .await;
    let healed = shown(&fixture, &webhook).await;
    assert_eq!(
        (healed.failure_count, healed.last_response_code),
        (0, Some(200))
    );
    assert!(!is_failing(&fixture, &webhook).await);
    assert_eq!(
        healed.version, webhook.version,
        "a result is no change of the webhook"
    );
}

#[tokio::test]
async fn an_older_result_that_comes_late_overwrites_nothing() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let (older, newer) = (failed(500), delivered());
    fixture
        .deliver(
            &mut session,
            "evt_1",
            &webhook,
            Step::Delivered,
            Some(newer.clone()),
        )
        .await;
    fixture
        .deliver(&mut session, "evt_2", &webhook, retry_in(WAIT), Some(older))
        .await;
    let now = shown(&fixture, &webhook).await;
    assert_eq!((now.failure_count, now.last_response_code), (0, Some(200)));
    assert_eq!(now.last_triggered_at, Some(newer.started_at));
}

#[tokio::test]
async fn of_failures_on_both_sides_of_a_success_recorded_before_only_the_newest_counts() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    for batch in [&[(4, 200)][..], &[(1, 500), (5, 500), (6, 503)]] {
        let batch = batch.iter().map(|result| sent(&webhook, *result));
        record_results(&fixture, &mut session, batch).await;
    }
    assert_eq!(shown(&fixture, &webhook).await.failure_count, 1);
    assert_eq!(failing_since(&fixture, &webhook).await, Some(6));
}

#[tokio::test]
async fn failures_are_counted_on_after_a_suspension_and_a_late_success_still_ends_those_before_it()
{
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let before = [(2, 500), (3, 500)].map(|result| sent(&webhook, result));
    record_results(&fixture, &mut session, before).await;
    store::partner::suspend(&mut session, fixture.partner, ACTOR)
        .await
        .unwrap();
    store::partner::resume(&mut session, fixture.partner, ACTOR)
        .await
        .unwrap();
    let steps = [
        ((7, 500), 3, Some(2)),
        ((1, 200), 3, Some(2)),
        ((5, 200), 1, Some(7)),
        ((8, 200), 0, None),
    ];
    for (result, count, since) in steps {
        record_results(&fixture, &mut session, [sent(&webhook, result)]).await;
        assert_eq!(shown(&fixture, &webhook).await.failure_count, count);
        assert_eq!(failing_since(&fixture, &webhook).await, since);
    }
}

#[tokio::test]
async fn results_of_two_versions_in_one_batch_count_unless_health_began_anew_between_them() {
    let described = Update {
        description: Some(Some("orders".to_owned().try_into().unwrap())),
        ..Update::default()
    };
    let moved = Update {
        url: Some(url("https://elsewhere.example/")),
        ..Update::default()
    };
    for (update, counted) in [(described, 2), (moved, 1)] {
        let fixture = Fixture::new().await;
        let mut session = fixture.session().await;
        let webhook = fixture.webhook().await;
        let mut batch = vec![fixture.subscribed(&mut session, &webhook).await];
        store::webhook::update(&mut session, fixture.partner, webhook.id, &update, ACTOR)
            .await
            .unwrap();
        batch.push(fixture.subscribed(&mut session, &webhook).await);
        let versions: Vec<i32> = batch.iter().map(|s| s.version).collect();
        assert_eq!(versions, [1, 2]);
        let batch = batch
            .iter()
            .zip([(1, 500), (2, 503)])
            .map(|(subscription, result)| Sent {
                version: subscription.version,
                health_version: subscription.health_version,
                ..sent(&webhook, result)
            });
        record_results(&fixture, &mut session, batch).await;
        assert_eq!(shown(&fixture, &webhook).await.failure_count, counted);
    }
}

#[tokio::test]
async fn no_answer_at_all_shows_no_code() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    fixture
        .deliver(
            &mut session,
            "evt_1",
            &webhook,
            Step::Delivered,
            Some(delivered()),
        )
        .await;
    let mut attempt = failed(500);
    attempt.response = None;
    fixture
        .deliver(
            &mut session,
            "evt_2",
            &webhook,
            retry_in(WAIT),
            Some(attempt),
        )
        .await;
    let now = shown(&fixture, &webhook).await;
    assert_eq!((now.failure_count, now.last_response_code), (1, None));
}

#[tokio::test]
async fn results_of_the_version_before_another_url_count_no_more() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    fixture.start(&mut session, id, 1).await;
    fixture.move_webhook(&mut session, &webhook).await;
    assert_eq!(shown(&fixture, &webhook).await.failure_count, 0);
    record(
        &mut session,
        &ended(id, &webhook, 2, retry_in(WAIT), failed(500)),
    )
    .await;
    let now = shown(&fixture, &webhook).await;
    assert_eq!(now.failure_count, 0);
    assert_eq!(
        fixture.row(id).await,
        ("pending".to_owned(), 3),
        "the delivery goes on"
    );
}

#[tokio::test]
async fn a_success_at_another_url_ends_no_failures_of_this_one() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    record_results(&fixture, &mut session, [sent(&webhook, (5, 200))]).await;
    fixture.move_webhook(&mut session, &webhook).await;
    // Sent by a dispatcher whose clock is behind the other's.
    let failure = Sent {
        health_version: HealthVersion(2),
        ..sent(&webhook, (3, 500))
    };
    record_results(&fixture, &mut session, [failure]).await;
    assert_eq!(shown(&fixture, &webhook).await.failure_count, 1);
    assert_eq!(failing_since(&fixture, &webhook).await, Some(3));
}

#[tokio::test]
async fn writers_with_the_same_webhooks_in_other_orders_do_not_block_each_other() {
    const WEBHOOKS: usize = 50;
    const WRITERS: usize = 4;
    const ROUNDS: usize = 5;
    let fixture = Fixture::new().await;
    let mut webhooks = Vec::new();
    for _ in 0..WEBHOOKS {
        webhooks.push(fixture.webhook().await);
    }
    let mut sessions = Vec::new();
    for _ in 0..WRITERS {
        sessions.push(fixture.session().await);
    }
    let writers = sessions
        .iter_mut()
        .enumerate()
        .map(async |(writer, session)| {
            let mut order: Vec<&Webhook> = webhooks.iter().collect();
            order.rotate_left(writer * 11);
            if writer % 2 == 1 {
                order.reverse();
            }
            for round in 0..ROUNDS {
                let event_id = format!("evt_{writer}_{round}");
                let key = fixture.claim(session, &event_id).await;
                let rows = order
                    .iter()
                    .map(|webhook| delivery(key, webhook, retry_in(WAIT), Some(failed(500))))
                    .collect();
                try_record(session, &events([fixture.event(key, &event_id, rows)]))
                    .await
                    .unwrap();
            }
        });
    futures_util::future::join_all(writers).await;
    let counts: Vec<i32> = fixture
        .sql
        .column("SELECT DISTINCT failure_count FROM webhook_health")
        .await;
    assert_eq!(counts, [i32::try_from(WRITERS * ROUNDS).unwrap()]);
}

#[tokio::test]
async fn a_breaker_has_a_row_while_it_is_not_closed() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let mut row = BreakerRow {
        webhook_id: WebhookId(7),
        state: Some("open"),
        reason: "too many failures".to_owned(),
        until: chrono::Utc::now(),
    };
    for instance in ["one", "other"] {
        write_breaker(&mut session, instance, &row).await.unwrap();
        write_breaker(&mut session, instance, &row).await.unwrap();
    }
    assert_eq!(fixture.sql.count("webhook_breakers").await, 2);
    row.state = None;
    write_breaker(&mut session, "one", &row).await.unwrap();
    let left: Vec<String> = fixture
        .sql
        .column("SELECT instance FROM webhook_breakers")
        .await;
    assert_eq!(left, ["other"]);
}

#[tokio::test]
async fn breakers_of_dispatchers_that_are_gone_are_forgotten() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let row = BreakerRow {
        webhook_id: WebhookId(7),
        state: Some("open"),
        reason: "too many failures".to_owned(),
        until: chrono::Utc::now(),
    };
    for instance in ["alive", "gone"] {
        write_breaker(&mut session, instance, &row).await.unwrap();
    }
    assert_eq!(
        trim_breakers(&mut session).await.unwrap(),
        0,
        "they are young"
    );
    let alive = Heartbeat {
        instance: "alive",
        service: "dispatcher",
        version: "1",
        ready: true,
        detail: "",
    };
    heartbeat(&mut session, &alive).await.unwrap();
    fixture
        .sql
        .execute("UPDATE webhook_breakers SET updated_at = now() - interval '2 h'")
        .await;
    assert_eq!(trim_breakers(&mut session).await.unwrap(), 1);
    let left: Vec<String> = fixture
        .sql
        .column("SELECT instance FROM webhook_breakers")
        .await;
    assert_eq!(left, ["alive"]);
}

/// An attempt's result, as a test tells it.
struct Sent<'a> {
    webhook: &'a Webhook,
    version: i32,
    health_version: HealthVersion,
    /// When it began.
    second: i64,
    status: u16,
}

fn sent(webhook: &Webhook, (second, status): (i64, u16)) -> Sent<'_> {
    Sent {
        webhook,
        version: webhook.version,
        health_version: HEALTH_VERSION,
        second,
        status,
    }
}

/// Records results in one batch, each as the first attempt of an event of its own.
async fn record_results(
    fixture: &Fixture,
    session: &mut Session,
    results: impl IntoIterator<Item = Sent<'_>>,
) {
    let mut recorded = Vec::new();
    for result in results {
        let event_id = format!("evt_{}", Uuid::now_v7());
        let key = fixture.claim(session, &event_id).await;
        let (step, mut attempt) = match result.status {
            200 => (Step::Delivered, delivered()),
            status => (retry_in(WAIT), failed(status)),
        };
        attempt.started_at = second(result.second);
        let delivery = NewDelivery {
            webhook_version: result.version,
            health_version: result.health_version,
            ..delivery(key, result.webhook, step, Some(attempt))
        };
        recorded.push(fixture.event(key, &event_id, vec![delivery]));
    }
    record(session, &events(recorded)).await;
}

async fn failing_since(fixture: &Fixture, webhook: &Webhook) -> Option<i64> {
    let query = format!(
        "SELECT extract(epoch FROM failing_since)::bigint FROM webhook_health WHERE webhook_id = {}",
        webhook.id
    );
    fixture.sql.value_of(&query, &[]).await
}

fn second(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap()
}
