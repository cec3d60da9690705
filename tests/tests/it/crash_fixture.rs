//! What the tests of crash points share: a partner with one webhook, and what must be true once all has arrived.

use domain::id::DeliveryId;
use tests::database::Sql;
use tests::service::{Kind, metric};
use tests::stack::Builder;
use tests::wait::until_equal;
use tests::{
    FailPoints, Message, Partner, Process, Receiver, Stack, Webhook, eventually, signature,
};

pub(super) const EVENT_TYPE: &str = "listing.updated";
const EVENTS_TOTAL: &str = "vellocity_dispatcher_events_total";
const ANNOUNCEMENTS_TOTAL: &str = "vellocity_dispatcher_announcements_taken_total";

pub(super) struct Scene {
    pub stack: Stack,
    pub partner: Partner,
    pub webhook: Webhook,
    pub receiver: Receiver,
    pub sql: Sql,
}

/// Without a dispatcher, which each test starts as a process that stops where it says.
pub(super) fn without_dispatcher() -> Builder {
    Stack::builder().dispatchers(0)
}

impl Scene {
    /// With a management API.
    pub(super) async fn start(builder: Builder) -> Self {
        let stack = builder.start().await;
        let (partner, receiver) = (stack.partner().await, Receiver::start().await);
        let webhook = partner
            .create_webhook(&receiver.url("/"), &[EVENT_TYPE])
            .await;
        let sql = stack.database.sql().await;
        Self {
            stack,
            partner,
            webhook,
            receiver,
            sql,
        }
    }

    pub(super) async fn dispatcher(&mut self, fail_points: &FailPoints) -> Process {
        self.stack.process_with(Kind::Dispatcher, fail_points).await
    }

    pub(super) async fn publish(&self) -> String {
        self.stack.publish(&self.partner, EVENT_TYPE, "{}").await
    }

    /// A copy that takes the event over from whoever holds it, as one does that the broker hands out again.
    pub(super) async fn publish_again(&self, id: &str) {
        let message = Message::event(id, EVENT_TYPE, self.partner.id, "{}");
        let again = message.header(broker::dead_letter::SENT_AGAIN, "1");
        self.stack.amqp().await.publish(&again).await;
    }

    /// Rows of claims, recorded claims, events and deliveries.
    pub(super) async fn rows(&self) -> [i64; 4] {
        let mut rows = [0; 4];
        for (count, what) in rows.iter_mut().zip([
            "claims",
            "claims WHERE recorded_at IS NOT NULL",
            "events",
            "deliveries",
        ]) {
            *count = self.sql.count(what).await;
        }
        rows
    }

    /// Status, turn and number of attempts of the only delivery.
    pub(super) async fn delivery(&self) -> (String, i32, i32) {
        let query = "SELECT status, turn, attempts FROM deliveries";
        let rows = self.sql.rows(query, &[]).await;
        assert_eq!(rows.len(), 1, "one delivery");
        (rows[0].get(0), rows[0].get(1), rows[0].get(2))
    }

    /// Waits for the delivery to succeed, and holds that it is one row, that the receiver got so many requests, and
    /// that all of them are the same to it.
    pub(super) async fn assert_delivered(&self, id: &str, requests: usize, attempts: i32) {
        self.stack.until_delivery_is(id, "delivered").await;
        self.assert_requests(id, requests);
        let (status, _, made) = self.delivery().await;
        assert_eq!((status.as_str(), made), ("delivered", attempts));
        assert_eq!(self.rows().await, [1, 1, 1, 1]);
    }

    pub(super) fn assert_requests(&self, id: &str, count: usize) {
        let requests = self.receiver.requests();
        let summary: Vec<_> = requests.iter().map(|request| request.summary()).collect();
        assert_eq!(requests.len(), count, "{summary:#?}");
        for request in &requests {
            assert_eq!(request.delivery(), id);
            assert_eq!(request.body, requests[0].body);
            signature::verify(request, &self.webhook.secret).unwrap();
        }
    }

    /// Another dispatcher, which runs to the end.
    pub(super) async fn another_dispatcher(&mut self) {
        self.stack.add(Kind::Dispatcher).await;
    }

    pub(super) fn admin(&self) -> std::net::SocketAddr {
        let dispatcher = self.stack.services(Kind::Dispatcher).next();
        dispatcher.expect("a dispatcher in this process").admin()
    }

    /// Waits until the broker's copy of the event was taken for what it is.
    pub(super) async fn until_the_copy_is_a_duplicate(&self) {
        until_events(self.admin(), "duplicate", 1.0).await;
    }

    /// A delivery that has failed once and is due, of whose announcement nobody was told. Returns the event's id.
    pub(super) async fn failed_and_due(&self) -> String {
        self.receiver.next([tests::Answer::status(500)]);
        let id = self.publish().await;
        eventually("the first failure is recorded", async || {
            let failed = "deliveries WHERE status = 'pending' AND attempts = 1";
            (self.sql.count(failed).await == 1).then_some(())
        })
        .await;
        self.sql
            .execute("UPDATE deliveries SET next_attempt_at = now()")
            .await;
        id
    }

    /// Announces the only delivery under a turn.
    pub(super) async fn announce(&self, turn: i32) {
        let query = "SELECT id::text FROM deliveries";
        let row: String = self.sql.value(query).await;
        let delivery_id = DeliveryId(row.parse().unwrap());
        let body = serde_json::json!({
            "delivery_id": delivery_id, "webhook_id": self.webhook.id, "partner_id": self.partner.id, "turn": turn,
            "not_before_ms": 0, "parkings": 0, "reason": "sweep", "hops": 0,
        });
        let mut message = Message::raw(broker::topology::DUE_KEY, body.to_string());
        message.exchange = broker::Exchange::Deliveries.name().to_owned();
        self.stack.amqp().await.publish(&message).await;
    }

    pub(super) async fn finish(self) {
        self.stack.finish().await;
    }
}

/// Waits until a dispatcher has counted so many events with this result.
pub(super) async fn until_events(admin: std::net::SocketAddr, result: &str, count: f64) {
    until_counted(admin, EVENTS_TOTAL, result, count).await;
}

/// Waits until a dispatcher has taken so many announcements with this result.
pub(super) async fn until_announcements(admin: std::net::SocketAddr, result: &str, count: f64) {
    until_counted(admin, ANNOUNCEMENTS_TOTAL, result, count).await;
}

async fn until_counted(admin: std::net::SocketAddr, name: &str, result: &str, count: f64) {
    let label = format!(r#"result="{result}""#);
    until_equal(&format!("{name} {result}"), count, async || {
        metric(admin, name, &label).await
    })
    .await;
}
