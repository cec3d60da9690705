//! `record`: an event and a delivery for every matched webhook in one transaction, by whoever holds the claim.

use std::time::Duration;

use domain::delivery::ParkReason;
use domain::id::EventKey;
use store::claim::{ClaimRequest, claim};
use store::record::{Marking, NewDelivery, Recorded, Step, record as try_record};
use tests::wait::until_equal;
use tokio::time::timeout;

use super::store_fixture::{
    EXPIRE_AFTER, Fixture, LEASE, delivered, delivery, events, failed, held, record, retry_in,
};

const WAIT: Duration = Duration::from_secs(90);

fn marking(recorded: &Recorded, key: EventKey) -> Marking {
    recorded.markings[&key]
}

async fn take_over(fixture: &Fixture, event_id: &str) -> EventKey {
    fixture.age_claims("2 s").await;
    let request = ClaimRequest {
        takeover: true,
        ..fixture.claim_request(event_id)
    };
    held(
        claim(&mut fixture.session().await, &[request])
            .await
            .unwrap()[0],
    )
}

#[tokio::test]
async fn an_event_is_recorded_with_a_delivery_for_every_matched_webhook() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let (one, other) = (fixture.webhook().await, fixture.webhook().await);
    let key = fixture.claim(&mut session, "evt_1").await;
    let deliveries = vec![
        delivery(key, &one, Step::Delivered, Some(delivered())),
        delivery(key, &other, retry_in(WAIT), Some(failed(503))),
    ];
    let batch = events([fixture.event(key, "evt_1", deliveries.clone())]);
    let recorded = record(&mut session, &batch).await;

    assert_eq!(marking(&recorded, key), Marking::Recorded);
    let found = store::delivery::of_event(&mut session, key).await.unwrap();
    let statuses: Vec<_> = found
        .iter()
        .map(|d| (d.webhook_id, d.status.as_str()))
        .collect();
    assert_eq!(statuses, [(one.id.0, "delivered"), (other.id.0, "pending")]);
    let scheduled = &recorded.scheduled[0];
    assert_eq!(recorded.scheduled.len(), 1);
    assert_eq!(scheduled.delivery_id, deliveries[1].id);
    assert_eq!((scheduled.turn, scheduled.parked), (1, false));
    assert_eq!(Some(scheduled.next_attempt_at), found[1].next_attempt_at);
    let body: Vec<u8> = fixture.sql.value("SELECT body FROM events").await;
    assert_eq!(body, batch.events[0].body);
    let marked = fixture
        .sql
        .count("claims WHERE recorded_at IS NOT NULL")
        .await;
    assert_eq!(marked, 1);
}

#[tokio::test]
async fn a_success_at_once_is_one_row_and_shows_its_attempt() {
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
    assert_eq!(fixture.sql.count("attempts").await, 0);
    let found = fixture.find(id).await;
    assert_eq!(
        (found.attempts, found.turn, found.next_attempt_at),
        (1, 1, None)
    );
    assert!(found.finished_at.is_some());
    let attempts = store::delivery::attempts(&mut session, id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!(
        (attempts[0].number, attempts[0].response_code),
        (1, Some(200))
    );
    assert_eq!(attempts[0].total_us, 12_000);
}

#[tokio::test]
async fn a_first_failure_is_an_attempt_and_a_wait() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture
        .deliver(
            &mut session,
            "evt_1",
            &webhook,
            retry_in(WAIT),
            Some(failed(503)),
        )
        .await;
    let found = fixture.find(id).await;
    assert_eq!((found.status.as_str(), found.attempts), ("pending", 1));
    assert_eq!(found.finished_at, None);
    fixture
        .assert_in(id, "next_attempt_at", WAIT.as_secs_f64())
        .await;
    fixture
        .assert_in(id, "expires_at", EXPIRE_AFTER.as_secs_f64())
        .await;
    let attempts = store::delivery::attempts(&mut session, id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].error_kind.as_deref(), Some("status"));
    assert_eq!(
        attempts[0].response_body.as_deref(),
        Some(b"body".as_slice())
    );
}

