//! The whole journey with the three services as processes of their own, as in production.

use serde_json::json;
use tests::service::Kind;
use tests::{Answer, Partner, Process, Receiver, Stack, Webhook, eventually, process, signature};

const TYPES: [&str; 8] = [
    "listing.created",
    "listing.updated",
    "listing.published",
    "listing.failed",
    "cosell.created",
    "cosell.updated",
    "cosell.completed",
    "content.generated",
];

#[tokio::test]
async fn from_a_migration_to_verified_deliveries_with_one_retry() {
    let mut stack = Stack::builder().without_services().start().await;
    migrate(&stack).await;
    let mut processes = Vec::new();
    for kind in [
        Kind::ManagementApi,
        Kind::Dispatcher,
        Kind::Dispatcher,
        Kind::Retry,
    ] {
        processes.push(stack.process(kind).await);
    }
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);

    assert_the_catalogue(&partner).await;
    let all = partner.create_webhook(&receiver.url("/all"), &TYPES).await;
    let flaky = partner
        .create_webhook(&receiver.url("/flaky"), &["content.generated"])
        .await;
    receiver.next_at("/flaky", [Answer::status(503)]);
    // Right after the create.
    assert_a_test_call(&partner, &all, &receiver).await;

    let mut published = Vec::new();
    for event_type in TYPES {
        published.push(
            stack
                .publish(&partner, event_type, r#"{"listing_id":1}"#)
                .await,
        );
    }
    let requests = receiver.wait_for_at("/all", TYPES.len() + 1).await;
    for (id, event_type) in published.iter().zip(TYPES) {
        let request = requests
            .iter()
            .find(|request| request.delivery() == id)
            .unwrap();
        assert_eq!(request.header("X-Vellocity-Event"), Some(event_type));
        signature::verify(request, &all.secret).unwrap();
    }
    let retried = receiver.wait_for_at("/flaky", 2).await;
    for request in &retried {
        assert_eq!(
            Some(request.delivery()),
            published.last().map(String::as_str)
        );
        signature::verify(request, &flaky.secret).unwrap();
    }
    for id in &published {
        stack.until_delivery_is(id, "delivered").await;
    }
    assert_the_list_tells_of_the_success(&partner).await;
    assert_eq!(receiver.requests().len(), TYPES.len() + 1 + 2);
    for process in &processes {
        // No secret and no key in any log.
        for secret in [&all.secret, &flaky.secret, &partner.key] {
            assert!(!process.output().contains(secret.as_str()));
        }
    }
    for process in processes {
        stack.keep(process);
    }
    stack.finish().await;
}

async fn migrate(stack: &Stack) {
    let mut command = std::process::Command::new(process::program("management-api"));
    command.arg("migrate").envs(stack.settings().variables());
    let mut process = Process::spawn("management-api migrate", command);
    let status = process.exited().await;
    assert!(status.success(), "{}", process.output());
    let migrated = process.output();
    assert!(migrated.contains("up to date"), "{migrated}");
}

async fn assert_the_catalogue(partner: &Partner) {
    let catalogue = partner
        .api
        .get("/partners/webhooks/events")
        .await
        .expect(200)
        .body;
    let entries = catalogue["data"].as_array().unwrap();
    let names: Vec<_> = entries.iter().map(|e| e["name"].clone()).collect();
    assert_eq!(names, TYPES.map(|name| json!(name)));
}

async fn assert_a_test_call(partner: &Partner, webhook: &Webhook, receiver: &Receiver) {
    let test = partner.test_webhook(webhook).await.expect(200).body;
    let attributes = &test["data"]["attributes"];
    assert_eq!(attributes["delivered"], true, "{test}");
    let test_id = attributes["delivery_id"].as_str().unwrap();
    let test = receiver.wait_for_delivery(test_id).await;
    assert_eq!(test.header("X-Vellocity-Event"), Some("webhook.test"));
    signature::verify(&test, &webhook.secret).unwrap();
}

async fn assert_the_list_tells_of_the_success(partner: &Partner) {
    eventually("the list tells of the success", async || {
        let list = partner.api.get(Partner::WEBHOOKS).await.expect(200).body;
        let webhooks = list["data"].as_array().unwrap().clone();
        let succeeded = |w: &serde_json::Value| {
            let attributes = &w["attributes"];
            attributes["last_response_code"] == 200 && attributes["failure_count"] == 0
        };
        webhooks.iter().all(succeeded).then_some(())
    })
    .await;
}
