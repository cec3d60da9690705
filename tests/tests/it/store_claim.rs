//! Claims: who processes an event, however many copies of it there are.

use store::claim::{Claim, ClaimRequest, ClaimSeed, claim, look_up, trim};

use super::store_fixture::{Fixture, events, held, record};

/// Another event under the same id.
fn other_content(request: &ClaimRequest) -> ClaimRequest {
    ClaimRequest {
        content_hash: [8; 32],
        seed: ClaimSeed::random(),
        ..request.clone()
    }
}

fn redelivered(request: &ClaimRequest) -> ClaimRequest {
    ClaimRequest {
        takeover: true,
        seed: ClaimSeed::random(),
        ..request.clone()
    }
}

/// Claims an event and records it without any webhook.
async fn recorded(fixture: &Fixture, event_id: &str) -> ClaimRequest {
    let mut session = fixture.session().await;
    let key = fixture.claim(&mut session, event_id).await;
    record(
        &mut session,
        &events([fixture.event(key, event_id, vec![])]),
    )
    .await;
    fixture.claim_request(event_id)
}

#[tokio::test]
async fn of_copies_that_come_at_once_one_holds_the_claim() {
    let fixture = Fixture::new().await;
    let mut sessions = Vec::new();
    for _ in 0..6 {
        sessions.push((fixture.session().await, [fixture.claim_request("evt_1")]));
    }
    let asked = sessions
        .iter_mut()
        .map(|(session, requests)| claim(session, requests));
    let answers = futures_util::future::try_join_all(asked).await.unwrap();
    let held = |claims: &&Vec<Claim>| matches!(claims[0], Claim::Held(_));
    assert_eq!(answers.iter().filter(held).count(), 1, "{answers:?}");
    let in_progress = |claims: &&Vec<Claim>| claims[0] == Claim::InProgress;
    assert_eq!(answers.iter().filter(in_progress).count(), 5, "{answers:?}");
}

#[tokio::test]
async fn a_copy_of_a_recorded_event_is_a_duplicate_also_when_it_comes_back() {
    let fixture = Fixture::new().await;
    let request = recorded(&fixture, "evt_1").await;
    let mut session = fixture.session().await;
    for copy in [request.clone(), redelivered(&request)] {
        assert_eq!(
            claim(&mut session, &[copy]).await.unwrap(),
            [Claim::Duplicate]
        );
    }
}

#[tokio::test]
async fn another_event_under_the_same_id_is_a_conflict_recorded_or_not() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let open = fixture.claim_request("evt_open");
    fixture.claim(&mut session, "evt_open").await;
    let done = recorded(&fixture, "evt_done").await;
    for request in [open, done] {
        let other = other_content(&request);
        for copy in [other.clone(), redelivered(&other)] {
            assert_eq!(
                claim(&mut session, &[copy]).await.unwrap(),
                [Claim::Conflict]
            );
        }
    }
}

#[tokio::test]
async fn a_request_that_is_made_again_because_its_answer_was_lost_holds_what_it_held() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let requests = [fixture.claim_request("evt_1")];
    let first = held(claim(&mut session, &requests).await.unwrap()[0]);
    // Were it answered "in progress", its message would be acknowledged, and nobody would send it.
    let again = held(claim(&mut session, &requests).await.unwrap()[0]);
    assert_eq!(first, again);
    record(
        &mut session,
        &events([fixture.event(first, "evt_1", vec![])]),
    )
    .await;
    let late = claim(&mut session, &requests).await.unwrap();
    assert_eq!(late, [Claim::Duplicate]);
}

#[tokio::test]
async fn an_id_belongs_to_its_partner_alone() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    fixture.claim(&mut session, "evt_1").await;
    let mut request = other_content(&fixture.claim_request("evt_1"));
    request.partner_id.0 += 1;
    held(claim(&mut session, &[request]).await.unwrap()[0]);
}

#[tokio::test]
async fn a_fresh_copy_leaves_a_young_claim_alone() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let key = fixture.claim(&mut session, "evt_1").await;
    let request = fixture.claim_request("evt_1");
    let again = claim(&mut session, std::slice::from_ref(&request))
        .await
        .unwrap();
    assert_eq!(again, [Claim::InProgress]);
    let known = look_up(&mut session, request.partner_id, &request.event_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((known.event_key, known.recorded), (key, false));
}

#[tokio::test]
async fn a_redelivered_copy_takes_an_unrecorded_claim_over_under_a_new_key() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let first = fixture.claim(&mut session, "evt_1").await;
    fixture.age_claims("2 s").await;
    let request = redelivered(&fixture.claim_request("evt_1"));
    let second = held(
        claim(&mut session, std::slice::from_ref(&request))
            .await
            .unwrap()[0],
    );
    assert_ne!(first, second);
    let known = look_up(&mut session, request.partner_id, &request.event_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(known.event_key, second);
}

