//! `record`: the end of later attempts, and deliveries that are put off, each only under the turn that it names.

use std::collections::HashSet;
use std::time::Duration;

use domain::delivery::ParkReason;
use domain::id::DeliveryId;
use store::Session;
use store::delivery::Starting;
use store::record::{Batch, ParkedDelivery, Step};
use store::webhook::{Update, Webhook};

use super::store_fixture::{
    ACTOR, EXPIRE_AFTER, Fixture, LEASE, delivered, ended, failed, record, retry_in,
};

const WAIT: Duration = Duration::from_secs(90);

/// A second attempt that is under way: its turn is 2.
async fn begun(fixture: &Fixture, session: &mut Session, webhook: &Webhook) -> DeliveryId {
    let id = fixture.due(session, "evt_1", webhook).await;
    let starting = fixture.start(session, id, 1).await;
    assert!(matches!(starting, Starting::Started(_)), "{starting:?}");
    id
}

fn parked(id: DeliveryId, turn: i32) -> Batch {
    let parked = ParkedDelivery {
        delivery_id: id,
        turn,
        wait: WAIT,
        reason: ParkReason::Cap,
    };
    Batch {
        parked: vec![parked],
        ..Batch::default()
    }
}

#[tokio::test]
async fn the_end_of_an_attempt_is_written_once_however_often_it_is_given() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = begun(&fixture, &mut session, &webhook).await;
    let batch = ended(id, &webhook, 2, retry_in(WAIT), failed(502));
    let recorded = record(&mut session, &batch).await;
    assert!(recorded.applied.contains(&(id, 2)));
    assert_eq!(
        (recorded.scheduled[0].turn, recorded.scheduled[0].parked),
        (3, false)
    );
    let found = fixture.find(id).await;
    assert_eq!(
        (found.status.as_str(), found.attempts, found.turn),
        ("pending", 2, 3)
    );
    assert_eq!(found.response_code, Some(502));
    fixture
        .assert_in(id, "next_attempt_at", WAIT.as_secs_f64())
        .await;

    let before = fixture.snapshot().await;
    let again = record(&mut session, &batch).await;
    assert!(again.applied.is_empty() && again.scheduled.is_empty());
    assert_eq!(fixture.snapshot().await, before);
}

#[tokio::test]
async fn every_attempt_of_a_delivery_is_kept() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = begun(&fixture, &mut session, &webhook).await;
    record(
        &mut session,
        &ended(id, &webhook, 2, Step::Delivered, delivered()),
    )
    .await;
    let attempts = store::delivery::attempts(&mut session, id).await.unwrap();
    let seen: Vec<_> = attempts
        .iter()
        .map(|a| (a.number, a.response_code))
        .collect();
    assert_eq!(seen, [(1, Some(500)), (2, Some(200))]);
    let found = fixture.find(id).await;
    assert_eq!(
        (found.status.as_str(), found.error_kind),
        ("delivered", None)
    );
    assert!(found.finished_at.is_some() && found.next_attempt_at.is_none());
}

#[tokio::test]
async fn a_first_attempt_that_took_long_and_succeeded_is_still_one_row() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let step = Step::InFlight { lease: LEASE };
    let id = fixture
        .deliver(&mut session, "evt_1", &webhook, step, None)
        .await;
    let mut batch = ended(id, &webhook, 1, Step::Delivered, delivered());
    batch.ended[0].number = 1;
    record(&mut session, &batch).await;
    let found = fixture.find(id).await;
    assert_eq!((found.status.as_str(), found.attempts), ("delivered", 1));
    assert_eq!(fixture.sql.count("attempts").await, 0);
    let attempts = store::delivery::attempts(&mut session, id).await.unwrap();
    assert_eq!(attempts.len(), 1);
}

#[tokio::test]
async fn who_comes_with_a_stale_turn_changes_nothing() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = begun(&fixture, &mut session, &webhook).await;
    let before = fixture.snapshot().await;
    for turn in [1, 3] {
        let late = ended(id, &webhook, turn, Step::Delivered, delivered());
        assert!(record(&mut session, &late).await.applied.is_empty());
        assert!(
            record(&mut session, &parked(id, turn))
                .await
                .applied
                .is_empty()
        );
    }
    assert_eq!(fixture.snapshot().await, before);
}

#[tokio::test]
async fn of_two_ends_of_one_delivery_in_a_batch_only_that_of_its_turn_is_written() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = begun(&fixture, &mut session, &webhook).await;
    let stale = ended(id, &webhook, 2, retry_in(WAIT), failed(502));
    // Its lease ran out, and it was begun again.
    fixture.make_due(id, 0.0).await;
    fixture.start(&mut session, id, 2).await;
    let mut batch = ended(id, &webhook, 3, retry_in(WAIT), failed(503));
    batch.ended.extend(stale.ended);
    let recorded = record(&mut session, &batch).await;
    assert_eq!(recorded.applied, HashSet::from([(id, 3)]));
    let attempts = store::delivery::attempts(&mut session, id).await.unwrap();
    let codes: Vec<_> = attempts.iter().map(|a| a.response_code).collect();
    assert_eq!(codes, [Some(500), Some(503)]);
    let health = store::webhook::get(&mut session, fixture.partner, webhook.id).await;
    assert_eq!(health.unwrap().unwrap().failure_count, 2);
}

