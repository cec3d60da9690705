//! Tables at the edge: the rate limit, idempotent answers, dead letters, and the catalogue.

use std::time::Duration;

use store::dead_letter::{self, Line, NewDeadLetter};
use store::idempotency::{self, FirstAnswer};
use store::rate_limit::{hit, partner_subject, trim};

use super::store_fixture::{Fixture, keyring};

#[tokio::test]
async fn requests_at_once_are_counted_one_by_one_and_the_window_ends() {
    let fixture = Fixture::new().await;
    let subject = partner_subject(fixture.partner);
    let mut sessions = Vec::new();
    for _ in 0..6 {
        sessions.push(fixture.session().await);
    }
    let asked = sessions.iter_mut().map(|session| hit(session, &subject, 4));
    let hits = futures_util::future::try_join_all(asked).await.unwrap();
    assert_eq!(hits.iter().filter(|hit| hit.allowed).count(), 4);
    let mut remaining: Vec<_> = hits
        .iter()
        .filter(|h| h.allowed)
        .map(|h| h.remaining)
        .collect();
    remaining.sort_unstable();
    assert_eq!(remaining, [0, 1, 2, 3]);
    let window = Duration::from_secs(30)..=Duration::from_secs(60);
    assert!(
        hits.iter().all(|hit| window.contains(&hit.reset_in)),
        "{hits:?}"
    );

    let session = &mut sessions[0];
    assert!(hit(session, "another", 4).await.unwrap().allowed);
    let age = "UPDATE rate_limits SET window_started_at = window_started_at - interval '61 s'";
    fixture.sql.execute(age).await;
    let fresh = hit(session, &subject, 4).await.unwrap();
    assert_eq!((fresh.allowed, fresh.remaining), (true, 3));
    fixture.sql.execute(age).await;
    fixture.sql.execute(age).await;
    assert_eq!(trim(session, 1).await.unwrap(), 1);
    assert_eq!(trim(session, 10).await.unwrap(), 1);
}

fn first_answer() -> FirstAnswer {
    FirstAnswer {
        request_hash: [3; 32],
        status: 201,
        answer: b"the secret answer".to_vec(),
    }
}

#[tokio::test]
async fn of_two_requests_with_one_key_the_second_waits_for_the_answer_of_the_first() {
    let fixture = Fixture::new().await;
    let (partner, first) = (fixture.partner, first_answer());
    let mut transaction = fixture.store.begin().await.unwrap();
    let found = idempotency::begin(&mut transaction, &fixture.keyring, partner, "k").await;
    assert_eq!(found.unwrap(), None);
    let second = async {
        let mut transaction = fixture.store.begin().await.unwrap();
        let found = idempotency::begin(&mut transaction, &fixture.keyring, partner, "k").await;
        transaction.rollback().await.unwrap();
        found.unwrap()
    };
    let carry_out = async {
        tests::wait::eventually("the second waits", async || {
            let waiting = "pg_locks WHERE locktype = 'advisory' AND NOT granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            (fixture.sql.count(waiting).await == 1).then_some(())
        })
        .await;
        let keyring = &fixture.keyring;
        idempotency::insert(&mut transaction, keyring, partner, "k", &first)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    };
    let (found, ()) = tokio::join!(second, carry_out);
    assert_eq!(found, Some(first));
    let stored: Vec<u8> = fixture
        .sql
        .value("SELECT answer FROM idempotency_keys")
        .await;
    assert!(!stored.windows(6).any(|bytes| bytes == b"secret"));
}

#[tokio::test]
async fn an_answer_is_repeated_for_a_day_and_for_its_partner_and_keyring_only() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let (partner, first) = (fixture.partner, first_answer());
    idempotency::insert(&mut session, &fixture.keyring, partner, "k", &first)
        .await
        .unwrap();
    let rotated = keyring(&["test", "new"], "new");
    let found = idempotency::begin(&mut session, &rotated, partner, "k")
        .await
        .unwrap();
    assert_eq!(found, Some(first.clone()));
    let stranger = domain::id::PartnerId(partner.0 + 1);
    assert_eq!(
        idempotency::begin(&mut session, &rotated, stranger, "k")
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        idempotency::begin(&mut session, &rotated, partner, "l")
            .await
            .unwrap(),
        None
    );
    let lost = keyring(&["new"], "new");
    assert!(
        idempotency::begin(&mut session, &lost, partner, "k")
            .await
            .is_err()
    );

    assert_eq!(idempotency::trim(&mut session, 10).await.unwrap(), 0);
    let age = "UPDATE idempotency_keys SET created_at = now() - interval '25 h'";
    fixture.sql.execute(age).await;
    assert_eq!(
        idempotency::begin(&mut session, &rotated, partner, "k")
            .await
            .unwrap(),
        None
    );
    idempotency::insert(&mut session, &rotated, partner, "k", &first)
        .await
        .unwrap();
    assert_eq!(
        idempotency::trim(&mut session, 10).await.unwrap(),
        0,
        "it is young again"
    );
    fixture.sql.execute(age).await;
    assert_eq!(idempotency::trim(&mut session, 10).await.unwrap(), 1);
}

