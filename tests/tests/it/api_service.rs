//! The management API as a process: how it starts, waits for its neighbours, goes on after them, and ends.

use domain::plan::Plan;
use serde_json::json;
use tests::servers::Server;
use tests::service::{Kind, Service, readiness, until_ready, until_unready};
use tests::{Client, Database, Partner, Vhost, eventually};

use super::api_fixture::{Listener, URL, api};

const NAME: &str = "management-api";

#[tokio::test]
async fn a_configuration_that_can_not_work_is_refused_with_78_and_one_line() {
    let stack = api().without_services().start().await;
    for (key, value, told) in [
        ("secrets.active_key", "missing", "secrets.active_key"),
        ("secrets.keys.test", "short", "secrets.keys.test"),
        ("postgres.url", "nonsense", "postgres.url"),
        ("postgres.pool_size", "0", "postgres.pool_size"),
        ("rabbitmq.url", "nonsense", "rabbitmq.url"),
        ("rabbitmq.shards", "0", "rabbitmq.shards"),
        ("api.workers", "0", "api.workers"),
        ("api.request_timeout_ms", "1", "api.request_timeout_ms"),
    ] {
        let settings = stack.settings().with(key, value);
        let Err(failure) = Service::try_start(Kind::ManagementApi, &settings).await else {
            panic!("it started with {key} = {value}");
        };
        assert_eq!(failure.code(), 78, "{key}");
        assert!(failure.line().contains(told), "{key}: {}", failure.line());
        assert!(!failure.line().contains('\n'));
    }
    stack.finish().await;
}

#[tokio::test]
async fn without_a_key_for_secrets_it_does_not_start() {
    let stack = api().without_services().start().await;
    let mut settings = stack.settings().clone();
    settings.remove("secrets.keys.test");
    settings.remove("secrets.active_key");
    let Err(failure) = Service::try_start(Kind::ManagementApi, &settings).await else {
        panic!("it started");
    };
    assert_eq!(failure.code(), 78);
    assert!(failure.line().contains("secrets"), "{}", failure.line());
    stack.finish().await;
}

#[tokio::test]
async fn a_database_without_its_tables_is_waited_for() {
    let stack = api().without_services().start().await;
    let empty = Database::empty().await;
    let settings = stack.settings().with("postgres.url", &empty.url());
    let service = Service::start(Kind::ManagementApi, &settings).await;
    eventually("the probe tells of the migrations", async || {
        let (status, report) = readiness(service.admin()).await?;
        (status == 503 && report.contains("migrate")).then_some(())
    })
    .await;
    let origin = format!("http://{}", service.api());
    let key = domain::api_key::ApiKey::from_random([1; 32]);
    let client = Client::new(&origin, Some(key.reveal()));
    let early = client.get(Partner::WEBHOOKS).await.expect(503);
    assert_eq!(early.code(), Some("UNAVAILABLE"));
    assert!(early.header("retry-after").is_some());

    let postgres = settings.management_api().postgres;
    let told = management_api::migrate::run(&postgres, |line| panic!("{line}")).await;
    assert!(
        told.unwrap_or_else(|f| panic!("{}", f.line()))
            .starts_with("Ran ")
    );
    let told = management_api::migrate::run(&postgres, |line| panic!("{line}")).await;
    assert!(
        told.unwrap_or_else(|f| panic!("{}", f.line()))
            .contains("up to date")
    );
    until_ready(NAME, service.admin()).await;
    client.get(Partner::WEBHOOKS).await.expect(401);
    service.stop().await;
    stack.finish().await;
}

