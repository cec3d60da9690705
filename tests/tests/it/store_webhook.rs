//! Webhooks: the plan's limit, and every change as a version and an entry of the outbox in one transaction.

use domain::id::WebhookId;
use domain::plan::Plan;
use serde_json::Value;
use store::Session;
use store::webhook::change::ChangeKind;
use store::webhook::{Creation, Update, Webhook};

use super::store_fixture::{ACTOR, Fixture, LEASE, url};

/// Routing key and payload of all entries of the outbox.
async fn outbox(session: &mut Session) -> Vec<(String, Value)> {
    let entries = store::outbox::lease(session, 100, LEASE).await.unwrap();
    let read = |entry: &store::outbox::Entry| serde_json::from_str(&entry.payload).unwrap();
    entries
        .iter()
        .map(|entry| (entry.routing_key.clone(), read(entry)))
        .collect()
}

async fn update(fixture: &Fixture, webhook: &Webhook, update: &Update) -> Webhook {
    let mut session = fixture.session().await;
    store::webhook::update(&mut session, fixture.partner, webhook.id, update, ACTOR)
        .await
        .unwrap()
        .unwrap()
}

fn active(active: bool) -> Update {
    Update {
        active: Some(active),
        ..Update::default()
    }
}

#[tokio::test]
async fn requests_at_once_do_not_pass_the_plans_limit_together() {
    let fixture = Fixture::new().await;
    let mut sessions = Vec::new();
    for _ in 0..6 {
        sessions.push(fixture.session().await);
    }
    store::partner::set_plan(&mut sessions[0], fixture.partner, Plan::Starter)
        .await
        .unwrap();
    let asked = sessions
        .iter_mut()
        .map(|session| fixture.create_webhook(session));
    let answers = futures_util::future::join_all(asked).await;
    let refused = Creation::LimitReached { webhooks_max: 2 };
    assert_eq!(
        answers.iter().filter(|a| **a == refused).count(),
        4,
        "{answers:?}"
    );
    assert_eq!(fixture.sql.count("webhooks").await, 2);
}

#[tokio::test]
async fn an_inactive_webhook_counts_towards_the_limit_and_a_deleted_one_does_not() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    store::partner::set_plan(&mut session, fixture.partner, Plan::Starter)
        .await
        .unwrap();
    let (one, other) = (fixture.webhook().await, fixture.webhook().await);
    update(&fixture, &one, &active(false)).await;
    let full = fixture.create_webhook(&mut session).await;
    assert_eq!(full, Creation::LimitReached { webhooks_max: 2 });
    store::webhook::delete(&mut session, fixture.partner, other.id, ACTOR)
        .await
        .unwrap();
    fixture.webhook().await;
}

#[tokio::test]
async fn every_change_is_a_version_and_an_announcement() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let moved = Update {
        url: Some(url("https://elsewhere.example/")),
        ..Update::default()
    };
    update(&fixture, &webhook, &moved).await;
    store::webhook::delete(&mut session, fixture.partner, webhook.id, "api_key:1")
        .await
        .unwrap();

    let announced = outbox(&mut session).await;
    let keys: Vec<_> = announced.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        ["webhook.created", "webhook.updated", "webhook.deleted"]
    );
    for (n, (key, payload)) in announced.iter().enumerate() {
        assert_eq!(payload["type"], key.as_str());
        assert_eq!(payload["version"], n + 1);
        assert_eq!(payload["webhook_id"], webhook.id.0);
        assert_eq!(payload["partner_id"], fixture.partner.0);
        assert!(payload["at"].as_str().unwrap().ends_with('Z'));
    }
    let history = store::webhook::history(&mut session, webhook.id, 10)
        .await
        .unwrap();
    let changes: Vec<_> = history.iter().map(|v| (v.version, v.change)).collect();
    assert_eq!(
        changes,
        [
            (3, ChangeKind::Deleted),
            (2, ChangeKind::Updated),
            (1, ChangeKind::Created)
        ]
    );
    assert_eq!(
        (&history[0].after, history[0].actor.as_str()),
        (&None, "api_key:1")
    );
    assert_eq!(
        history[1].before.as_ref().unwrap()["url"],
        webhook.url.as_str()
    );
    assert_eq!(
        history[1].after.as_ref().unwrap()["url"],
        "https://elsewhere.example/"
    );
    let written = format!("{history:?}");
    assert!(!written.contains("secret"), "{written}");
}