#[tokio::test]
async fn a_redelivered_copy_leaves_whoever_claimed_a_moment_ago_the_time_to_record() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let key = fixture.claim(&mut session, "evt_1").await;
    let request = redelivered(&fixture.claim_request("evt_1"));
    // No part of a second may have passed, however busy the machine is.
    fixture.age_claims("-60 s").await;
    let again = claim(&mut session, std::slice::from_ref(&request))
        .await
        .unwrap();
    assert_eq!(again, [Claim::InProgress]);
    record(&mut session, &events([fixture.event(key, "evt_1", vec![])])).await;
    assert_eq!(
        claim(&mut session, &[request]).await.unwrap(),
        [Claim::Duplicate]
    );
}

#[tokio::test]
async fn a_fresh_copy_takes_over_a_claim_that_nobody_recorded_for_a_minute() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let first = fixture.claim(&mut session, "evt_1").await;
    fixture.age_claims("61 s").await;
    let request = fixture.claim_request("evt_1");
    let second = held(
        claim(&mut session, std::slice::from_ref(&request))
            .await
            .unwrap()[0],
    );
    assert_ne!(first, second);
    let request = fixture.claim_request("evt_1");
    let third = claim(&mut session, &[request]).await.unwrap();
    assert_eq!(
        third,
        [Claim::InProgress],
        "the takeover makes it young again"
    );
}

#[tokio::test]
async fn a_batch_is_answered_in_the_order_of_its_requests() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let duplicate = recorded(&fixture, "evt_duplicate").await;
    fixture.claim(&mut session, "evt_open").await;
    let open = fixture.claim_request("evt_open");
    let batch = [
        fixture.claim_request("evt_z"),
        duplicate.clone(),
        fixture.claim_request("evt_a"),
        open.clone(),
    ];
    let answers = claim(&mut session, &batch).await.unwrap();
    let keys = [held(answers[0]), held(answers[2])];
    assert_ne!(keys[0], keys[1]);
    assert_eq!(
        (answers[1], answers[3]),
        (Claim::Duplicate, Claim::InProgress)
    );
    let conflicts = [other_content(&open), other_content(&duplicate)];
    let answers = claim(&mut session, &conflicts).await.unwrap();
    assert_eq!(answers, [Claim::Conflict, Claim::Conflict]);
}

#[tokio::test]
async fn batches_of_the_same_events_in_other_orders_do_not_block_each_other() {
    let fixture = Fixture::new().await;
    // Every claim is old enough to be taken over at once, again and again.
    fixture
        .sql
        .execute(
            "CREATE FUNCTION make_old() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN NEW.claimed_at := now() - interval '1 hour'; RETURN NEW; END$$; \
             CREATE TRIGGER make_old BEFORE INSERT OR UPDATE ON claims FOR EACH ROW EXECUTE FUNCTION make_old()",
        )
        .await;
    let requests: Vec<_> = (0..50)
        .map(|n| fixture.claim_request(&format!("evt_{n}")))
        .collect();
    let mut batches: Vec<_> = (0..4)
        .map(|n| {
            let mut batch: Vec<_> = requests.iter().map(redelivered).collect();
            batch.rotate_left(n * 13);
            batch
        })
        .collect();
    batches[1].reverse();
    let mut sessions = Vec::new();
    for _ in &batches {
        sessions.push(fixture.session().await);
    }
    let work = sessions
        .iter_mut()
        .zip(&batches)
        .map(async |(session, batch)| {
            for _ in 0..10 {
                for answer in claim(session, batch).await.unwrap() {
                    held(answer);
                }
            }
        });
    futures_util::future::join_all(work).await;
    assert_eq!(fixture.sql.count("claims").await, 50);
}

#[tokio::test]
async fn claims_are_trimmed_a_day_after_they_were_recorded() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    for event_id in ["evt_old", "evt_late", "evt_young"] {
        recorded(&fixture, event_id).await;
    }
    for event_id in ["evt_open", "evt_forgotten"] {
        fixture.claim(&mut session, event_id).await;
    }
    fixture
        .sql
        .execute(
            "UPDATE claims SET claimed_at = now() - interval '25 h' WHERE event_id <> 'evt_young';
             UPDATE claims SET recorded_at = now() - interval '25 h' WHERE event_id = 'evt_old';
             UPDATE claims SET recorded_at = now() - interval '23 h' WHERE event_id = 'evt_late';
             UPDATE claims SET claimed_at = now() - interval '8 days' WHERE event_id = 'evt_forgotten'",
        )
        .await;
    assert_eq!(trim(&mut session, 1).await.unwrap(), 1);
    assert_eq!(trim(&mut session, 100).await.unwrap(), 1);
    assert_eq!(trim(&mut session, 100).await.unwrap(), 0);
    let left: Vec<String> = fixture
        .sql
        .column("SELECT event_id FROM claims ORDER BY event_id")
        .await;
    assert_eq!(left, ["evt_late", "evt_open", "evt_young"]);
}
