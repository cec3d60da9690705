//! Partners: suspending and resuming, and what dispatchers load of them.

use domain::id::PartnerId;
use domain::plan::Plan;
use store::subscription::{load, load_many, load_one};
use store::webhook::{Creation, Update};

use super::store_fixture::{ACTOR, EVENT_TYPE, Fixture, keyring};

#[tokio::test]
async fn a_suspended_partner_matches_nothing_and_may_create_nothing() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    fixture.webhook().await;
    let suspended = store::partner::suspend(&mut session, fixture.partner, ACTOR)
        .await
        .unwrap()
        .unwrap();
    assert!(suspended.suspended_at.is_some());
    let loaded = load(&mut session, &fixture.keyring, fixture.partner)
        .await
        .unwrap();
    assert!(loaded.unwrap().suspended);
    assert_eq!(
        fixture.create_webhook(&mut session).await,
        Creation::Forbidden
    );
    let resumed = store::partner::resume(&mut session, fixture.partner, ACTOR)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(resumed.suspended_at, None);
    let loaded = load(&mut session, &fixture.keyring, fixture.partner)
        .await
        .unwrap();
    let loaded = loaded.unwrap();
    assert_eq!((loaded.suspended, loaded.subscriptions.len()), (false, 1));
}

#[tokio::test]
async fn suspending_announces_each_webhook_once_however_often_it_is_asked_for() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let (one, other) = (fixture.webhook().await, fixture.webhook().await);
    for _ in 0..2 {
        store::partner::suspend(&mut session, fixture.partner, ACTOR)
            .await
            .unwrap();
    }
    let versions: Vec<i32> = fixture
        .sql
        .column("SELECT version FROM webhooks WHERE deactivated_version = version ORDER BY id")
        .await;
    assert_eq!(versions, [2, 2]);
    for webhook in [one, other] {
        let history = store::webhook::history(&mut session, webhook.id, 10)
            .await
            .unwrap();
        let changes: Vec<_> = history.iter().map(|v| v.change.as_str()).collect();
        assert_eq!(changes, ["suspended", "created"]);
        assert_eq!(
            history[0].after.as_ref().unwrap()["partner_suspended"],
            true
        );
    }
    let keys: Vec<String> = fixture
        .sql
        .column("SELECT routing_key FROM outbox ORDER BY id")
        .await;
    assert_eq!(
        keys,
        [
            "webhook.created",
            "webhook.created",
            "webhook.updated",
            "webhook.updated"
        ]
    );
    for _ in 0..2 {
        store::partner::resume(&mut session, fixture.partner, ACTOR)
            .await
            .unwrap();
    }
    assert_eq!(fixture.sql.count("webhook_versions").await, 6);
}

#[tokio::test]
async fn whoever_does_not_exist_can_be_neither_suspended_nor_loaded() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let nobody = PartnerId(999);
    assert_eq!(
        store::partner::suspend(&mut session, nobody, ACTOR)
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        store::partner::resume(&mut session, nobody, ACTOR)
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        store::partner::get(&mut session, nobody).await.unwrap(),
        None
    );
    assert!(
        load(&mut session, &fixture.keyring, nobody)
            .await
            .unwrap()
            .is_none()
    );
    let plan = store::partner::set_plan(&mut session, nobody, Plan::Starter).await;
    assert_eq!(plan.unwrap(), None);
}

#[tokio::test]
async fn only_active_webhooks_of_the_partner_are_loaded() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let (active, inactive, deleted) = (
        fixture.webhook().await,
        fixture.webhook().await,
        fixture.webhook().await,
    );
    let update = Update {
        active: Some(false),
        ..Update::default()
    };
    store::webhook::update(&mut session, fixture.partner, inactive.id, &update, ACTOR)
        .await
        .unwrap();
    store::webhook::delete(&mut session, fixture.partner, deleted.id, ACTOR)
        .await
        .unwrap();
    let stranger = store::partner::create(&mut session, "B", Plan::Starter)
        .await
        .unwrap();
    let asked = [fixture.partner, stranger.id, PartnerId(999)];
    let loaded = load_many(&mut session, &fixture.keyring, &asked)
        .await
        .unwrap();
    assert_eq!(loaded.len(), 2);
    let own = &loaded[&fixture.partner].subscriptions;
    let ids: Vec<_> = own.iter().map(|s| s.webhook_id).collect();
    assert_eq!(ids, [active.id]);
    assert_eq!(own[0].events[0].as_str(), EVENT_TYPE);
    assert!(loaded[&stranger.id].subscriptions.is_empty());
    // A test call reaches an inactive one too, but neither a deleted one nor another partner's.
    let (keyring, partner) = (&fixture.keyring, fixture.partner);
    let one = async |session: &mut _, partner, id| {
        load_one(session, keyring, partner, id)
            .await
            .unwrap()
            .is_some()
    };
    assert!(one(&mut session, partner, inactive.id).await);
    assert!(!one(&mut session, partner, deleted.id).await);
    assert!(!one(&mut session, stranger.id, active.id).await);
}

#[tokio::test]
async fn after_a_rotation_old_secrets_still_open_and_new_ones_are_sealed_by_the_new_key() {
    let mut fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let old = fixture.webhook().await;
    let before = load_one(&mut session, &fixture.keyring, fixture.partner, old.id)
        .await
        .unwrap()
        .unwrap();
    fixture.keyring = keyring(&["test", "new"], "new");
    fixture.webhook().await;
    let loaded = load(&mut session, &fixture.keyring, fixture.partner)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (loaded.subscriptions.len(), loaded.unreadable.len()),
        (2, 0)
    );
    let after = &loaded.subscriptions[0];
    assert_eq!(
        before.signer.sign_body(b"body"),
        after.signer.sign_body(b"body"),
    );
    let keys: Vec<String> = fixture
        .sql
        .column("SELECT sealing_key_id FROM webhooks ORDER BY id")
        .await;
    assert_eq!(keys, ["test", "new"]);
}

#[tokio::test]
async fn a_webhook_whose_key_is_missing_is_told_apart_from_one_that_does_not_match() {
    let mut fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let old = fixture.webhook().await;
    fixture.keyring = keyring(&["new"], "new");
    let new = fixture.webhook().await;
    let loaded = load(&mut session, &fixture.keyring, fixture.partner)
        .await
        .unwrap()
        .unwrap();
    let readable: Vec<_> = loaded.subscriptions.iter().map(|s| s.webhook_id).collect();
    assert_eq!(readable, [new.id]);
    assert_eq!(loaded.unreadable.len(), 1);
    let unreadable = &loaded.unreadable[0];
    assert_eq!(
        (unreadable.webhook_id, unreadable.version),
        (old.id, old.version)
    );
    assert_eq!(unreadable.events, [EVENT_TYPE]);
    assert!(
        unreadable.reason.contains("\"test\""),
        "{}",
        unreadable.reason
    );
}