fn letter(line: Line, message_id: Option<&str>, body: &[u8]) -> NewDeadLetter {
    NewDeadLetter {
        line,
        message_id: message_id.map(str::to_owned),
        code: "invalid_json".to_owned(),
        reason: "The body is no JSON.".to_owned(),
        exchange: "vellocity.events".to_owned(),
        routing_key: "listing.updated".to_owned(),
        event_id: Some("a\0b".to_owned()),
        event_type: None,
        partner_id: Some("x".repeat(5000)),
        app_id: None,
        content_type: None,
        traceparent: None,
        tracestate: None,
        body: body.to_vec(),
    }
}

#[tokio::test]
async fn a_dead_letter_that_is_moved_twice_is_one_row_and_its_body_is_kept() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let body = b"\0\xff not JSON";
    let letters = [
        letter(Line::Rejected, Some("m1"), body),
        letter(Line::Rejected, Some("m1"), body),
        letter(Line::Rejected, None, b"a"),
        letter(Line::Dead, None, b"b"),
    ];
    assert_eq!(
        dead_letter::insert(&mut session, &letters).await.unwrap(),
        3
    );
    assert_eq!(
        dead_letter::insert(&mut session, &letters[..1])
            .await
            .unwrap(),
        0
    );
    let listed = dead_letter::list(&mut session, Line::Rejected, None, 10)
        .await
        .unwrap();
    assert_eq!(listed.len(), 2);
    let oldest = &listed[1];
    assert_eq!(oldest.event_id.as_deref(), Some("a\u{fffd}b"));
    assert_eq!(oldest.partner_id.as_ref().map(String::len), Some(1024));
    let newest = dead_letter::list(&mut session, Line::Rejected, None, 1)
        .await
        .unwrap();
    assert_eq!(newest, listed[..1]);
    let before = dead_letter::list(&mut session, Line::Rejected, Some(newest[0].id), 10).await;
    assert_eq!(before.unwrap(), listed[1..]);

    let ids = [oldest.id];
    let loaded = dead_letter::load(&mut session, Line::Rejected, &ids)
        .await
        .unwrap();
    assert_eq!(loaded[0].body, body);
    assert_eq!(
        dead_letter::remove(&mut session, Line::Dead, &ids)
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        dead_letter::remove(&mut session, Line::Rejected, &ids)
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        dead_letter::count(&mut session, Line::Rejected)
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        dead_letter::count(&mut session, Line::Dead).await.unwrap(),
        1
    );
}

#[tokio::test]
async fn dead_letters_are_trimmed_by_age_and_by_size_the_oldest_first() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let body = vec![b'x'; 10 * 1024];
    for _ in 0..5 {
        let new = [
            letter(Line::Rejected, None, &body),
            letter(Line::Dead, None, &body),
        ];
        dead_letter::insert(&mut session, &new).await.unwrap();
    }
    let day = Duration::from_secs(86_400);
    let all = dead_letter::list(&mut session, Line::Rejected, None, 10)
        .await
        .unwrap();
    let room_for_three = 34 * 1024;
    let trimmed = dead_letter::trim(&mut session, Line::Rejected, day, room_for_three, 1).await;
    assert_eq!(trimmed.unwrap(), 1);
    let trimmed = dead_letter::trim(&mut session, Line::Rejected, day, room_for_three, 10).await;
    assert_eq!(trimmed.unwrap(), 1);
    let left = dead_letter::list(&mut session, Line::Rejected, None, 10)
        .await
        .unwrap();
    assert_eq!(left, all[..3]);
    let statement = "UPDATE dead_letters SET at = now() - interval '2 days' WHERE id = $1";
    fixture.sql.run(statement, &[&left[1].id]).await;
    let trimmed = dead_letter::trim(&mut session, Line::Rejected, day, u64::MAX, 10).await;
    assert_eq!(trimmed.unwrap(), 1);
    assert_eq!(
        dead_letter::count(&mut session, Line::Dead).await.unwrap(),
        5
    );
}

#[tokio::test]
async fn an_entry_of_the_outbox_is_leased_once_and_comes_again_until_it_is_confirmed() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    fixture.webhook().await;
    fixture.webhook().await;
    let lease = Duration::from_secs(60);
    let first = store::outbox::lease(&mut session, 1, lease).await.unwrap();
    let second = store::outbox::lease(&mut session, 10, lease).await.unwrap();
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(first[0].id < second[0].id, "the oldest first");
    assert!(
        store::outbox::lease(&mut session, 10, lease)
            .await
            .unwrap()
            .is_empty()
    );
    store::outbox::release(&mut session, &[second[0].id])
        .await
        .unwrap();
    assert_eq!(
        store::outbox::lease(&mut session, 10, lease).await.unwrap(),
        second
    );
    fixture
        .sql
        .execute("UPDATE outbox SET leased_until = now() - interval '1 s'")
        .await;
    assert_eq!(
        store::outbox::lease(&mut session, 10, lease)
            .await
            .unwrap()
            .len(),
        2
    );
    let ids = [first[0].id, second[0].id];
    assert_eq!(store::outbox::confirm(&mut session, &ids).await.unwrap(), 2);
    assert_eq!(
        store::outbox::backlog(&mut session).await.unwrap().entries,
        0
    );
}