#[tokio::test]
async fn an_attempt_under_way_holds_a_lease() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let step = Step::InFlight { lease: LEASE };
    let id = fixture
        .deliver(&mut session, "evt_1", &webhook, step, None)
        .await;
    let found = fixture.find(id).await;
    assert_eq!(
        (found.status.as_str(), found.attempts, found.turn),
        ("in_flight", 0, 1)
    );
    fixture
        .assert_in(id, "next_attempt_at", LEASE.as_secs_f64())
        .await;
    let attempts = store::delivery::attempts(&mut session, id).await.unwrap();
    assert_eq!(attempts.len(), 0);
}

#[tokio::test]
async fn a_first_attempt_that_may_not_be_made_is_parked() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let step = Step::Parked {
        wait: WAIT,
        reason: ParkReason::BreakerOpen,
    };
    let key = fixture.claim(&mut session, "evt_1").await;
    let parked = delivery(key, &webhook, step, None);
    let recorded = record(
        &mut session,
        &events([fixture.event(key, "evt_1", vec![parked.clone()])]),
    )
    .await;
    assert!(recorded.scheduled[0].parked);
    let found = fixture.find(parked.id).await;
    assert_eq!(
        (found.status.as_str(), found.attempts, found.parkings),
        ("pending", 0, 1)
    );
    assert_eq!(found.park_reason.as_deref(), Some("breaker_open"));
    assert_eq!(
        fixture
            .sql
            .count("webhook_health WHERE last_triggered_at IS NULL")
            .await,
        1
    );
}

#[tokio::test]
async fn who_lost_the_claim_writes_nothing_until_the_other_has_recorded() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let first = fixture.claim(&mut session, "evt_1").await;
    let mine = |key| vec![delivery(key, &webhook, retry_in(WAIT), Some(failed(500)))];
    let late = events([fixture.event(first, "evt_1", mine(first))]);
    let second = take_over(&fixture, "evt_1").await;

    let before = fixture.snapshot().await;
    let recorded = record(&mut session, &late).await;
    assert_eq!(marking(&recorded, first), Marking::TakenOver);
    assert!(recorded.scheduled.is_empty());
    assert_eq!(fixture.snapshot().await, before);

    record(
        &mut session,
        &events([fixture.event(second, "evt_1", mine(second))]),
    )
    .await;
    let before = fixture.snapshot().await;
    let recorded = record(&mut session, &late).await;
    assert_eq!(marking(&recorded, first), Marking::Recorded);
    assert!(recorded.scheduled.is_empty());
    assert_eq!(fixture.snapshot().await, before);
}

#[tokio::test]
async fn the_same_batch_again_changes_nothing() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let key = fixture.claim(&mut session, "evt_1").await;
    let deliveries: Vec<NewDelivery> = vec![
        delivery(key, &webhook, retry_in(WAIT), Some(failed(500))),
        delivery(key, &webhook, Step::InFlight { lease: LEASE }, None),
    ];
    let batch = events([fixture.event(key, "evt_1", deliveries)]);
    record(&mut session, &batch).await;
    let before = fixture.snapshot().await;
    let again = record(&mut session, &batch).await;
    assert_eq!(marking(&again, key), Marking::Recorded);
    assert!(again.scheduled.is_empty());
    assert_eq!(fixture.snapshot().await, before);
}

#[tokio::test]
async fn a_claim_that_a_crash_of_postgres_lost_is_made_again() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let key = fixture.claim(&mut session, "evt_1").await;
    fixture.sql.execute("DELETE FROM claims").await;
    let recorded = record(&mut session, &events([fixture.event(key, "evt_1", vec![])])).await;
    assert_eq!(marking(&recorded, key), Marking::Recorded);
    let known: String = fixture
        .sql
        .value("SELECT event_key::text FROM claims WHERE recorded_at IS NOT NULL")
        .await;
    assert_eq!(known, key.0.to_string());
}

