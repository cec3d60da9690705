//! `record`: what receivers and publishers send is kept to the byte, and a row that Postgres refuses leaves nothing.

use std::time::Duration;

use bytes::Bytes;
use domain::attempt::{Attempt, Failure, FailureKind, Outcome};
use domain::id::DeliveryId;
use store::StoreError;
use store::record::{Step, record as try_record};

use super::store_fixture::{Fixture, delivered, delivery, events, failed, key_in_days, record};

/// What no text column takes.
const BYTES: &[u8] = b"a\0b\xff\xfe\xed\xa0\x80 \xc3\x28";

fn with_bytes(mut attempt: Attempt) -> Attempt {
    let response = attempt.response.as_mut().unwrap();
    response.headers = Bytes::from_static(BYTES);
    response.body = Bytes::from_static(BYTES);
    attempt
}

async fn kept(fixture: &Fixture, id: DeliveryId) -> (Vec<u8>, Vec<u8>) {
    let mut session = fixture.session().await;
    let attempts = store::delivery::attempts(&mut session, id).await.unwrap();
    let attempt = &attempts[0];
    (
        attempt.response_headers.clone().unwrap(),
        attempt.response_body.clone().unwrap(),
    )
}

#[tokio::test]
async fn what_a_receiver_sent_is_kept_byte_for_byte() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let success = with_bytes(delivered());
    let failure = with_bytes(failed(500));
    for (event_id, step, attempt) in [
        ("evt_1", Step::Delivered, success),
        ("evt_2", Step::Exhausted, failure),
    ] {
        let id = fixture
            .deliver(&mut session, event_id, &webhook, step, Some(attempt))
            .await;
        assert_eq!(kept(&fixture, id).await, (BYTES.to_vec(), BYTES.to_vec()));
    }
}

#[tokio::test]
async fn a_nul_in_a_text_does_not_fail_the_batch() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let mut attempt = failed(500);
    attempt.outcome = Outcome::Failed(Failure {
        kind: FailureKind::Protocol,
        message: "an odd\0 header".to_owned(),
    });
    let key = fixture.claim(&mut session, "evt_1").await;
    let row = delivery(key, &webhook, Step::Exhausted, Some(attempt));
    let id = row.id;
    let mut event = fixture.event(key, "evt_1", vec![row]);
    event.app_id = Some("a\0b".to_owned());
    event.trace.traceparent = Some("\0".to_owned());
    event.trace.tracestate = Some("a\0".to_owned());
    event.body = Bytes::from_static(BYTES);
    record(&mut session, &events([event])).await;
    let found = fixture.find(id).await;
    assert_eq!(found.error.as_deref(), Some("an odd header"));
    let stored: Vec<u8> = fixture.sql.value("SELECT body FROM events").await;
    assert_eq!(stored, BYTES);
    let app_id: String = fixture.sql.value("SELECT app_id FROM events").await;
    assert_eq!(app_id, "ab");
}

#[tokio::test]
async fn what_fits_no_row_fails_its_batch_whole_as_a_fault_of_the_data() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let key = fixture.claim(&mut session, "evt_good").await;
    let good = delivery(key, &webhook, Step::Delivered, Some(delivered()));
    let good = fixture.event(key, "evt_good", vec![good]);
    let key = fixture.claim(&mut session, "evt_bad").await;
    let mut bad = delivery(key, &webhook, Step::Delivered, Some(delivered()));
    // Beyond any date that Postgres knows.
    bad.expire_after = Duration::MAX;
    let bad = fixture.event(key, "evt_bad", vec![bad]);

    let before = fixture.snapshot().await;
    let error = try_record(&mut session, &events([good.clone(), bad.clone()]))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Data(_)), "{error:?}");
    assert_eq!(fixture.snapshot().await, before);
    record(&mut session, &events([good])).await;
    let error = try_record(&mut session, &events([bad])).await.unwrap_err();
    assert!(matches!(error, StoreError::Data(_)), "{error:?}");
    assert_eq!(fixture.sql.count("deliveries").await, 1);
}

#[tokio::test]
async fn an_event_of_a_day_without_partitions_is_left_whole_until_they_are_there() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    let webhook = fixture.webhook().await;
    let drop = "DO $$ DECLARE day text := to_char((clock_timestamp() AT TIME ZONE 'UTC')::date + 3, '_YYYYMMDD'); \
         BEGIN EXECUTE 'DROP TABLE ' || 'events' || day || ', deliveries' || day || ', attempts' || day; END $$";
    fixture.sql.execute(drop).await;
    let key = key_in_days(3);
    let row = delivery(key, &webhook, Step::Exhausted, Some(failed(500)));
    let batch = events([fixture.event(key, "evt_1", vec![row])]);
    let before = fixture.snapshot().await;
    let error = try_record(&mut session, &batch).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert_eq!(fixture.snapshot().await, before);

    assert_eq!(store::partition::create(&mut session, 7).await.unwrap(), 3);
    record(&mut session, &batch).await;
    assert_eq!(fixture.sql.count("deliveries").await, 1);
}
