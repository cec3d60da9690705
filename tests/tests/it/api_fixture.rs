//! What the tests of the REST API have in common: a stack of the API alone, and questions about what it has stored.

use broker::subscription::{ALL_KEY, SubscriptionChange};
use broker::{Broker, Consumer, Exchange};
use tests::stack::Builder;
use tests::{Response, Stack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

/// A URL that is allowed in tests and that no name server is asked for.
pub(super) const URL: &str = "http://127.0.0.1:9999/hook";

/// The API without anybody who delivers.
pub(super) fn api() -> Builder {
    Stack::builder().dispatchers(0).retries(0)
}

/// With the network rules of production.
pub(super) fn strict_api() -> Builder {
    api()
        .set("network.allow_http", "false")
        .set("network.allowed_networks", "")
}

/// The refusal of a body: status, code, and the messages of one field.
#[track_caller]
pub(super) fn faults(response: Response, field: &str) -> Vec<String> {
    let response = response.expect(422);
    assert_eq!(response.code(), Some("VALIDATION_ERROR"));
    let messages = &response.body["error"]["details"][field];
    let messages = messages.as_array();
    let messages = messages.unwrap_or_else(|| panic!("nothing about {field}: {}", response.text));
    let text = |message: &serde_json::Value| message.as_str().unwrap().to_owned();
    messages.iter().map(text).collect()
}

/// Neither a webhook nor a change of one was ever stored.
pub(super) async fn assert_nothing_stored(stack: &Stack) {
    let sql = stack.database.sql().await;
    for table in ["webhooks", "webhook_versions", "webhook_health", "outbox"] {
        assert_eq!(sql.count(table).await, 0, "{table}");
    }
}

/// What the API answers to these very bytes: all of it, until the connection is closed or the answer whole.
pub(super) async fn raw(stack: &Stack, request: &[u8]) -> String {
    let origin = stack.api_origin();
    let address = origin.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut incoming, mut outgoing) = stream.into_split();
    // The API may have answered, and stopped reading, before all is written.
    let write = async {
        let _written = outgoing.write_all(request).await;
        std::future::pending::<()>().await;
    };
    let read = async {
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        while !is_whole(&answer) {
            match incoming.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(length) => answer.extend_from_slice(&part[..length]),
            }
        }
        String::from_utf8(answer).unwrap()
    };
    tokio::select! {
        () = write => unreachable!("it waits for ever"),
        answer = read => answer,
    }
}

/// Whether a head and as much of a body as it announces are there.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let length = name.eq_ignore_ascii_case("content-length");
        length.then(|| value.trim().parse::<usize>().ok())?
    });
    body.len() >= length.unwrap_or(0)
}

/// Hears of subscription changes as a dispatcher does.
pub(super) struct Listener {
    broker: Broker,
    consumer: Consumer,
}

impl Listener {
    pub(super) async fn start(stack: &Stack) -> Self {
        let broker = broker(stack);
        let link = broker.link().await.unwrap();
        let consumer = link
            .consume_private(Exchange::Subscriptions, ALL_KEY, "tests")
            .await
            .unwrap();
        Self { broker, consumer }
    }

    pub(super) async fn next(&mut self) -> SubscriptionChange {
        let delivery = self.consumer.next().await.expect("the link holds");
        let change = SubscriptionChange::read(&delivery).unwrap();
        assert_eq!(delivery.routing_key, change.kind.as_str());
        delivery.receipt.ack();
        change
    }

    pub(super) async fn close(self) {
        self.broker.close().await;
    }
}

/// A connection as a service has one.
pub(super) fn broker(stack: &Stack) -> Broker {
    runtime::exit::install_crypto_provider();
    let config = stack.settings().management_api().rabbitmq;
    Broker::start(config, "tests", &TaskTracker::new()).unwrap()
}
