//! The sweep: what is overdue is announced again, the oldest first, by one of those who sweep, and ever more rarely.

use std::time::Duration;

use domain::id::DeliveryId;
use store::delivery::{Overdue, sweep};
use store::record::Step;

use super::store_fixture::{Fixture, LEASE, delivered};

const OVERDUE: Duration = Duration::from_secs(30);

fn ids(overdue: &[Overdue]) -> Vec<DeliveryId> {
    overdue.iter().map(|o| o.delivery_id).collect()
}

/// Lets so many seconds pass since the last announcement of every delivery.
async fn age_announcements(fixture: &Fixture, seconds: u32) {
    let statement = format!(
        "UPDATE deliveries SET announce_again_at = announce_again_at - interval '{seconds} s'"
    );
    fixture.sql.execute(&statement).await;
}

#[tokio::test]
async fn only_what_is_overdue_by_more_than_the_limit_is_announced_again() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let late = fixture.due(&mut session, "evt_late", &webhook).await;
    fixture.make_due(late, 31.0).await;
    let punctual = fixture.due(&mut session, "evt_punctual", &webhook).await;
    fixture.make_due(punctual, 20.0).await;
    let step = Step::InFlight { lease: LEASE };
    let abandoned = fixture
        .deliver(&mut session, "evt_abandoned", &webhook, step, None)
        .await;
    fixture.make_due(abandoned, 40.0).await;
    fixture
        .deliver(
            &mut session,
            "evt_done",
            &webhook,
            Step::Delivered,
            Some(delivered()),
        )
        .await;
    let found = sweep(&mut session, OVERDUE, 100).await.unwrap();
    let mut swept = ids(&found);
    swept.sort_unstable();
    let mut expected = [late, abandoned];
    expected.sort_unstable();
    assert_eq!(swept, expected);
    let of_late = found.iter().find(|o| o.delivery_id == late).unwrap();
    assert_eq!((of_late.turn, of_late.announcements), (1, 1));
    assert_eq!(
        (of_late.webhook_id, of_late.partner_id),
        (webhook.id, fixture.partner)
    );
    let stamped = fixture
        .sql
        .count("deliveries WHERE announce_again_at IS NOT NULL")
        .await;
    assert_eq!(stamped, 2);
    assert_eq!(
        fixture.row(late).await,
        ("pending".to_owned(), 1),
        "a sweep takes no turn"
    );
}

#[tokio::test]
async fn the_oldest_come_first_and_no_more_than_the_limit() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let mut expected = Vec::new();
    for n in 0..6 {
        let id = fixture
            .due(&mut session, &format!("evt_{n}"), &webhook)
            .await;
        fixture.make_due(id, 40.0 + f64::from(n)).await;
        expected.insert(0, id);
    }
    let first = sweep(&mut session, OVERDUE, 2).await.unwrap();
    let mut swept = ids(&first);
    swept.sort_unstable_by_key(|id| expected.iter().position(|e| e == id));
    assert_eq!(swept, expected[..2]);
    let second = sweep(&mut session, OVERDUE, 3).await.unwrap();
    let mut swept = ids(&second);
    swept.sort_unstable_by_key(|id| expected.iter().position(|e| e == id));
    assert_eq!(swept, expected[2..5]);
    assert_eq!(sweep(&mut session, OVERDUE, 10).await.unwrap().len(), 1);
    assert_eq!(sweep(&mut session, OVERDUE, 10).await.unwrap().len(), 0);
}

#[tokio::test]
async fn what_is_not_heard_is_announce_again_at_growing_intervals_up_to_an_hour() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    fixture.make_due(id, 100_000.0).await;
    let mut announcements = 0;
    for wait_s in [0, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600] {
        if wait_s > 0 {
            age_announcements(&fixture, wait_s - 10).await;
            assert_eq!(
                sweep(&mut session, OVERDUE, 10).await.unwrap().len(),
                0,
                "{wait_s}"
            );
            age_announcements(&fixture, 11).await;
        }
        announcements += 1;
        let found = sweep(&mut session, OVERDUE, 10).await.unwrap();
        assert_eq!(found.len(), 1, "after {wait_s} s");
        assert_eq!(found[0].announcements, announcements);
    }
}

#[tokio::test]
async fn a_new_turn_begins_the_intervals_anew() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    fixture.make_due(id, 40.0).await;
    sweep(&mut session, OVERDUE, 10).await.unwrap();
    fixture.start(&mut session, id, 1).await;
    fixture.make_due(id, 40.0).await;
    let found = sweep(&mut session, OVERDUE, 10).await.unwrap();
    assert_eq!((found[0].turn, found[0].announcements), (2, 1));
}

#[tokio::test]
async fn those_who_sweep_at_once_share_the_work() {
    let fixture = Fixture::new().await;
    let webhook = fixture.webhook().await;
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    for n in 0..40 {
        let id = fixture.due(&mut one, &format!("evt_{n}"), &webhook).await;
        fixture.make_due(id, 40.0).await;
    }
    let mut all = Vec::new();
    loop {
        let (first, second) =
            tokio::join!(sweep(&mut one, OVERDUE, 7), sweep(&mut other, OVERDUE, 7));
        let (first, second) = (ids(&first.unwrap()), ids(&second.unwrap()));
        if first.is_empty() && second.is_empty() {
            break;
        }
        all.extend(first);
        all.extend(second);
    }
    assert_eq!(all.len(), 40);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 40);
}

#[tokio::test]
async fn the_oldest_that_waits_is_known() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let oldest = store::delivery::oldest_waiting(&mut session).await.unwrap();
    assert_eq!(oldest, None);
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    fixture.make_due(id, 500.0).await;
    fixture.due(&mut session, "evt_2", &webhook).await;
    let oldest = store::delivery::oldest_waiting(&mut session).await.unwrap();
    assert_eq!(oldest, fixture.find(id).await.next_attempt_at);
}
