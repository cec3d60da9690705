//! A broker handle on a virtual host of a test's own.

use std::time::Duration;

use broker::announcement::{Announcement, Reason};
use broker::trace::Trace;
use broker::{Broker, Config, Consumer, Delivery, Link, Message, Publisher};
use domain::id::{DeliveryId, PartnerId, WebhookId};
use std::sync::Arc;
use tests::Vhost;
use tests::wait::DEADLINE;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub struct Fixture {
    pub vhost: Vhost,
    pub broker: Broker,
    pub publisher: Publisher,
    tracker: TaskTracker,
}

impl Fixture {
    /// With the whole topology.
    pub async fn start() -> Self {
        Self::with(|config| config).await
    }

    pub async fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let vhost = Vhost::create().await;
        let config = change(Config {
            url: vhost.url().to_owned(),
            ..Config::default()
        });
        let tracker = TaskTracker::new();
        let broker = Broker::start(config, "a test", &tracker).unwrap();
        Self {
            publisher: broker.publisher(),
            vhost,
            broker,
            tracker,
        }
    }

    pub async fn link(&self) -> Arc<Link> {
        let link = timeout(DEADLINE, self.broker.link()).await;
        link.expect("a link in time").expect("not closed")
    }

    pub async fn publish(&self, message: Message) {
        self.publisher.publish(message).await.unwrap();
    }

    /// Closes everything. Consumers and receipts have to be gone by then.
    pub async fn finish(self) {
        self.broker.close().await;
        drop(self.publisher);
        self.tracker.close();
        let ended = timeout(DEADLINE, self.tracker.wait()).await;
        ended.expect("every task of the broker ends");
    }
}

/// The next delivery, which has to come.
pub async fn next(consumer: &mut Consumer) -> Delivery {
    let delivery = timeout(DEADLINE, consumer.next()).await;
    delivery
        .expect("a delivery in time")
        .expect("a consumer that goes on")
}

/// Whether a consumer ends.
pub async fn ends(consumer: &mut Consumer) -> bool {
    let next = timeout(Duration::from_secs(10), consumer.next()).await;
    next.is_ok_and(|delivery| delivery.is_none())
}

pub fn announcement() -> Announcement {
    Announcement {
        delivery_id: DeliveryId(Uuid::now_v7()),
        webhook_id: WebhookId(1),
        partner_id: PartnerId(2),
        turn: 3,
        not_before_ms: 0,
        attempts: 0,
        parkings: 0,
        reason: Reason::Retry,
        hops: 0,
    }
}

/// A message for the queue of what is due.
pub fn due() -> Message {
    announcement().to_due(&Trace::default())
}