#[tokio::test]
async fn a_lost_claim_that_another_holds_now_is_left_to_it() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let first = fixture.claim(&mut session, "evt_1").await;
    fixture.sql.execute("DELETE FROM claims").await;
    let second = fixture.claim(&mut session, "evt_1").await;
    let late = delivery(first, &webhook, Step::Delivered, Some(delivered()));
    let recorded = record(
        &mut session,
        &events([fixture.event(first, "evt_1", vec![late])]),
    )
    .await;
    assert_eq!(marking(&recorded, first), Marking::TakenOver);
    assert_eq!(fixture.sql.count("deliveries").await, 0);
    let recorded = record(
        &mut session,
        &events([fixture.event(second, "evt_1", vec![])]),
    )
    .await;
    assert_eq!(marking(&recorded, second), Marking::Recorded);
}

#[tokio::test]
async fn one_of_a_batch_that_was_taken_over_does_not_hold_the_others() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let mut batch = Vec::new();
    for event_id in ["evt_1", "evt_2", "evt_3"] {
        let key = fixture.claim(&mut session, event_id).await;
        let deliveries = vec![delivery(key, &webhook, Step::Delivered, Some(delivered()))];
        batch.push(fixture.event(key, event_id, deliveries));
    }
    take_over(&fixture, "evt_2").await;
    let recorded = record(&mut session, &events(batch.clone())).await;
    let markings: Vec<_> = batch.iter().map(|e| marking(&recorded, e.key)).collect();
    assert_eq!(
        markings,
        [Marking::Recorded, Marking::TakenOver, Marking::Recorded]
    );
    let ids: Vec<String> = fixture
        .sql
        .column("SELECT event_id FROM deliveries ORDER BY event_id")
        .await;
    assert_eq!(ids, ["evt_1", "evt_3"]);
}

#[tokio::test]
async fn of_two_that_record_one_event_at_once_one_writes_it() {
    let fixture = Fixture::new().await;
    let webhook = fixture.webhook().await;
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    for round in 0..10 {
        let event_id = format!("evt_{round}");
        let first = fixture.claim(&mut one, &event_id).await;
        let batch = |key| {
            let row = delivery(key, &webhook, retry_in(WAIT), Some(failed(500)));
            events([fixture.event(key, &event_id, vec![row])])
        };
        let early = batch(first);
        fixture.age_claims("2 s").await;
        let (taken, late) = tokio::join!(
            async {
                let request = ClaimRequest {
                    takeover: true,
                    ..fixture.claim_request(&event_id)
                };
                match claim(&mut other, &[request]).await.unwrap()[0] {
                    store::claim::Claim::Held(key) => {
                        Some((key, try_record(&mut other, &batch(key)).await.unwrap()))
                    }
                    _ => None,
                }
            },
            try_record(&mut one, &early),
        );
        let late = marking(&late.unwrap(), first);
        match taken {
            Some((second, recorded)) => assert_eq!(marking(&recorded, second), Marking::Recorded),
            None => assert_eq!(late, Marking::Recorded),
        }
        let rows = fixture
            .sql
            .count(&format!("deliveries WHERE event_id = '{event_id}'"))
            .await;
        assert_eq!(rows, 1);
    }
}

#[tokio::test]
async fn a_recording_that_is_cancelled_gives_its_connection_up_and_writes_nothing() {
    let fixture = Fixture::new().await;
    let webhook = fixture.webhook().await;
    let key = fixture.claim(&mut fixture.session().await, "evt_1").await;
    let deliveries = vec![delivery(key, &webhook, Step::Delivered, Some(delivered()))];
    let batch = events([fixture.event(key, "evt_1", deliveries)]);
    let mut connection = fixture.store.get().await.unwrap();
    // Polled once, it is on its way to Postgres.
    let cancelled = timeout(Duration::ZERO, try_record(&mut connection, &batch)).await;
    assert!(cancelled.is_err());
    drop(connection);
    // The pool hands out the last connection that came back, unless it is broken.
    let recorded = record(&mut fixture.store.get().await.unwrap(), &batch).await;
    assert_eq!(marking(&recorded, key), Marking::Recorded);
    until_equal("no transaction is left open", 0, async || {
        let open = "pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        fixture.sql.count(open).await
    })
    .await;
    assert_eq!(fixture.sql.count("deliveries").await, 1);
}
