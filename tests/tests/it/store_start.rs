//! The start of an attempt: only under the right turn, only when due, only for one of those who try, and only while
//! somebody still wants it.

use std::time::Duration;

use domain::delivery::DeliveryStatus;
use domain::id::DeliveryId;
use store::delivery::{StartRequest, Started, Starting, start};
use store::record::{Step, record as try_record};

use super::store_fixture::{
    ANOTHER_URL, Fixture, LEASE, delivered, ended, failed, key_in_days, keyring, record, retry_in,
};

fn started(starting: Starting) -> Started {
    match starting {
        Starting::Started(started) => *started,
        other => panic!("{other:?} instead of Started"),
    }
}

fn ended_as(starting: &Starting) -> DeliveryStatus {
    match starting {
        Starting::Ended(status) => *status,
        other => panic!("{other:?} instead of Ended"),
    }
}

#[tokio::test]
async fn a_due_delivery_is_started_with_all_that_is_needed_to_send() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    let started = started(fixture.start(&mut session, id, 1).await);
    assert_eq!((started.turn, started.number, started.parkings), (2, 2, 0));
    assert_eq!(
        (started.event_id.as_str(), started.event_type.as_str()),
        ("evt_1", "listing.updated")
    );
    assert_eq!(started.body, br#"{"id":"evt"}"#.as_slice());
    assert_eq!(started.subscription.url.as_str(), webhook.url);
    assert_eq!(fixture.row(id).await, ("in_flight".to_owned(), 2));
    fixture
        .assert_in(id, "next_attempt_at", LEASE.as_secs_f64())
        .await;
}

#[tokio::test]
async fn an_attempt_goes_where_the_webhook_points_now() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    fixture.move_webhook(&mut session, &webhook).await;
    let started = started(fixture.start(&mut session, id, 1).await);
    assert_eq!(started.subscription.url.as_str(), ANOTHER_URL);
    assert_eq!(started.subscription.version, webhook.version + 1);
}

#[tokio::test]
async fn nothing_is_started_under_another_turn_or_before_its_time() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    for turn in [0, 2] {
        assert!(matches!(
            fixture.start(&mut session, id, turn).await,
            Starting::Stale
        ));
    }
    fixture.make_due(id, -60.0).await;
    let expected = fixture.find(id).await.next_attempt_at.unwrap();
    match fixture.start(&mut session, id, 1).await {
        Starting::Early(at) => assert_eq!(at, expected),
        other => panic!("{other:?}"),
    }
    assert_eq!(fixture.row(id).await, ("pending".to_owned(), 1));
}

#[tokio::test]
async fn of_those_who_start_one_delivery_at_once_one_does() {
    let fixture = Fixture::new().await;
    let webhook = fixture.webhook().await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(fixture.session().await);
    }
    let mut requests = Vec::new();
    for n in 0..20 {
        let id = fixture
            .due(&mut sessions[0], &format!("evt_{n}"), &webhook)
            .await;
        requests.push(StartRequest {
            delivery_id: id,
            turn: 1,
        });
    }
    let starts = sessions
        .iter_mut()
        .map(|session| start(session, &fixture.keyring, &requests, LEASE));
    let answers = futures_util::future::join_all(starts).await;
    // A deadlock would be an error that is tried again; in the order of one batch there is none.
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    for (place, request) in requests.iter().enumerate() {
        let all: Vec<_> = answers.iter().map(|of_one| &of_one[place]).collect();
        let begun = all
            .iter()
            .filter(|s| matches!(s, Starting::Started(_)))
            .count();
        let stale = all.iter().filter(|s| matches!(s, Starting::Stale)).count();
        assert_eq!((begun, stale), (1, 3), "{all:?}");
        assert_eq!(fixture.row(request.delivery_id).await.1, 2);
    }
}

#[tokio::test]
async fn a_request_that_stands_twice_in_a_batch_is_answered_once() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    let request = StartRequest {
        delivery_id: id,
        turn: 1,
    };
    let answers = start(&mut session, &fixture.keyring, &[request, request], LEASE)
        .await
        .unwrap();
    assert!(matches!(answers[0], Starting::Started(_)), "{answers:?}");
    assert!(matches!(answers[1], Starting::Stale), "{answers:?}");
}

