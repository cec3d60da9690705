//! Names that lead nowhere, or to where nothing of ours may go.

use std::net::SocketAddr;

use tests::dns::NameServer;
use tests::{Answer, Receiver};

use super::hell_fixture::Hell;

const HOST: &str = "hook.example";

/// The loopback addresses stand for the public internet (127.0.0.1) and for a private network (127.0.0.2).
async fn hell_with(names: &NameServer, more: &[(&str, &str)]) -> Hell {
    let address = names.address().to_string();
    let of_names = [
        ("network.name_servers", address.as_str()),
        ("network.allowed_networks", "127.0.0.1/32"),
    ];
    Hell::start_with(&[&of_names, more].concat()).await
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told() {
    let names = NameServer::start().await;
    let hell = hell_with(&names, &[]).await;
    let delivery = hell.send(&format!("http://{HOST}/")).await;
    let shown = hell.attempted(&delivery).await;
    shown.assert_failed(None, "dns", "the name hook.example does not resolve");
    assert_eq!(shown.steps(), ["dns"]);
    assert_eq!(shown.last_attempt()["reused_connection"], false);
    hell.finish().await;
}

#[tokio::test]
async fn a_name_without_any_address_does_not_resolve_either() {
    let names = NameServer::start().await;
    names.set(HOST, &[]);
    let hell = hell_with(&names, &[]).await;
    let delivery = hell.send(&format!("http://{HOST}/")).await;
    let shown = hell.attempted(&delivery).await;
    shown.assert_failed(None, "dns", "the name hook.example does not resolve");
    hell.finish().await;
}

#[tokio::test]
async fn name_servers_that_say_nothing_are_told_apart_from_a_name_that_is_not() {
    let names = NameServer::start().await;
    names.set(HOST, &["127.0.0.1"]);
    let hell = hell_with(&names, &[("dispatcher.deliver.connect_timeout_ms", "1000")]).await;
    let receiver = Receiver::start().await;
    let webhook = format!("http://{HOST}:{}/", receiver.address().port());
    let first = hell.send(&webhook).await;
    hell.delivered(&first).await.assert_delivered(200);
    names.set_silent(true);
    // The kept connection needs no name; one that is closed after its answer leaves none.
    receiver.always(Answer::ok().closing());
    let second = hell.send_again(&first).await;
    hell.delivered(&second).await.assert_delivered(200);
    let third = hell.send_again(&first).await;
    let shown = hell.attempted(&third).await;
    let sentence = "the name servers did not answer for hook.example in time";
    shown.assert_failed(None, "dns", sentence);
    assert_eq!(shown.steps(), ["dns"]);
    assert_eq!(receiver.requests().len(), 2);
    hell.finish().await;
}

#[tokio::test]
async fn a_name_that_leads_inside_the_second_time_is_not_followed_there() {
    let names = NameServer::start().await;
    let private = Receiver::start_at(SocketAddr::from(([127, 0, 0, 2], 0))).await;
    let public = SocketAddr::from(([127, 0, 0, 1], private.address().port()));
    let public = Receiver::start_at(public).await;
    names.set(HOST, &["127.0.0.1"]);
    let hell = hell_with(&names, &[]).await;
    public.always(Answer::ok().closing());
    let url = format!("http://{HOST}:{}/", public.address().port());
    let first = hell.send(&url).await;
    let shown = hell.delivered(&first).await;
    shown.assert_delivered(200);
    assert_eq!(shown.steps(), ["dns", "connect", "first_byte"]);

    // Wholly, and with one address among those that are fine.
    for addresses in [
        &["127.0.0.2"][..],
        &["127.0.0.1", "127.0.0.2"],
        &["::ffff:127.0.0.2"],
    ] {
        names.set(HOST, addresses);
        let next = hell.send_again(&first).await;
        let shown = hell.attempted(&next).await;
        // Where it leads inside is nothing to tell outside.
        let sentence = "hook.example points to a private, local or reserved address";
        shown.assert_failed(None, "forbidden_address", sentence);
        assert_eq!(shown.steps(), ["dns"]);
        assert!(
            !shown.document.to_string().contains("127.0.0.2"),
            "{}",
            shown.document
        );
    }
    names.set(HOST, &["127.0.0.1"]);
    let last = hell.send_again(&first).await;
    hell.delivered(&last).await.assert_delivered(200);
    assert_eq!(public.requests().len(), 2);
    assert!(private.requests().is_empty(), "{:?}", private.requests());
    hell.finish().await;
}
