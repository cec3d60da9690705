//! The health of webhooks: what `record` makes of results, in whatever order and from however many writers they come.

use std::ops::Range;
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::id::WebhookId;
use store::Session;
use store::health::{BreakerRow, trim_breakers, write_breaker};
use store::record::{Step, record as try_record};
use store::service_instance::{Heartbeat, heartbeat};
use store::webhook::{Update, Webhook};

use super::store_fixture::{
    ACTOR, Fixture, delivered, delivery, ended, events, failed, record, retry_in, url,
};

const WAIT: Duration = Duration::from_secs(60);
/// Seconds at which attempts began, and what was answered.
const RESULTS: [(i64, u16); 4] = [(1, 500), (2, 200), (3, 500), (4, 503)];

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
async fn results_in_any_order_and_any_batches_end_alike() {
    for batch_size in [1, 2] {
        let fixture = Fixture::new().await;
        let mut session = fixture.session().await;
        let mut orders = Vec::new();
        for order in permutations(&RESULTS) {
            orders.push((fixture.webhook().await, order));
        }
        for first in (0..RESULTS.len()).step_by(batch_size) {
            let places = first..first + batch_size;
            record_results(&fixture, &mut session, &orders, places).await;
        }
        for (webhook, order) in &orders {
            let now = shown(&fixture, webhook).await;
            let case = format!("{order:?} in batches of {batch_size}");
            assert_eq!(now.last_triggered_at, Some(second(4)), "{case}");
            assert_eq!(now.last_response_code, Some(503), "{case}");
            let since: Vec<i64> = fixture
                .sql
                .column(&format!(
                    "SELECT extract(epoch FROM failing_since)::bigint FROM webhook_health \
                     WHERE webhook_id = {} AND last_success_at = to_timestamp(2)",
                    webhook.id
                ))
                .await;
            // Where the success comes after failures on both sides of it, only the newest is known to be newer.
            let known = [(2, vec![3]), (1, vec![4])];
            let exact = *order == RESULTS;
            let known = if exact { &known[..1] } else { &known[..] };
            assert!(known.contains(&(now.failure_count, since)), "{case}");
        }
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
    let update = Update {
        url: Some(url("https://elsewhere.example/")),
        ..Update::default()
    };
    store::webhook::update(&mut session, fixture.partner, webhook.id, &update, ACTOR)
        .await
        .unwrap();
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

/// An event for each place of the orders: each webhook is told the result that stands there in its own order.
async fn record_results(
    fixture: &Fixture,
    session: &mut Session,
    orders: &[(Webhook, Vec<(i64, u16)>)],
    places: Range<usize>,
) {
    let mut recorded = Vec::new();
    for place in places {
        let event_id = format!("evt_{place}");
        let key = fixture.claim(session, &event_id).await;
        let rows = orders.iter().map(|(webhook, order)| {
            let (at, status) = order[place];
            let (step, mut attempt) = match status {
                200 => (Step::Delivered, delivered()),
                _ => (retry_in(WAIT), failed(status)),
            };
            attempt.started_at = second(at);
            delivery(key, webhook, step, Some(attempt))
        });
        recorded.push(fixture.event(key, &event_id, rows.collect()));
    }
    record(session, &events(recorded)).await;
}

fn second(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap()
}

fn permutations<T: Copy>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (place, &first) in items.iter().enumerate() {
        let rest = [&items[..place], &items[place + 1..]].concat();
        for mut order in permutations(&rest) {
            order.insert(0, first);
            all.push(order);
        }
    }
    all
}
