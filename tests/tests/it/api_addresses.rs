//! Where a webhook may point to, when it is written: the network rules of production, by address and by name.

use serde_json::json;
use tests::Partner;
use tests::dns::NameServer;

use super::api_fixture::{assert_nothing_stored, faults, strict_api};

const FORBIDDEN: &str = "must not point to a private, local or reserved address";

#[tokio::test]
async fn a_private_address_is_refused_in_any_spelling() {
    let stack = strict_api().start().await;
    let partner = stack.partner().await;
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "127.0.0.1.",
        "１２７.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "0xa9fea9fe",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
    ] {
        let body = json!({"url": format!("https://{host}/hook"), "events": ["listing.updated"]});
        let refused = partner.api.post(Partner::WEBHOOKS, &body).await;
        assert_eq!(faults(refused, "url"), [FORBIDDEN], "{host}");
    }
    assert_nothing_stored(&stack).await;
    stack.finish().await;
}

#[tokio::test]
async fn plain_http_is_refused_where_it_is_not_allowed() {
    let stack = strict_api().start().await;
    let partner = stack.partner().await;
    let body = json!({"url": "http://1.1.1.1/hook", "events": ["listing.updated"]});
    let refused = partner.api.post(Partner::WEBHOOKS, &body).await;
    assert_eq!(faults(refused, "url"), ["must begin with https://"]);
    assert_nothing_stored(&stack).await;
    stack.finish().await;
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_refused_and_one_that_leads_nowhere_accepted() {
    let names = NameServer::start().await;
    names.set("private.example", &["10.0.0.1"]);
    names.set("metadata.example", &["169.254.169.254"]);
    names.set("both.example", &["1.1.1.1", "127.0.0.1"]);
    names.set("six.example", &["fd00::1"]);
    names.set("mapped.example", &["::ffff:127.0.0.1"]);
    names.set("empty.example", &[]);
    names.set("public.example", &["1.1.1.1", "2606:4700::1111"]);
    let stack = strict_api()
        .set("network.name_servers", &names.address().to_string())
        .set("api.resolve_timeout_ms", "500")
        .start()
        .await;
    let partner = stack.partner().await;
    let body =
        |host: &str| json!({"url": format!("https://{host}/hook"), "events": ["listing.updated"]});
    for host in [
        "private.example",
        "PRIVATE.example",
        "metadata.example",
        "both.example",
        "six.example",
        "mapped.example",
    ] {
        let refused = partner.api.post(Partner::WEBHOOKS, &body(host)).await;
        assert_eq!(faults(refused, "url"), [FORBIDDEN], "{host}");
    }
    assert_nothing_stored(&stack).await;

    for host in ["public.example", "empty.example", "missing.example"] {
        partner.create_webhook_from(&body(host)).await;
    }
    names.set_silent(true);
    partner.create_webhook_from(&body("silent.example")).await;
    names.set_silent(false);

    let webhook = partner.create_webhook_from(&body("public.example")).await;
    let change = json!({"url": "https://private.example/hook"});
    let path = Partner::webhook_path(webhook.id);
    let refused = partner.api.patch(&path, &change).await;
    assert_eq!(faults(refused, "url"), [FORBIDDEN]);
    stack.finish().await;
}

#[tokio::test]
async fn ports_and_networks_are_a_matter_of_configuration() {
    let stack = strict_api()
        .set("network.ports", "443,8443")
        .set("network.allowed_networks", "10.1.0.0/16")
        .start()
        .await;
    let partner = stack.partner().await;
    let post = async |url: &str| {
        let body = json!({"url": url, "events": ["listing.updated"]});
        partner.api.post(Partner::WEBHOOKS, &body).await
    };
    post("https://1.1.1.1/").await.expect(201);
    post("https://10.1.2.3:8443/").await.expect(201);
    let refused = post("https://1.1.1.1:8080/").await;
    assert_eq!(faults(refused, "url"), ["must not use port 8080"]);
    let refused = post("https://10.2.0.1/").await;
    assert_eq!(faults(refused, "url"), [FORBIDDEN]);
    stack.finish().await;
}