#[tokio::test]
async fn a_change_that_is_undone_leaves_neither_version_nor_announcement() {
    let fixture = Fixture::new().await;
    let webhook = fixture.webhook().await;
    let mut transaction = fixture.store.begin().await.unwrap();
    let (partner, change) = (fixture.partner, active(false));
    store::webhook::update(&mut transaction, partner, webhook.id, &change, ACTOR)
        .await
        .unwrap();
    assert!(matches!(
        fixture.create_webhook(&mut transaction).await,
        Creation::Created(_)
    ));
    transaction.rollback().await.unwrap();
    for (table, left) in [
        ("webhooks", 1),
        ("webhook_versions", 1),
        ("outbox", 1),
        (
            "webhooks WHERE active AND version = 1 AND deactivated_version = 0",
            1,
        ),
    ] {
        assert_eq!(fixture.sql.count(table).await, left, "{table}");
    }
}

#[tokio::test]
async fn an_update_that_changes_nothing_makes_no_version() {
    let fixture = Fixture::new().await;
    let webhook = fixture.webhook().await;
    let same = Update {
        url: Some(url(&webhook.url)),
        events: Some(webhook.events.clone()),
        description: Some(None),
        active: Some(true),
    };
    assert_eq!(update(&fixture, &webhook, &same).await, webhook);
    assert_eq!(fixture.sql.count("outbox").await, 1);
}

#[tokio::test]
async fn a_deleted_webhook_is_gone_for_its_partner_and_its_secret_for_everyone() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let partner = fixture.partner;
    assert!(
        store::webhook::delete(&mut session, partner, webhook.id, ACTOR)
            .await
            .unwrap()
    );
    assert!(
        !store::webhook::delete(&mut session, partner, webhook.id, ACTOR)
            .await
            .unwrap()
    );
    assert_eq!(
        store::webhook::get(&mut session, partner, webhook.id)
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        store::webhook::list(&mut session, partner, 1, 10)
            .await
            .unwrap()
            .total,
        0
    );
    let change = active(true);
    let changed = store::webhook::update(&mut session, partner, webhook.id, &change, ACTOR).await;
    assert_eq!(changed.unwrap(), None);
    let wiped = "webhooks WHERE secret IS NULL AND sealing_key_id IS NULL AND NOT active";
    assert_eq!(fixture.sql.count(wiped).await, 1);
    assert!(
        !store::webhook::delete(&mut session, partner, WebhookId(999), ACTOR)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn pages_are_newest_first_and_of_one_partner_only() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, fixture.webhook().await.id);
    }
    let page = async |session: &mut Session, partner, page| {
        let page = store::webhook::list(session, partner, page, 2)
            .await
            .unwrap();
        let ids: Vec<_> = page.webhooks.iter().map(|webhook| webhook.id).collect();
        (ids, page.total)
    };
    let partner = fixture.partner;
    assert_eq!(page(&mut session, partner, 1).await, (ids[..2].to_vec(), 5));
    assert_eq!(page(&mut session, partner, 3).await, (ids[4..].to_vec(), 5));
    assert_eq!(page(&mut session, partner, u64::MAX).await, (vec![], 5));
    let stranger = store::partner::create(&mut session, "B", Plan::Starter)
        .await
        .unwrap();
    assert_eq!(page(&mut session, stranger.id, 1).await, (vec![], 0));
    let foreign = store::webhook::get(&mut session, stranger.id, ids[0])
        .await
        .unwrap();
    assert_eq!(foreign, None);
}
