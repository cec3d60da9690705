//! What tests of the crate `store` begin with: a database with a partner in it, and the parts of a batch.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::attempt::{Attempt, Failure, FailureKind, Outcome, Response, Timings};
use domain::id::{DeliveryId, EventKey, PartnerId};
use domain::network::NetworkPolicy;
use domain::plan::Plan;
use domain::secret::Secret;
use domain::webhook::{HealthVersion, Subscription};
use domain::webhook_url::WebhookUrl;
use rand::Rng as _;
use store::claim::{Claim, ClaimRequest, ClaimSeed, claim};
use store::delivery::{DeliveryView, StartRequest, Starting};
use store::keyring::{self, Keyring};
use store::record::{Batch, EndedAttempt, NewDelivery, Recorded, RecordedEvent, Step, Trace};
use store::webhook::{Creation, NewWebhook, Update, Webhook};
use store::{Session, Store};
use tests::Database;
use tests::database::Sql;
use uuid::Uuid;

/// Who changes webhooks here.
pub const ACTOR: &str = "hookctl";
/// The type that webhooks here subscribe to.
pub const EVENT_TYPE: &str = "listing.updated";
/// Where webhooks here don't point at first.
pub const ANOTHER_URL: &str = "https://elsewhere.example/";
/// The health version of a webhook whose URL was never changed, and that was never enabled again.
pub const HEALTH_VERSION: HealthVersion = HealthVersion(1);
/// Age at which deliveries here are given up.
pub const EXPIRE_AFTER: Duration = Duration::from_secs(60 * 3600);
/// How long attempts here are their starter's alone.
pub const LEASE: Duration = Duration::from_secs(15);
/// By how much two readings of the database's clock in one test may differ.
const CLOCK_SLACK_S: f64 = 20.0;

/// A migrated database with one partner of the plan Enterprise.
pub struct Fixture {
    pub store: Store,
    pub keyring: Keyring,
    pub partner: PartnerId,
    pub sql: Sql,
    // Last, since it is dropped under whoever is still connected.
    pub database: Database,
}

impl Fixture {
    pub async fn new() -> Self {
        let database = Database::create().await;
        let store = database.store();
        let mut session = store.session().await.unwrap();
        let partner = store::partner::create(&mut session, "Acme", Plan::Enterprise)
            .await
            .unwrap();
        Self {
            store,
            keyring: keyring(&["test"], "test"),
            partner: partner.id,
            sql: database.sql().await,
            database,
        }
    }

    /// A connection of its own, so that any number may work at once.
    pub async fn session(&self) -> Session {
        self.store.session().await.unwrap()
    }

    /// An active webhook of the partner.
    pub async fn webhook(&self) -> Webhook {
        match self.create_webhook(&mut self.session().await).await {
            Creation::Created(webhook) => *webhook,
            other => panic!("{other:?}"),
        }
    }

    pub async fn create_webhook(&self, session: &mut Session) -> Creation {
        let new = NewWebhook {
            partner_id: self.partner,
            url: &url("https://receiver.example/hook"),
            events: &[EVENT_TYPE.parse().unwrap()],
            description: None,
            active: true,
            secret: &Secret::from_random(rand::rng().random()),
        };
        store::webhook::create(session, &self.keyring, &new, ACTOR)
            .await
            .unwrap()
    }

    /// Lets the webhook point to [`ANOTHER_URL`].
    pub async fn move_webhook(&self, session: &mut Session, webhook: &Webhook) {
        let update = Update {
            url: Some(url(ANOTHER_URL)),
            ..Update::default()
        };
        store::webhook::update(session, self.partner, webhook.id, &update, ACTOR)
            .await
            .unwrap();
    }

    /// The webhook as a dispatcher loads it now.
    pub async fn subscribed(&self, session: &mut Session, webhook: &Webhook) -> Subscription {
        store::subscription::load_one(session, &self.keyring, self.partner, webhook.id)
            .await
            .unwrap()
            .unwrap()
    }

    /// Claims an event of the partner as its first copy.
    pub async fn claim(&self, session: &mut Session, event_id: &str) -> EventKey {
        let claims = claim(session, &[self.claim_request(event_id)])
            .await
            .unwrap();
        held(claims[0])
    }

