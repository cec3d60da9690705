//! Deliveries that nobody wants any more: they read as cancelled at once, and are written so when their time comes.

use domain::delivery::DeliveryStatus;
use domain::id::DeliveryId;
use store::Session;
use store::delivery::{DeliveryFilter, Starting};
use store::record::Step;
use store::webhook::{Update, Webhook};

use super::store_fixture::{ACTOR, Fixture, delivered};

fn assert_started(starting: Starting) {
    assert!(matches!(starting, Starting::Started(_)), "{starting:?}");
}

async fn set_active(fixture: &Fixture, webhook: &Webhook, active: bool) -> Webhook {
    let update = Update {
        active: Some(active),
        ..Update::default()
    };
    let mut session = fixture.session().await;
    store::webhook::update(&mut session, fixture.partner, webhook.id, &update, ACTOR)
        .await
        .unwrap()
        .unwrap()
}

/// What `list` says of the only delivery.
async fn listed(fixture: &Fixture, status: DeliveryStatus) -> usize {
    let filter = DeliveryFilter {
        status: Some(status),
        limit: 10,
        ..DeliveryFilter::default()
    };
    let listed = store::delivery::list(&mut fixture.session().await, &filter).await;
    listed.unwrap().len()
}

/// The delivery reads as cancelled at once, and is written so when its time comes.
async fn assert_cancelled(fixture: &Fixture, session: &mut Session, id: DeliveryId) {
    let found = fixture.find(id).await;
    assert_eq!(
        (found.status.as_str(), found.next_attempt_at),
        ("cancelled", None)
    );
    assert_eq!(listed(fixture, DeliveryStatus::Cancelled).await, 1);
    assert_eq!(listed(fixture, DeliveryStatus::Pending).await, 0);
    assert_eq!(fixture.row(id).await, ("pending".to_owned(), 1));
    let starting = fixture.start(session, id, 1).await;
    let cancelled = matches!(starting, Starting::Ended(DeliveryStatus::Cancelled));
    assert!(cancelled, "{starting:?}");
    assert_eq!(fixture.row(id).await, ("cancelled".to_owned(), 2));
    assert!(matches!(
        fixture.start(session, id, 2).await,
        Starting::Stale
    ));
}

#[tokio::test]
async fn what_waits_for_a_deactivated_webhook_is_cancelled_for_good() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    set_active(&fixture, &webhook, false).await;
    assert_eq!(fixture.find(id).await.status, "cancelled");
    let again = set_active(&fixture, &webhook, true).await;
    assert!(again.active);
    assert_cancelled(&fixture, &mut session, id).await;
    let new = fixture.due(&mut session, "evt_2", &again).await;
    assert_started(fixture.start(&mut session, new, 1).await);
}

#[tokio::test]
async fn what_waits_for_a_deleted_webhook_is_cancelled() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    let deleted = store::webhook::delete(&mut session, fixture.partner, webhook.id, ACTOR).await;
    assert!(deleted.unwrap());
    assert_cancelled(&fixture, &mut session, id).await;
}

#[tokio::test]
async fn what_waits_for_a_suspended_partner_is_cancelled_for_good() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    store::partner::suspend(&mut session, fixture.partner, ACTOR)
        .await
        .unwrap();
    assert_eq!(fixture.find(id).await.status, "cancelled");
    store::partner::resume(&mut session, fixture.partner, ACTOR)
        .await
        .unwrap();
    assert_cancelled(&fixture, &mut session, id).await;
}

#[tokio::test]
async fn a_change_that_is_no_deactivation_cancels_nothing() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    let update = Update {
        events: Some(vec!["cosell.created".parse().unwrap()]),
        ..Update::default()
    };
    store::webhook::update(&mut session, fixture.partner, webhook.id, &update, ACTOR)
        .await
        .unwrap();
    assert_started(fixture.start(&mut session, id, 1).await);
}

#[tokio::test]
async fn what_was_final_before_stays_what_it_was() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture
        .deliver(
            &mut session,
            "evt_1",
            &webhook,
            Step::Delivered,
            Some(delivered()),
        )
        .await;
    set_active(&fixture, &webhook, false).await;
    assert_eq!(fixture.find(id).await.status, "delivered");
    assert!(matches!(
        fixture.start(&mut session, id, 1).await,
        Starting::Stale
    ));
}
