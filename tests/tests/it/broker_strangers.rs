//! Messages that a strict client can't read: one of them must not stop the queue that it is in.

use broker::{Exchange, Message, topology};
use reqwest::Url;
use tests::wait::DEADLINE;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::broker_fixture::{Fixture, next};

/// Speaks as much AMQP as it takes to publish what lapin would not.
struct Stranger(TcpStream);

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [length.as_slice(), bytes].concat()
}

impl Stranger {
    async fn connect(url: &str) -> Self {
        let url: Url = url.parse().unwrap();
        let address = (url.host_str().unwrap(), url.port().unwrap());
        let mut stranger = Self(TcpStream::connect(address).await.unwrap());
        stranger.0.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        stranger.read().await;
        let login = format!("\0{}\0{}", url.username(), url.password().unwrap());
        let start_ok = [
            long(b""),
            short(b"PLAIN"),
            long(login.as_bytes()),
            short(b"en_US"),
        ];
        stranger.method(0, [10, 11], &start_ok.concat()).await;
        stranger.read().await;
        // At most 2,047 channels, frames of 128 KiB, no heartbeat.
        stranger
            .method(0, [10, 31], &[7, 255, 0, 2, 0, 0, 0, 0])
            .await;
        let vhost = url.path().trim_start_matches('/').as_bytes();
        let open = [short(vhost), short(b""), vec![0]];
        stranger.method(0, [10, 40], &open.concat()).await;
        stranger.read().await;
        stranger.method(1, [20, 10], &short(b"")).await;
        stranger.read().await;
        // Confirms.
        stranger.method(1, [85, 10], &[0]).await;
        stranger.read().await;
        stranger
    }

    /// Publishes with these flags and properties, and waits for the confirm.
    async fn publish(&mut self, exchange: &str, key: &[u8], flags: u16, properties: &[u8]) {
        let publish = [vec![0, 0], short(exchange.as_bytes()), short(key), vec![0]];
        self.method(1, [60, 40], &publish.concat()).await;
        let body = b"{}";
        let size = u64::try_from(body.len()).unwrap().to_be_bytes();
        let header = [
            &[0, 60, 0, 0],
            size.as_slice(),
            &flags.to_be_bytes(),
            properties,
        ]
        .concat();
        self.frame(2, 1, &header).await;
        self.frame(3, 1, body).await;
        let confirm = self.read().await;
        assert_eq!(
            confirm.get(..4),
            Some([0, 60, 0, 80].as_slice()),
            "{confirm:?}"
        );
    }

    async fn method(&mut self, channel: u8, [class, method]: [u8; 2], arguments: &[u8]) {
        let payload = [&[0, class, 0, method], arguments].concat();
        self.frame(1, channel, &payload).await;
    }

    async fn frame(&mut self, kind: u8, channel: u8, payload: &[u8]) {
        let frame = [vec![kind, 0, channel], long(payload), vec![0xce]].concat();
        self.0.write_all(&frame).await.unwrap();
    }

    async fn read(&mut self) -> Vec<u8> {
        let read = async {
            let mut head = [0; 7];
            self.0.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
            let mut payload = vec![0; usize::try_from(length).unwrap() + 1];
            self.0.read_exact(&mut payload).await.unwrap();
            payload
        };
        timeout(DEADLINE, read).await.expect("RabbitMQ answers")
    }
}

const CONTENT_TYPE: u16 = 1 << 15;
const HEADERS: u16 = 1 << 13;

#[tokio::test]
async fn what_a_strict_client_can_not_read_arrives_and_stops_nothing() {
    let fixture = Fixture::start().await;
    let link = fixture.link().await;
    let mut consumer = link
        .consume(topology::DEAD_QUEUE, 10, "dead")
        .await
        .unwrap();
    let mut stranger = Stranger::connect(fixture.vhost.url()).await;

    let deep = (0..18_000).fold(b"V".to_vec(), |value, _| {
        [b"A".to_vec(), long(&value)].concat()
    });
    let deep = [short(b"deep"), deep].concat();
    let unreadable = [short(b"\xff"), b"S".to_vec(), long(b"x")].concat();
    let dead = "vellocity.dead";
    stranger.publish(dead, b"\xff\xfe", 0, b"").await;
    stranger
        .publish(dead, b"key", CONTENT_TYPE, &short(b"\xff"))
        .await;
    stranger
        .publish(dead, b"key", HEADERS, &long(&unreadable))
        .await;
    stranger.publish(dead, b"key", HEADERS, &long(&deep)).await;
    let sound = Message::new(Exchange::Dead, "key", "sound").mandatory();
    fixture.publish(sound).await;

    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.routing_key, "??");
    delivery.receipt.ack();
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.properties.content_type(), Some("?"));
    delivery.receipt.ack();
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.headers().names().collect::<Vec<_>>(), ["?"]);
    delivery.receipt.ack();
    let delivery = next(&mut consumer).await;
    assert!(delivery.headers().contains("deep"));
    delivery.receipt.ack();
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.body, "sound");
    delivery.receipt.ack();
    assert!(!link.is_lost());
    drop(consumer);
    fixture.finish().await;
}