    /// Makes all claims older by a PostgreSQL interval.
    pub async fn age_claims(&self, by: &str) {
        let sql = format!("UPDATE claims SET claimed_at = claimed_at - interval '{by}'");
        self.sql.execute(&sql).await;
    }

    pub fn claim_request(&self, event_id: &str) -> ClaimRequest {
        ClaimRequest {
            partner_id: self.partner,
            event_id: event_id.parse().unwrap(),
            content_hash: [7; 32],
            takeover: false,
            seed: ClaimSeed::random(),
        }
    }

    /// An event of the partner, as the holder of its claim records it.
    pub fn event(
        &self,
        key: EventKey,
        event_id: &str,
        deliveries: Vec<NewDelivery>,
    ) -> RecordedEvent {
        RecordedEvent {
            key,
            partner_id: self.partner,
            event_id: event_id.parse().unwrap(),
            event_type: EVENT_TYPE.parse().unwrap(),
            content_hash: [7; 32],
            occurred_at: DateTime::from_timestamp(1_772_115_600, 0).unwrap(),
            body: Bytes::from_static(br#"{"id":"evt"}"#),
            app_id: Some("catalogue".to_owned()),
            trace: Trace::default(),
            deliveries,
        }
    }

    /// Claims and records an event with one delivery, and returns the delivery's id.
    pub async fn deliver(
        &self,
        session: &mut Session,
        event_id: &str,
        webhook: &Webhook,
        step: Step,
        attempt: Option<Attempt>,
    ) -> DeliveryId {
        let key = self.claim(session, event_id).await;
        let delivery = delivery(key, webhook, step, attempt);
        let id = delivery.id;
        record(
            session,
            &events([self.event(key, event_id, vec![delivery])]),
        )
        .await;
        id
    }

    /// A delivery that waits for its second attempt, which is due: its turn is 1.
    pub async fn due(
        &self,
        session: &mut Session,
        event_id: &str,
        webhook: &Webhook,
    ) -> DeliveryId {
        let step = retry_in(Duration::from_secs(30));
        let id = self
            .deliver(session, event_id, webhook, step, Some(failed(500)))
            .await;
        self.make_due(id, 0.0).await;
        id
    }

    /// Lets so many seconds pass since a delivery came due.
    pub async fn make_due(&self, id: DeliveryId, overdue_s: f64) {
        let statement = "UPDATE deliveries SET next_attempt_at = now() - make_interval(secs => $2) \
             WHERE id = $1::text::uuid";
        assert_eq!(
            self.sql
                .run(statement, &[&id.0.to_string(), &overdue_s])
                .await,
            1
        );
    }

    pub async fn start(
        &self,
        session: &mut Session,
        delivery_id: DeliveryId,
        turn: i32,
    ) -> Starting {
        let request = StartRequest { delivery_id, turn };
        let answers = store::delivery::start(session, &self.keyring, &[request], LEASE).await;
        answers.unwrap().remove(0)
    }

    pub async fn find(&self, id: DeliveryId) -> DeliveryView {
        let found = store::delivery::find(&mut self.session().await, id)
            .await
            .unwrap();
        found.expect("the delivery has a row")
    }

    /// Status and turn as the row has them.
    pub async fn row(&self, id: DeliveryId) -> (String, i32) {
        let query = "SELECT status, turn FROM deliveries WHERE id = $1::text::uuid";
        let rows = self.sql.rows(query, &[&id.0.to_string()]).await;
        (rows[0].get(0), rows[0].get(1))
    }

    /// Asserts that a delivery's time is so many seconds from now by the database's clock.
    pub async fn assert_in(&self, id: DeliveryId, column: &str, seconds: f64) {
        let query = format!(
            "SELECT extract(epoch FROM {column} - now())::float8 FROM deliveries WHERE id = $1::text::uuid"
        );
        let left: f64 = self.sql.value_of(&query, &[&id.0.to_string()]).await;
        let close = (seconds - CLOCK_SLACK_S..=seconds + 1.0).contains(&left);
        assert!(close, "{column} in {left} s instead of {seconds} s");
    }

    /// All that `record` writes, for comparison. Not the columns that only tell when.
    pub async fn snapshot(&self) -> Vec<String> {
        let query = "SELECT 'claim ' || claims::text FROM claims \
             UNION ALL SELECT 'event ' || events::text FROM events \
             UNION ALL SELECT 'delivery ' || deliveries::text FROM deliveries \
             UNION ALL SELECT 'attempt ' || attempts::text FROM attempts \
             UNION ALL SELECT 'health ' || webhook_health::text FROM webhook_health ORDER BY 1";
        self.sql.column(query).await
    }
}

pub fn keyring(ids: &[&str], active: &str) -> Keyring {
    let key = |id: &&str| ((*id).to_owned(), hex::encode([id.as_bytes()[0]; 32]));
    let config = keyring::Config {
        keys: ids.iter().map(key).collect(),
        active_key: active.to_owned(),
    };
    Keyring::new(&config).unwrap()
}

pub fn url(text: &str) -> WebhookUrl {
    let policy = NetworkPolicy::new(&domain::network::Config::default());
    WebhookUrl::parse(text, &policy).unwrap()
}

pub fn held(claim: Claim) -> EventKey {
    match claim {
        Claim::Held(key) => key,
        other => panic!("{other:?} instead of Held"),
    }
}

pub fn events(events: impl IntoIterator<Item = RecordedEvent>) -> Batch {
    Batch {
        events: events.into_iter().collect(),
        ..Batch::default()
    }
}

pub async fn record(session: &mut Session, batch: &Batch) -> Recorded {
    store::record::record(session, batch).await.unwrap()
}

pub fn delivery(
    key: EventKey,
    webhook: &Webhook,
    step: Step,
    attempt: Option<Attempt>,
) -> NewDelivery {
    NewDelivery {
        id: DeliveryId::for_event(key, rand::random()),
        webhook_id: webhook.id,
        webhook_version: webhook.version,
        health_version: HEALTH_VERSION,
        expire_after: EXPIRE_AFTER,
        step,
        attempt,
    }
}

/// The end of the attempt that is in flight under `turn`.
pub fn ended(id: DeliveryId, webhook: &Webhook, turn: i32, step: Step, attempt: Attempt) -> Batch {
    let ended = EndedAttempt {
        delivery_id: id,
        turn,
        number: 2,
        webhook_id: webhook.id,
        sent_version: webhook.version,
        health_version: HEALTH_VERSION,
        step,
        attempt,
    };
    Batch {
        ended: vec![ended],
        ..Batch::default()
    }
}

pub fn retry_in(after: Duration) -> Step {
    Step::Retry {
        after,
        extend_expiry_by: Duration::ZERO,
    }
}

pub fn delivered() -> Attempt {
    attempt(200, Outcome::Delivered)
}

pub fn failed(status: u16) -> Attempt {
    let failure = Failure {
        kind: FailureKind::Status(status),
        message: format!("The receiver answered {status}."),
    };
    attempt(status, Outcome::Failed(failure))
}

/// Each begins later than the one before.
fn attempt(status: u16, outcome: Outcome) -> Attempt {
    static BEGUN: AtomicI64 = AtomicI64::new(1_772_115_600_000);
    let started_at: DateTime<Utc> =
        DateTime::from_timestamp_millis(BEGUN.fetch_add(1, Ordering::Relaxed)).unwrap();
    Attempt {
        started_at,
        outcome,
        response: Some(Response {
            status,
            headers: Bytes::from_static(b"content-type: text/plain\n"),
            body: Bytes::from_static(b"body"),
        }),
        timings: Timings {
            total: Duration::from_millis(12),
            ..Timings::default()
        },
        retry_after: None,
    }
}

/// A key as Postgres would have made it on another day.
pub fn key_in_days(days: i64) -> EventKey {
    let at = Utc::now() + chrono::Duration::days(days);
    let seconds = u64::try_from(at.timestamp()).unwrap();
    let timestamp = uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0);
    EventKey(Uuid::new_v7(timestamp))
}
