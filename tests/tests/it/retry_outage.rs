//! The retry service while Postgres or RabbitMQ is away, and when it ends.

use broker::topology::FAILED_QUEUE;
use chrono::Utc;
use serde_json::json;
use tests::process::Signal;
use tests::servers::Server;
use tests::service::{Kind, Service, readiness, until_ready, until_unready};
use tests::wait::until_equal;
use tests::{Amqp, Database, Message, Process, Settings, Stack, Vhost, eventually};

fn announcement(wait_ms: i64) -> Message {
    let body = json!({
        "delivery_id": "dlv_01m864shxbeanakjdam20f1d43", "webhook_id": 2, "partner_id": 3, "turn": 4,
        "not_before_ms": Utc::now().timestamp_millis() + wait_ms,
    });
    Message {
        exchange: "vellocity.deliveries".to_owned(),
        ..Message::raw("failed", body.to_string())
    }
}

#[tokio::test]
async fn it_waits_for_both_says_so_and_goes_on_by_itself() {
    let (postgres, rabbitmq) = (Server::postgres(), Server::rabbitmq());
    tokio::join!(postgres.start(), rabbitmq.start());
    let (postgres_url, rabbitmq_url) = (postgres.url().await, rabbitmq.url().await);
    let management_url = rabbitmq.management_url().await;
    tokio::join!(postgres.kill(), rabbitmq.kill());

    let settings = Settings::for_tests(&postgres_url, &rabbitmq_url);
    let service = Service::start(Kind::Retry, &settings).await;
    eventually("it says what it waits for", async || {
        let (status, report) = readiness(service.admin()).await?;
        let both = report.contains("Postgres is not available") && report.contains("connecting: ");
        (status == 503 && both).then_some(())
    })
    .await;

    tokio::join!(postgres.start(), rabbitmq.start());
    eventually("it waits for the migrations", async || {
        let (_, report) = readiness(service.admin()).await?;
        report.contains("migration").then_some(())
    })
    .await;
    let database = Database::of_private_server(&postgres_url).await;
    service.until_ready().await;

    rabbitmq.kill().await;
    let report = until_unready("retry", service.admin()).await;
    assert!(report.contains("connecting"), "{report}");
    rabbitmq.start().await;
    service.until_ready().await;

    postgres.kill().await;
    until_unready("retry", service.admin()).await;
    // What needs no Postgres goes on meanwhile, and what needs it is not lost.
    let vhost = Vhost::of_private_server(&rabbitmq_url, &management_url);
    let amqp = Amqp::connect(vhost.url()).await;
    amqp.publish(&announcement(3_000_000)).await;
    until_equal("it is placed", 1, async || {
        amqp.depth("vellocity.delay.1800000.v1").await.ready
    })
    .await;
    amqp.publish(&Message {
        exchange: "vellocity.rejected".to_owned(),
        ..Message::raw("listing.updated", "{}")
    })
    .await;
    postgres.start().await;
    service.until_ready().await;
    let sql = database.sql().await;
    until_equal("the rejected event is a row", 1, async || {
        sql.count("dead_letters").await
    })
    .await;
    service.stop().await;
    amqp.close().await;
}

#[tokio::test]
async fn sigterm_ends_it_in_order_and_places_what_it_has_taken() {
    const ANNOUNCEMENTS: u32 = 200;
    let mut stack = Stack::builder()
        .apis(0)
        .dispatchers(0)
        .retries(0)
        .start()
        .await;
    let mut retry: Process = stack.process(Kind::Retry).await;
    let amqp = stack.amqp().await;
    for _ in 0..ANNOUNCEMENTS {
        amqp.publish(&announcement(3_000_000)).await;
    }
    retry.signal(Signal::Term);
    assert!(retry.exited().await.success(), "{}", retry.output());
    // Each is in its bucket or where it was: none is lost, and none is there twice.
    until_equal("all are there", ANNOUNCEMENTS, async || {
        let placed = amqp.depth("vellocity.delay.1800000.v1").await.ready;
        placed + amqp.depth(FAILED_QUEUE).await.ready
    })
    .await;
    assert_eq!(
        stack.database.sql().await.count("service_instances").await,
        0
    );
    stack.finish().await;
}

#[tokio::test]
async fn a_configuration_that_can_not_work_is_refused_with_78_and_one_line() {
    for (key, value, words) in [
        ("RETRY__SWEEP_BATCH", "0", "retry.sweep_batch"),
        ("RETRY__PREFETCH", "many", "VELLOCITY__RETRY__PREFETCH"),
        ("RETRY__SURPRISE", "1", "VELLOCITY__RETRY__SURPRISE"),
        ("RETRY_POLICY__JITTER", "0.9", "retry_policy.jitter"),
        ("RABBITMQ__URL", "http://h", "rabbitmq.url"),
        ("POSTGRES__URL", "nonsense", "postgres.url"),
    ] {
        let mut command = std::process::Command::new(tests::process::program("retry"));
        command.env(format!("VELLOCITY__{key}"), value);
        command.env("VELLOCITY__TELEMETRY__LOG_FILTER", "warn");
        let mut process = Process::spawn("retry", command);
        assert_eq!(
            process.exited().await.code(),
            Some(78),
            "{key}: {}",
            process.output()
        );
        let output = process.output();
        assert!(
            output.contains(words) && output.lines().count() == 1,
            "{key}: {output}"
        );
    }
}

#[tokio::test]
async fn its_probes_tell_how_it_is() {
    let stack = Stack::builder().apis(0).dispatchers(0).start().await;
    let admin = stack.services(Kind::Retry).next().unwrap().admin();
    until_ready("retry", admin).await;
    let (_, report) = readiness(admin).await.unwrap();
    assert_eq!(
        report,
        r#"{"ready":true,"checks":{"postgres":"ok","rabbitmq":"ok"}}"#
    );
    stack.finish().await;
}
