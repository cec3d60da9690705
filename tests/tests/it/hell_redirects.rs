//! Redirects: told, never followed, wherever they lead.

use std::net::SocketAddr;

use tests::{Answer, Receiver};

use super::hell_fixture::Hell;

#[tokio::test]
async fn a_redirect_is_told_with_its_target_and_not_followed() {
    let hell = Hell::start().await;
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    let target = elsewhere.url("/new?place=1");
    let paths = ["/301", "/302", "/303", "/307", "/308"];
    for path in paths {
        let answer = Answer::status(path[1..].parse().unwrap());
        let answer = answer.header("Location", &target).body("moved");
        receiver.always_at(path, answer);
    }
    let urls = paths.map(|path| receiver.url(path));
    let deliveries = hell.send_to_each(urls.each_ref().map(String::as_str)).await;
    for (path, delivery) in paths.iter().zip(&deliveries) {
        let status: u16 = path[1..].parse().unwrap();
        let shown = hell.attempted(delivery).await;
        let sentence =
            format!("answered {status}: redirects are not followed (Location: {target})");
        shown.assert_failed(Some(status), "status", &sentence);
        assert_eq!(shown.steps().last(), Some(&"first_byte"));
        assert_eq!(shown.last_attempt()["response_body"], "moved");
    }
    assert_eq!(receiver.requests().len(), paths.len());
    assert!(
        elsewhere.requests().is_empty(),
        "{:?}",
        elsewhere.requests()
    );
    hell.finish().await;
}

#[tokio::test]
async fn a_redirect_to_a_private_address_reaches_nobody() {
    // The loopback addresses stand for the public internet (127.0.0.1) and for a private network (127.0.0.2).
    let hell = Hell::start_with(&[("network.allowed_networks", "127.0.0.1/32")]).await;
    let receiver = Receiver::start().await;
    let private = Receiver::start_at(SocketAddr::from(([127, 0, 0, 2], 0))).await;
    let target = format!("http://{}/latest/meta-data", private.address());
    receiver.always(Answer::status(307).header("Location", &target));
    let delivery = hell.send(&receiver.url("/")).await;
    let shown = hell.attempted(&delivery).await;
    let sentence = format!("answered 307: redirects are not followed (Location: {target})");
    shown.assert_failed(Some(307), "status", &sentence);
    assert!(private.requests().is_empty(), "{:?}", private.requests());
    assert_eq!(receiver.requests().len(), 1);
    hell.finish().await;
}
