//! Webhooks that we switch off: only by the version that was sent, and only while nothing but failures happened.

use std::time::Duration;

use domain::webhook::DisabledReason;
use store::Session;
use store::webhook::{Failing, Update, Webhook};

use super::store_fixture::{ACTOR, Fixture, failed, retry_in, url};

const WAIT: Duration = Duration::from_secs(60);

async fn update(fixture: &Fixture, webhook: &Webhook, update: &Update) -> Webhook {
    let mut session = fixture.session().await;
    store::webhook::update(&mut session, fixture.partner, webhook.id, update, ACTOR)
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_webhook_is_disabled_only_by_the_version_that_was_sent() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let moved = Update {
        url: Some(url("https://elsewhere.example/")),
        ..Update::default()
    };
    let now = update(&fixture, &webhook, &moved).await;
    let disable = async |session: &mut Session, version| {
        let reason = DisabledReason::Gone;
        store::webhook::disable(session, webhook.id, version, reason, "dispatcher")
            .await
            .unwrap()
    };
    assert!(!disable(&mut session, webhook.version).await);
    assert!(disable(&mut session, now.version).await);
    assert!(!disable(&mut session, now.version).await);
    assert!(
        !disable(&mut session, now.version + 1).await,
        "it is inactive"
    );
    let disabled = store::webhook::get(&mut session, fixture.partner, webhook.id)
        .await
        .unwrap()
        .unwrap();
    assert!(!disabled.active && disabled.disabled_at.is_some());
    assert_eq!(disabled.disabled_reason, Some(DisabledReason::Gone));
    let announced = format!(
        "outbox WHERE routing_key = 'webhook.disabled' AND payload ->> 'version' = '{}'",
        now.version + 1
    );
    assert_eq!(fixture.sql.count(&announced).await, 1);
}

#[tokio::test]
async fn enabling_a_webhook_again_forgets_why_it_was_disabled_and_its_failures() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    fixture
        .deliver(
            &mut session,
            "evt_1",
            &webhook,
            retry_in(WAIT),
            Some(failed(500)),
        )
        .await;
    fixture
        .sql
        .execute(
            "INSERT INTO webhook_breakers (webhook_id, instance, state, reason, until)
             SELECT id, 'one', 'open', 'failures', now() FROM webhooks",
        )
        .await;
    let reason = DisabledReason::Failing;
    store::webhook::disable(&mut session, webhook.id, webhook.version, reason, "retry")
        .await
        .unwrap();
    let enable = Update {
        active: Some(true),
        ..Update::default()
    };
    let enabled = update(&fixture, &webhook, &enable).await;
    assert_eq!((enabled.disabled_reason, enabled.disabled_at), (None, None));
    assert_eq!(enabled.failure_count, 0);
    assert_eq!(fixture.sql.count("webhook_breakers").await, 0);
    let fresh = format!(
        "webhook_health WHERE failing_since IS NULL AND since_version = {}",
        enabled.version
    );
    assert_eq!(fixture.sql.count(&fresh).await, 1);
}

#[tokio::test]
async fn webhooks_that_only_fail_for_long_enough_are_found() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let found = async |session: &mut Session| -> Vec<Failing> {
        let lasting = Duration::from_secs(5 * 86_400);
        store::webhook::failing(session, lasting, 20, 10)
            .await
            .unwrap()
    };
    let webhook = fixture.webhook().await;
    let set = async |since_days: i32, last_days: i32, count: i32| {
        let statement = "UPDATE webhook_health SET failing_since = now() - make_interval(days => $1), \
             last_triggered_at = now() - make_interval(days => $2), failure_count = $3";
        fixture
            .sql
            .run(statement, &[&since_days, &last_days, &count])
            .await;
    };
    for (since_days, last_days, count, expected) in [
        (4, 0, 100, 0),
        (6, 0, 19, 0),
        // Nothing was tried lately: it has not been failing for five days.
        (6, 2, 30, 0),
        (6, 0, 20, 1),
    ] {
        set(since_days, last_days, count).await;
        let found = found(&mut session).await;
        assert_eq!(found.len(), expected, "{since_days} {last_days} {count}");
    }
    let failing = found(&mut session).await.remove(0);
    assert_eq!((failing.id, failing.version), (webhook.id, webhook.version));
    store::partner::suspend(&mut session, fixture.partner, ACTOR)
        .await
        .unwrap();
    assert!(
        found(&mut session).await.is_empty(),
        "a suspended partner's are left alone"
    );
    store::partner::resume(&mut session, fixture.partner, ACTOR)
        .await
        .unwrap();
    // Its days are counted since then, for nothing was tried meanwhile, and since the first failure.
    for (resumed_days, since_days, expected) in [(0, 6, 0), (4, 6, 0), (6, 30, 1), (30, 4, 0)] {
        let statement = "UPDATE partners SET resumed_at = now() - make_interval(days => $1)";
        fixture.sql.run(statement, &[&resumed_days]).await;
        set(since_days, 0, 20).await;
        let found = found(&mut session).await.len();
        assert_eq!(found, expected, "{resumed_days} {since_days}");
    }
}
