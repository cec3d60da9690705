//! PostgreSQL and RabbitMQ away: at the start the services wait and say so, later they turn unready, calls that need
//! what is away answer 503, and everything goes on by itself when it is back.
//!
//! One test, since the servers are its own and take their time to start.

use std::net::SocketAddr;

use reqwest::Method;
use tests::servers::Server;
use tests::service::{Kind, until_ready, until_unready};
use tests::wait::until_equal;
use tests::{Database, Partner, Process, Receiver, Stack, Vhost, Webhook, eventually};

const TYPE: &str = "listing.published";

struct Scene {
    stack: Stack,
    processes: Vec<Process>,
    receiver: Receiver,
    partner: Partner,
    webhook: Webhook,
}

impl Scene {
    fn admins(&self) -> Vec<(String, SocketAddr)> {
        let names = ["management-api", "dispatcher", "retry"];
        let admins = self.processes.iter().map(Process::admin);
        names.iter().map(ToString::to_string).zip(admins).collect()
    }

    async fn until_all_ready(&self) {
        for (name, admin) in self.admins() {
            until_ready(&name, admin).await;
        }
    }

    /// All probes say no, name what is away, and give nothing of its credentials away.
    async fn until_all_miss(&self, what: &str) {
        for (name, admin) in self.admins() {
            let report = until_unready(&name, admin).await;
            let report: serde_json::Value = serde_json::from_str(&report).unwrap();
            assert_eq!(report["ready"], false, "{name}: {report}");
            eventually("the check fails", async || {
                let (_, report) = tests::service::readiness(admin).await?;
                let report: serde_json::Value = serde_json::from_str(&report).ok()?;
                (report["checks"][what] != "ok").then_some(())
            })
            .await;
        }
    }

    async fn api_answers(&self, method: Method, path: &str, status: u16) {
        let what = format!("{method} {path} answers {status}");
        eventually(&what, async || {
            let request = self.partner.api.request(method.clone(), path);
            let request = match method {
                Method::POST => request.json(&serde_json::json!({"webhook_id": self.webhook.id})),
                _ => request,
            };
            let answer = self.partner.api.try_send(request).await.ok()?;
            if answer.status == 503 {
                assert_eq!(answer.code(), Some("UNAVAILABLE"), "{}", answer.text);
            }
            (answer.status == status).then_some(())
        })
        .await;
    }

    /// An event that is published now arrives.
    async fn assert_events_flow(&self) {
        let amqp = tests::Amqp::connect(self.stack.vhost.url()).await;
        let id = tests::stack::new_event_id();
        amqp.publish(&tests::Message::event(&id, TYPE, self.partner.id, "{}"))
            .await;
        self.receiver.wait_for_delivery(&id).await;
        self.stack.until_delivery_is(&id, "delivered").await;
        amqp.close().await;
    }
}

/// The services, started while neither server runs, and a partner with a webhook once they do.
async fn start(postgres: &Server, rabbitmq: &Server) -> Scene {
    tokio::join!(postgres.start(), rabbitmq.start());
    let database = Database::of_private_server(&postgres.url().await).await;
    let vhost = Vhost::of_private_server(&rabbitmq.url().await, &rabbitmq.management_url().await);
    let mut stack = Stack::builder()
        .without_services()
        .set("postgres.connect_timeout_ms", "1000")
        .set("rabbitmq.heartbeat_s", "5")
        .start_on(database, vhost)
        .await;
    tokio::join!(postgres.stop(), rabbitmq.stop());
    let mut processes = Vec::new();
    for kind in [Kind::ManagementApi, Kind::Dispatcher, Kind::Retry] {
        processes.push(Process::service(kind, stack.settings()).await);
    }
    for process in &processes {
        let report = until_unready("a service", process.admin()).await;
        assert!(!report.contains("vellocity:"), "{report}");
    }
    tokio::join!(postgres.start(), rabbitmq.start());
    for process in &processes {
        process.until_ready().await;
    }
    let origin = format!("http://{}", processes[0].api());
    let store = stack.database.store();
    let partner = Partner::create(&store, &origin, domain::plan::Plan::Enterprise).await;
    let receiver = Receiver::start().await;
    let webhook = partner.create_webhook(&receiver.url("/"), &[TYPE]).await;
    stack.may_leave(tests::stack::Leftovers::default());
    Scene {
        stack,
        processes,
        receiver,
        partner,
        webhook,
    }
}

#[tokio::test]
async fn services_wait_for_servers_that_are_away_and_go_on_when_they_are_back() {
    let (postgres, rabbitmq) = (Server::postgres(), Server::rabbitmq());
    let mut scene = start(&postgres, &rabbitmq).await;
    scene.assert_events_flow().await;

    postgres.kill().await;
    scene.until_all_miss("postgres").await;
    scene
        .api_answers(Method::GET, "/partners/webhooks", 503)
        .await;
    // Published and confirmed while nobody can record it.
    let amqp = tests::Amqp::connect(scene.stack.vhost.url()).await;
    let held = tests::stack::new_event_id();
    amqp.publish(&tests::Message::event(&held, TYPE, scene.partner.id, "{}"))
        .await;
    amqp.close().await;
    postgres.start().await;
    scene.until_all_ready().await;
    scene
        .api_answers(Method::GET, "/partners/webhooks", 200)
        .await;
    scene.receiver.wait_for_delivery(&held).await;
    scene.stack.until_delivery_is(&held, "delivered").await;
    scene.assert_events_flow().await;

    rabbitmq.kill().await;
    scene.until_all_miss("rabbitmq").await;
    scene
        .api_answers(Method::POST, "/partners/webhooks/test", 503)
        .await;
    // What needs Postgres alone works; the change is published later.
    scene
        .partner
        .create_webhook(&scene.receiver.url("/later"), &[TYPE])
        .await;
    rabbitmq.start().await;
    scene.until_all_ready().await;
    let sql = scene.stack.database.sql().await;
    until_equal("the outbox is empty", 0, async || sql.count("outbox").await).await;
    scene
        .api_answers(Method::POST, "/partners/webhooks/test", 200)
        .await;
    scene.assert_events_flow().await;
    scene.receiver.wait_for_at("/later", 1).await;

    let duplicates = scene.receiver.requests_at("/later").len();
    assert_eq!(duplicates, 1);
    for process in scene.processes.drain(..) {
        scene.stack.keep(process);
    }
    scene.stack.finish().await;
}
