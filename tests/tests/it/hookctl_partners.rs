//! Partners and keys, made on the command line and used over REST.

use serde_json::{Value, json};
use tests::service::Kind;
use tests::{Client, Receiver, Stack, eventually};

use super::hookctl_line::{Ended, Hookctl};

fn client(stack: &Stack, answer: &Value) -> Client {
    Client::new(&stack.api_origin(), answer["api_key"].as_str())
}

#[tokio::test]
async fn a_partner_is_made_with_a_key_that_may_read_and_write() {
    let stack = Stack::builder().dispatchers(0).retries(0).start().await;
    let hookctl = Hookctl::of(&stack);
    let made = hookctl
        .json(&[
            "partner",
            "create",
            "--name",
            "Möbel & Söhne",
            "--plan",
            "Starter",
        ])
        .await;
    assert_eq!(made["partner_id"], 1);
    let key = made["api_key"].as_str().unwrap();
    assert!(key.starts_with("vel_") && key.len() == 47, "{key}");

    let api = client(&stack, &made);
    let webhook = json!({"url": "https://receiver.example/", "events": ["listing.updated"]});
    api.post("/partners/webhooks", &webhook).await.expect(201);
    api.get("/partners/webhooks").await.expect(200);
    let stored: Vec<u8> = stack
        .database
        .sql()
        .await
        .value("SELECT hash FROM api_keys")
        .await;
    assert_eq!(stored.len(), 32, "the key itself is kept nowhere");

    let listed = hookctl.json(&["partner", "list"]).await;
    assert_eq!(listed[0]["name"], "Möbel & Söhne");
    assert_eq!(
        (&listed[0]["plan"], &listed[0]["suspended"]),
        (&json!("Starter"), &json!(false))
    );
    stack.finish().await;
}

#[tokio::test]
async fn a_smaller_plan_stops_only_new_webhooks() {
    let stack = Stack::builder().dispatchers(0).retries(0).start().await;
    let hookctl = Hookctl::of(&stack);
    let made = hookctl
        .json(&["partner", "create", "--name", "A", "--plan", "Accelerate"])
        .await;
    let api = client(&stack, &made);
    let webhook = json!({"url": "https://receiver.example/", "events": ["listing.updated"]});
    for _ in 0..3 {
        api.post("/partners/webhooks", &webhook).await.expect(201);
    }
    let changed = hookctl.json(&["partner", "set-plan", "1", "Starter"]).await;
    assert_eq!(changed["plan"], "Starter");
    assert_eq!(
        api.post("/partners/webhooks", &webhook)
            .await
            .expect(403)
            .code(),
        Some("PLAN_LIMIT_REACHED")
    );
    let left = api.get("/partners/webhooks").await.expect(200);
    assert_eq!(left.body["data"].as_array().unwrap().len(), 3);

    hookctl
        .json(&["partner", "set-plan", "1", "Command+"])
        .await;
    api.post("/partners/webhooks", &webhook).await.expect(201);
    stack.finish().await;
}

