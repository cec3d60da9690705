//! Subscription changes on their way to the dispatchers: the outbox and its relay.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use broker::subscription::ChangeKind;
use domain::id::PartnerId;
use domain::network::NetworkPolicy;
use domain::plan::Plan;
use domain::secret::Secret;
use domain::webhook_url::WebhookUrl;
use management_api::Step;
use serde_json::json;
use store::webhook::NewWebhook;
use tests::Stack;
use tests::service::{Kind, metric};

use super::api_fixture::{Listener, URL, api};

#[tokio::test]
async fn each_change_is_announced_at_once_with_its_version() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let mut listener = Listener::start(&stack).await;
    let started = Instant::now();
    let webhook = partner.create_webhook(URL, &["listing.updated"]).await;
    let created = listener.next().await;
    partner
        .update_webhook(&webhook, &json!({"active": false}))
        .await;
    let updated = listener.next().await;
    partner.update_webhook(&webhook, &json!({})).await;
    partner.delete_webhook(&webhook).await;
    let deleted = listener.next().await;
    // Each waits for the relay's wake-up; on the interval alone it would be half a second each.
    assert!(started.elapsed() < Duration::from_secs(5));
    for (change, kind, version) in [
        (created, ChangeKind::Created, 1),
        (updated, ChangeKind::Updated, 2),
        (deleted, ChangeKind::Deleted, 3),
    ] {
        assert_eq!((change.kind, change.version), (kind, version));
        assert_eq!(
            (change.webhook_id.0, change.partner_id.0),
            (webhook.id, partner.id)
        );
    }
    let sql = stack.database.sql().await;
    tests::wait::until_equal("the outbox is empty", 0, async || sql.count("outbox").await).await;
    let admin = stack.services(Kind::ManagementApi).next().unwrap().admin();
    let published = metric(admin, "outbox_published_total", "").await;
    assert!((published - 3.0).abs() < 0.5, "{published}");
    listener.close().await;
    stack.finish().await;
}

/// A relay whose process does not run, and a database with so many changes.
async fn relay_over(stack: &Stack, changes: usize) -> management_api::Service {
    let service = management_api::build(stack.settings().management_api()).await;
    let service = service.unwrap_or_else(|failure| panic!("{}", failure.line()));
    let store = stack.database.store();
    let mut conn = store.get().await.unwrap();
    let partner = store::partner::create(&mut conn, "A", Plan::Enterprise)
        .await
        .unwrap();
    for _ in 0..changes {
        make_webhook(stack, &mut conn, partner.id).await;
    }
    service
}

async fn make_webhook(stack: &Stack, conn: &mut store::Session, partner_id: PartnerId) {
    let config = stack.settings().management_api().network;
    let url = WebhookUrl::parse(URL, &NetworkPolicy::new(&config)).unwrap();
    let new = NewWebhook {
        partner_id,
        url: &url,
        events: &["listing.updated".parse().unwrap()],
        description: None,
        active: true,
        secret: &Secret::from_random([1; 32]),
    };
    let created = store::webhook::create(conn, &stack.settings().keyring(), &new, "hookctl").await;
    created.unwrap();
}

/// Steps once RabbitMQ is there.
async fn step(service: &management_api::Service) -> Step {
    let relay = service.relay();
    relay.broker.link().await.unwrap();
    relay.step().await.unwrap()
}

#[tokio::test]
async fn a_crash_between_publishing_and_deleting_repeats_the_announcement() {
    let stack = api().without_services().start().await;
    let service = relay_over(&stack, 1).await;
    let mut listener = Listener::start(&stack).await;
    // A relay took the entry, published it, and died.
    let mut conn = stack.database.store().get().await.unwrap();
    let lease = Duration::from_secs(3600);
    let taken = store::outbox::lease(&mut conn, 10, lease).await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(step(&service).await, Step::default());

    let sql = stack.database.sql().await;
    sql.execute("UPDATE outbox SET leased_until = now() - interval '1 s'")
        .await;
    let repeated = Step {
        leased: 1,
        published: 1,
    };
    assert_eq!(step(&service).await, repeated);
    assert_eq!(listener.next().await.version, 1);
    assert_eq!(sql.count("outbox").await, 0);
    assert_eq!(step(&service).await, Step::default());
    listener.close().await;
    stack.finish().await;
}

#[tokio::test]
async fn relays_at_once_share_the_work_and_announce_everything_once() {
    const CHANGES: usize = 60;
    let stack = api().without_services().start().await;
    let (one, other) = (
        relay_over(&stack, CHANGES).await,
        relay_over(&stack, 0).await,
    );
    let mut listener = Listener::start(&stack).await;
    let (a, b) = tokio::join!(step(&one), step(&other));
    assert_eq!(a.published + b.published, CHANGES);
    let mut announced = BTreeSet::new();
    for _ in 0..CHANGES {
        assert!(announced.insert(listener.next().await.webhook_id));
    }
    let sql = stack.database.sql().await;
    assert_eq!(sql.count("outbox").await, 0);
    listener.close().await;
    stack.finish().await;
}

#[tokio::test]
async fn while_rabbitmq_is_away_nothing_is_taken_and_nothing_lost() {
    let mut stack = api().without_services().start().await;
    let vhost = stack.settings().management_api().rabbitmq.url;
    stack.set("rabbitmq.url", "amqp://127.0.0.1:1");
    let service = relay_over(&stack, 2).await;
    assert_eq!(service.relay().step().await.unwrap(), Step::default());
    let sql = stack.database.sql().await;
    assert_eq!(sql.count("outbox WHERE leased_until IS NULL").await, 2);

    stack.set("rabbitmq.url", &vhost);
    let service = relay_over(&stack, 0).await;
    let done = Step {
        leased: 2,
        published: 2,
    };
    assert_eq!(step(&service).await, done);
    stack.finish().await;
}

#[tokio::test]
async fn a_change_that_was_made_before_the_end_is_announced_before_it() {
    let mut stack = api().start().await;
    let partner = stack.partner().await;
    let mut listener = Listener::start(&stack).await;
    let service = stack.take(Kind::ManagementApi);
    let webhook = partner.create_webhook(URL, &["listing.updated"]).await;
    service.stop().await;
    assert_eq!(listener.next().await.webhook_id.0, webhook.id);
    let sql = stack.database.sql().await;
    assert_eq!(sql.count("outbox").await, 0);
    listener.close().await;
    stack.finish().await;
}