#[tokio::test]
async fn a_delivery_is_exhausted_when_its_next_attempt_would_come_after_its_time() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = begun(&fixture, &mut session, &webhook).await;
    fixture
        .sql
        .execute("UPDATE deliveries SET expires_at = now() + interval '60 s'")
        .await;
    let recorded = record(
        &mut session,
        &ended(id, &webhook, 2, retry_in(WAIT), failed(500)),
    )
    .await;
    assert!(recorded.applied.contains(&(id, 2)) && recorded.scheduled.is_empty());
    let found = fixture.find(id).await;
    assert_eq!(
        (found.status.as_str(), found.next_attempt_at),
        ("exhausted", None)
    );
    assert!(found.finished_at.is_some());
}

#[tokio::test]
async fn what_a_receiver_asks_for_extends_the_time_of_a_delivery() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = begun(&fixture, &mut session, &webhook).await;
    let asked = Duration::from_secs(7200);
    let step = Step::Retry {
        after: WAIT + asked,
        extend_expiry_by: asked,
    };
    fixture
        .sql
        .execute("UPDATE deliveries SET expires_at = now() + interval '100 s'")
        .await;
    record(&mut session, &ended(id, &webhook, 2, step, failed(429))).await;
    assert_eq!(fixture.row(id).await, ("pending".to_owned(), 3));
    fixture
        .assert_in(id, "expires_at", 100.0 + asked.as_secs_f64())
        .await;
    let first = fixture
        .deliver(&mut session, "evt_2", &webhook, step, Some(failed(429)))
        .await;
    let expires = (EXPIRE_AFTER + asked).as_secs_f64();
    fixture.assert_in(first, "expires_at", expires).await;
}

#[tokio::test]
async fn parking_raises_the_turn_and_uses_no_attempt() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    for parkings in 1..=2 {
        let recorded = record(&mut session, &parked(id, parkings)).await;
        assert!(recorded.applied.contains(&(id, parkings)) && recorded.scheduled[0].parked);
        assert_eq!(recorded.scheduled[0].parkings, parkings);
        let found = fixture.find(id).await;
        assert_eq!(
            (found.status.as_str(), found.turn),
            ("pending", parkings + 1)
        );
        assert_eq!((found.parkings, found.attempts), (parkings, 1));
        assert_eq!(found.park_reason.as_deref(), Some("cap"));
    }
    fixture
        .assert_in(id, "next_attempt_at", WAIT.as_secs_f64())
        .await;
    let failures = fixture
        .sql
        .count("webhook_health WHERE failure_count = 1")
        .await;
    assert_eq!(failures, 1, "only the first attempt counts");
}

#[tokio::test]
async fn an_attempt_that_was_begun_and_not_made_is_parked_too() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = begun(&fixture, &mut session, &webhook).await;
    record(&mut session, &parked(id, 2)).await;
    let found = fixture.find(id).await;
    assert_eq!(
        (found.status.as_str(), found.turn, found.attempts),
        ("pending", 3, 1)
    );
}

#[tokio::test]
async fn parking_ends_what_its_partner_switched_off() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    let update = Update {
        active: Some(false),
        ..Update::default()
    };
    store::webhook::update(&mut session, fixture.partner, webhook.id, &update, ACTOR)
        .await
        .unwrap();
    let recorded = record(&mut session, &parked(id, 1)).await;
    assert!(recorded.applied.contains(&(id, 1)) && recorded.scheduled.is_empty());
    assert_eq!(fixture.row(id).await, ("cancelled".to_owned(), 2));
}

#[tokio::test]
async fn parking_ends_what_would_wait_longer_than_its_time() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    fixture
        .sql
        .execute("UPDATE deliveries SET expires_at = now() + interval '60 s'")
        .await;
    record(&mut session, &parked(id, 1)).await;
    assert_eq!(fixture.row(id).await, ("exhausted".to_owned(), 2));
}

#[tokio::test]
async fn the_results_of_one_batch_stand_beside_each_other() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let begun = begun(&fixture, &mut session, &webhook).await;
    let waiting = fixture.due(&mut session, "evt_2", &webhook).await;
    let mut batch = ended(begun, &webhook, 2, Step::Delivered, delivered());
    batch.parked = parked(waiting, 1).parked;
    let key = fixture.claim(&mut session, "evt_3").await;
    batch.events = vec![fixture.event(key, "evt_3", vec![])];
    let recorded = record(&mut session, &batch).await;
    assert_eq!(recorded.applied.len(), 2);
    assert_eq!(recorded.markings.len(), 1);
    assert_eq!(recorded.scheduled.len(), 1);
    assert_eq!(fixture.sql.count("events").await, 3);
}