#[tokio::test]
async fn after_its_lease_an_attempt_is_anothers_and_its_first_owner_is_too_late() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let id = fixture.due(&mut session, "evt_1", &webhook).await;
    started(fixture.start(&mut session, id, 1).await);
    assert!(matches!(
        fixture.start(&mut session, id, 2).await,
        Starting::Early(_)
    ));
    fixture.make_due(id, 0.0).await;
    let again = started(fixture.start(&mut session, id, 2).await);
    assert_eq!(
        (again.turn, again.number),
        (3, 2),
        "an attempt without an end is none"
    );
    let late = record(
        &mut session,
        &ended(id, &webhook, 2, Step::Delivered, delivered()),
    )
    .await;
    assert!(late.applied.is_empty());
    let in_time = record(
        &mut session,
        &ended(id, &webhook, 3, Step::Delivered, delivered()),
    )
    .await;
    assert!(in_time.applied.contains(&(id, 3)));
    assert_eq!(fixture.row(id).await, ("delivered".to_owned(), 4));
}

#[tokio::test]
async fn a_delivery_that_is_too_old_or_has_lost_its_event_is_exhausted() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let old = fixture.due(&mut session, "evt_1", &webhook).await;
    fixture
        .sql
        .execute("UPDATE deliveries SET expires_at = now() - interval '1 s'")
        .await;
    let bare = fixture.due(&mut session, "evt_2", &webhook).await;
    fixture
        .sql
        .execute("DELETE FROM events WHERE event_id = 'evt_2'")
        .await;
    for id in [old, bare] {
        let starting = fixture.start(&mut session, id, 1).await;
        assert_eq!(ended_as(&starting), DeliveryStatus::Exhausted);
        assert_eq!(fixture.row(id).await, ("exhausted".to_owned(), 2));
    }
}

#[tokio::test]
async fn an_announcement_without_a_row_says_so_also_of_a_day_without_partitions() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    for days in [0, 400] {
        let id = DeliveryId::for_event(key_in_days(days), rand::random());
        assert!(matches!(
            fixture.start(&mut session, id, 1).await,
            Starting::Missing
        ));
    }
}

#[tokio::test]
async fn a_secret_whose_key_is_missing_stops_its_own_delivery_only() {
    let mut fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let sealed_before = fixture.webhook().await;
    fixture.keyring = keyring(&["new"], "new");
    let readable = fixture.webhook().await;
    let stuck = fixture.due(&mut session, "evt_1", &sealed_before).await;
    let fine = fixture.due(&mut session, "evt_2", &readable).await;
    let requests = [stuck, fine].map(|delivery_id| StartRequest {
        delivery_id,
        turn: 1,
    });
    let answers = start(&mut session, &fixture.keyring, &requests, LEASE)
        .await
        .unwrap();
    match &answers[0] {
        Starting::Unreadable { turn, reason, .. } => {
            assert_eq!(*turn, 2);
            assert!(reason.contains("\"test\""), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(answers[1], Starting::Started(_)), "{answers:?}");
}

#[tokio::test]
async fn starts_ends_and_parkings_beside_each_other_go_through_in_any_order() {
    let fixture = Fixture::new().await;
    let webhook = fixture.webhook().await;
    let mut sessions = [
        fixture.session().await,
        fixture.session().await,
        fixture.session().await,
    ];
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(
            fixture
                .due(&mut sessions[0], &format!("evt_{n}"), &webhook)
                .await,
        );
    }
    let requests = |turn: i32| -> Vec<StartRequest> {
        ids.iter()
            .map(|&delivery_id| StartRequest { delivery_id, turn })
            .collect()
    };
    start(&mut sessions[0], &fixture.keyring, &requests(1), LEASE)
        .await
        .unwrap();
    // The first batch ends attempts in one order, the second in the other; both name the same turn.
    let mut forward = ended(
        ids[0],
        &webhook,
        2,
        retry_in(Duration::from_secs(60)),
        failed(500),
    );
    for &id in &ids[1..] {
        let more = ended(
            id,
            &webhook,
            2,
            retry_in(Duration::from_secs(60)),
            failed(500),
        );
        forward.ended.extend(more.ended);
    }
    let mut backward = forward.clone();
    backward.ended.reverse();
    let [one, two, three] = &mut sessions;
    let requests = requests(2);
    let (forward, backward, begun) = tokio::join!(
        try_record(one, &forward),
        try_record(two, &backward),
        start(three, &fixture.keyring, &requests, LEASE),
    );
    let applied = forward.unwrap().applied.len() + backward.unwrap().applied.len();
    assert_eq!(applied, 30);
    assert_eq!(begun.unwrap().len(), 30);
}
