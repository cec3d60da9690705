//! Names, addresses and ports: what is looked up, what is refused, and what the partner is told.

use super::dns::NameServer;
use super::*;

fn strict_sender(name_server: SocketAddr) -> Sender {
    Sender::new(
        &Config::default(),
        policy(|config| config.allowed_networks.clear()),
        resolver(name_server),
    )
    .unwrap()
}

fn forbidden(host: &str) -> (FailureKind, String) {
    (
        FailureKind::ForbiddenAddress,
        format!("{host} points to a private, local or reserved address"),
    )
}

fn owned((kind, message): (FailureKind, &str)) -> (FailureKind, String) {
    (kind, message.to_owned())
}

#[tokio::test]
async fn a_name_is_looked_up_and_the_time_told() {
    let mut receiver = Receiver::answering(OK).await;
    let names = NameServer::start(&[("hooks.example.com", &[[127, 0, 0, 1]])]).await;
    let sender = Sender::new(&Config::default(), policy(|_| {}), resolver(names.address)).unwrap();
    let port = receiver.address.port();
    let attempt = send(&sender, &format!("http://hooks.example.com:{port}/")).await;
    assert_eq!(attempt.outcome, Outcome::Delivered);
    assert!(attempt.timings.dns.is_some() && attempt.timings.connect.is_some());
    let request = receiver.next_request().await;
    let head = String::from_utf8_lossy(&request).into_owned();
    assert_eq!(header(&head, "Host"), format!("hooks.example.com:{port}"));
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    let names = NameServer::start(&[]).await;
    let attempt = send(&strict_sender(names.address), "https://hooks.example.com/").await;
    assert_eq!(
        failure(&attempt),
        (
            FailureKind::Dns,
            "the name hooks.example.com does not resolve"
        )
    );
    assert!(attempt.timings.dns.is_some());
    assert_eq!(attempt.timings.connect, None);
}

#[tokio::test]
async fn a_name_server_that_is_silent_is_told() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let sender = Sender::new(
        &Config {
            connect_timeout_ms: 100,
            ..Config::default()
        },
        policy(|_| {}),
        resolver(silent.local_addr().unwrap()),
    )
    .unwrap();
    let attempt = send(&sender, "https://hooks.example.com/").await;
    assert_eq!(
        failure(&attempt),
        (
            FailureKind::Dns,
            "the name servers did not answer for hooks.example.com in time"
        )
    );
}

#[tokio::test]
async fn a_forbidden_address_in_the_url_is_not_connected_to() {
    let receiver = Receiver::start(|_, _| async { panic!("connected") }).await;
    let port = receiver.address.port();
    let sender = strict_sender(NO_NAME_SERVER.into());
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1"] {
        let attempt = send(&sender, &format!("http://{host}:{port}/")).await;
        let (kind, message) = failure(&attempt);
        assert_eq!(kind, FailureKind::ForbiddenAddress, "{host}");
        assert!(message.ends_with("points to a private, local or reserved address"));
        assert_eq!(attempt.timings.connect, None);
    }
    // However it is spelled.
    for host in ["2130706433", "0x7f.1", "127.1"] {
        let attempt = send(&sender, &format!("http://{host}:{port}/")).await;
        assert_eq!(owned(failure(&attempt)), forbidden("127.0.0.1"), "{host}");
    }
}

#[tokio::test]
async fn one_forbidden_address_among_several_spoils_the_attempt() {
    let names = NameServer::start(&[
        ("inside.example.com", &[[127, 0, 0, 1]]),
        ("mixed.example.com", &[[8, 8, 8, 8], [169, 254, 169, 254]]),
    ])
    .await;
    let sender = strict_sender(names.address);
    for host in ["inside.example.com", "mixed.example.com"] {
        let attempt = send(&sender, &format!("https://{host}/")).await;
        assert_eq!(owned(failure(&attempt)), forbidden(host));
    }
}

#[tokio::test]
async fn ports_and_plain_http_are_checked_again_when_sending() {
    let sender = Sender::new(
        &Config::default(),
        policy(|config| config.allow_http = false),
        resolver(NO_NAME_SERVER.into()),
    )
    .unwrap();
    for (url, message) in [
        ("http://127.0.0.1:8080/", "plain http is not permitted"),
        ("https://127.0.0.1:22/", "port 22 is not permitted"),
    ] {
        let attempt = send(&sender, url).await;
        assert_eq!(failure(&attempt), (FailureKind::ForbiddenAddress, message));
    }
}

#[tokio::test]
async fn a_refused_connection_is_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let attempt = send(&default_sender(), &format!("http://{address}/")).await;
    assert_eq!(
        failure(&attempt),
        (
            FailureKind::Connect,
            &*format!("connection refused by {address}")
        )
    );
    assert!(attempt.timings.connect.is_some());
}

#[tokio::test]
async fn an_address_that_does_not_answer_runs_into_the_connect_time_out() {
    // A listener that accepts nothing, with its queue full: the kernel drops what comes then.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let limit = Duration::from_millis(100);
    while let Ok(stream) =
        tokio::time::timeout(limit, tokio::net::TcpStream::connect(address)).await
    {
        waiting.push(stream.unwrap());
    }
    let attempt = send(&impatient_sender(), &format!("http://{address}/")).await;
    assert_eq!(
        failure(&attempt),
        (FailureKind::Connect, "no connection within 200 ms")
    );
}

#[tokio::test]
async fn a_host_that_no_request_can_name_is_a_failure() {
    let names = NameServer::start(&[]).await;
    let sender = strict_sender(names.address);
    for url in [
        "https://a{b}.example/",
        "https://a%00/",
        "https://a_b.example/|^",
    ] {
        if WebhookUrl::parse_stored(url).is_ok() {
            assert!(!send(&sender, url).await.is_delivered(), "{url}");
        }
    }
}