#[tokio::test]
async fn a_postgres_that_is_away_is_waited_for_at_the_start_and_later() {
    let postgres = Server::postgres();
    postgres.start().await;
    let url = postgres.url().await;
    let database = Database::of_private_server(&url).await;
    let stack = api()
        .without_services()
        .start_on(database, Vhost::create().await)
        .await;
    let partner = Partner::create(&stack.database.store(), "http://unused", Plan::Starter).await;
    // Servers of tests don't wait for the disk, so that a kill would take the partner along.
    stack.database.sql().await.execute("CHECKPOINT").await;
    postgres.kill().await;

    let service = Service::start(Kind::ManagementApi, stack.settings()).await;
    let report = until_unready(NAME, service.admin()).await;
    assert!(report.contains("postgres"), "{report}");
    let client = Client::new(&format!("http://{}", service.api()), Some(&partner.key));
    for round in 0..2 {
        let away = client.get(Partner::WEBHOOKS).await.expect(503);
        assert_eq!(away.code(), Some("UNAVAILABLE"));
        assert!(away.header("retry-after").is_some());
        // What needs no database goes on.
        client
            .with_key(None)
            .get(Partner::WEBHOOKS)
            .await
            .expect(401);
        client.with_key(None).get("/nowhere").await.expect(404);

        postgres.start().await;
        until_ready(NAME, service.admin()).await;
        client.get(Partner::WEBHOOKS).await.expect(200);
        if round == 0 {
            postgres.kill().await;
            until_unready(NAME, service.admin()).await;
        }
    }
    service.stop().await;
    stack.finish().await;
}

#[tokio::test]
async fn a_rabbitmq_that_is_away_stops_test_calls_alone_and_changes_are_announced_when_it_is_back()
{
    let rabbitmq = Server::rabbitmq();
    rabbitmq.start().await;
    let (amqp, management) = (rabbitmq.url().await, rabbitmq.management_url().await);
    let vhost = Vhost::of_private_server(&amqp, &management);
    let stack = api().start_on(Database::create().await, vhost).await;
    let partner = stack.partner().await;
    let admin = stack.services(Kind::ManagementApi).next().unwrap().admin();
    rabbitmq.kill().await;
    let report = until_unready(NAME, admin).await;
    assert!(report.contains(r#""postgres":"ok""#), "{report}");

    let webhook = partner.create_webhook(URL, &["listing.updated"]).await;
    let away = partner.test_webhook(&webhook).await.expect(503);
    assert_eq!(away.code(), Some("UNAVAILABLE"));
    let sql = stack.database.sql().await;
    assert_eq!(sql.count("outbox").await, 1);

    rabbitmq.start().await;
    let listener = Listener::start(&stack).await;
    until_ready(NAME, admin).await;
    tests::wait::until_equal("the outbox is empty", 0, async || sql.count("outbox").await).await;
    listener.close().await;
    stack.finish().await;
}

#[tokio::test]
async fn it_shows_that_it_is_alive_until_it_has_ended() {
    let mut stack = api().start().await;
    let sql = stack.database.sql().await;
    let alive = "service_instances WHERE service = 'management-api' AND ready";
    tests::wait::until_equal("the heartbeat", 1, async || sql.count(alive).await).await;
    let version: String = sql.value("SELECT version FROM service_instances").await;
    assert_eq!(version, runtime::metrics::VERSION);
    stack.take(Kind::ManagementApi).stop().await;
    assert_eq!(sql.count("service_instances").await, 0);
    stack.finish().await;
}

#[tokio::test]
async fn as_a_process_it_ends_with_0_on_sigterm_and_writes_no_key() {
    let mut stack = api().without_services().start().await;
    let mut process = stack.process(Kind::ManagementApi).await;
    let partner = stack.partner().await;
    let created = partner
        .api
        .post(
            Partner::WEBHOOKS,
            &json!({"url": URL, "events": ["listing.updated"]}),
        )
        .await
        .expect(201);
    assert!(process.terminate().await.success());
    let output = process.output();
    let secret = created.body["meta"]["secret"].as_str().unwrap();
    assert!(output.contains("answered"), "{output}");
    assert!(
        !output.contains(&partner.key) && !output.contains(secret),
        "{output}"
    );
    stack.finish().await;
}