#[tokio::test]
async fn a_suspended_partner_is_kept_out_matches_nothing_and_can_come_back() {
    let stack = Stack::builder().retries(0).start().await;
    let hookctl = Hookctl::of(&stack);
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &["listing.updated"])
        .await;
    let id = partner.id.to_string();

    let suspended = hookctl.json(&["partner", "suspend", &id]).await;
    assert_eq!(suspended["suspended"], true);
    assert_eq!(
        partner
            .api
            .get("/partners/webhooks")
            .await
            .expect(403)
            .code(),
        Some("FORBIDDEN")
    );
    let publish = [
        "publish",
        "listing.updated",
        "--partner",
        &id,
        "--data",
        r#"{"listing_id":1}"#,
        "--wait",
        "20s",
    ];
    let published = hookctl.json(&publish).await;
    assert_eq!(
        (&published["outcome"], &published["deliveries"]),
        (&json!("finished"), &json!([]))
    );

    assert_eq!(
        hookctl.json(&["partner", "resume", &id]).await["suspended"],
        false
    );
    partner.api.get("/partners/webhooks").await.expect(200);
    // Events match nothing until the change has reached the dispatcher.
    let delivery = eventually("an event matches again", async || {
        let published = hookctl.json(&publish).await;
        published["deliveries"].get(0).cloned()
    })
    .await;
    assert_eq!(delivery["status"], "delivered");
    assert_eq!(receiver.requests().len(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn keys_are_made_with_scopes_and_an_end_listed_by_their_beginning_and_revoked() {
    let mut stack = Stack::builder().without_services().start().await;
    stack.add(Kind::ManagementApi).await;
    let hookctl = Hookctl::of(&stack);
    hookctl.json(&["partner", "create", "--name", "A"]).await;
    let made = hookctl
        .json(&[
            "key",
            "create",
            "--partner",
            "1",
            "--scope",
            "read",
            "--expires",
            "90d",
        ])
        .await;
    assert_eq!(made["scopes"], json!(["read"]));
    let api = client(&stack, &made);
    api.get("/partners/webhooks").await.expect(200);
    let webhook = json!({"url": "https://receiver.example/", "events": ["listing.updated"]});
    assert_eq!(
        api.post("/partners/webhooks", &webhook)
            .await
            .expect(403)
            .code(),
        Some("FORBIDDEN")
    );
    let days: f64 = stack
        .database
        .sql()
        .await
        .value("SELECT (extract(epoch FROM expires_at - created_at) / 86400)::float8 FROM api_keys WHERE expires_at IS NOT NULL")
        .await;
    assert_eq!(days, 90.0);

    let listed = hookctl.json(&["key", "list", "--partner", "1"]).await;
    let keys = listed.as_array().unwrap();
    assert_eq!(keys.len(), 2);
    let key = made["api_key"].as_str().unwrap();
    assert!(key.starts_with(keys[1]["prefix"].as_str().unwrap()));
    assert!(!listed.to_string().contains(key), "a list shows no key");

    let id = made["key_id"].to_string();
    let revoked = hookctl.json(&["key", "revoke", &id]).await;
    assert!(revoked["revoked_at"].is_string());
    api.get("/partners/webhooks").await.expect(401);
    stack.finish().await;
}

/// Lines that can't be carried out, with the exit code and the word for it.
const MISTAKES: [(&str, i32, &str); 10] = [
    ("partner suspend 77 --json", 3, "not_found"),
    ("partner --json set-plan 77 Starter", 3, "not_found"),
    ("key create --partner 77 --json", 3, "not_found"),
    ("key revoke 77 --json", 3, "not_found"),
    (
        "deliveries show dlv_00000000000000000000000007 --json",
        3,
        "not_found",
    ),
    ("deliveries show evt_1 --json", 2, "usage"),
    ("partner create --json", 2, "usage"),
    ("--json nonsense", 2, "usage"),
    (
        "publish a.b --partner 1 --data {} --format protobuf --json",
        2,
        "usage",
    ),
    (
        "publish a.b --partner 1 --data @/does/not/exist --json",
        1,
        "failed",
    ),
];

async fn run(hookctl: &Hookctl, line: &str) -> Ended {
    hookctl.run(&line.split(' ').collect::<Vec<_>>()).await
}

#[tokio::test]
async fn exit_codes_tell_scripts_what_was_wrong() {
    let stack = Stack::builder().without_services().start().await;
    let hookctl = Hookctl::of(&stack);
    for (line, code, word) in MISTAKES {
        let ended = run(&hookctl, line).await;
        assert_eq!(
            (ended.code, ended.error().as_str()),
            (code, word),
            "{line}: {ended:?}"
        );
    }
    // Nothing is declared in this virtual host: the exchange is missing.
    let ended = run(&hookctl, "publish a.b --partner 1 --data {} --json").await;
    assert_eq!(
        (ended.code, ended.error().as_str()),
        (69, "unavailable"),
        "{ended:?}"
    );
    stack.finish().await;
}

#[tokio::test]
async fn what_is_away_is_told_without_its_password() {
    let nowhere = Hookctl::default()
        .with("VELLOCITY_DATABASE_URL", "postgres://me:hush@127.0.0.1:1/x")
        .with("VELLOCITY_AMQP_URL", "amqp://me:hush@127.0.0.1:1/x");
    for line in [
        "partner list --json",
        "publish a.b --partner 1 --data {} --json",
    ] {
        let ended = run(&nowhere, line).await;
        assert_eq!(
            (ended.code, ended.error().as_str()),
            (69, "unavailable"),
            "{ended:?}"
        );
        assert!(!format!("{ended:?}").contains("hush"), "{ended:?}");
    }
    let unset = run(&Hookctl::default(), "partner list").await;
    assert_eq!((unset.code, unset.stdout.as_str()), (2, ""));
    assert!(unset.stderr.contains("VELLOCITY_DATABASE_URL"), "{unset:?}");
}

#[tokio::test]
async fn help_comes_with_examples_and_exit_codes() {
    let ended = Hookctl::default().run(&["--help"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert!(ended.stdout.contains("Exit codes:"), "{}", ended.stdout);
    let ended = Hookctl::default().run(&["publish", "--help"]).await;
    assert!(ended.stdout.contains("Examples:"), "{}", ended.stdout);
    let ended = Hookctl::default().run(&["--version", "--json"]).await;
    assert_eq!(ended.code, 0);
    ended.document();
}
