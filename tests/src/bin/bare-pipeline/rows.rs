//! Writes rows in batches, a transaction each, and acknowledges what is committed.

use std::time::Duration;

use bytes::Bytes;
use lapin::Channel;
use lapin::options::BasicAckOptions;
use tokio::sync::mpsc;
use tokio_postgres::Statement;
use uuid::Uuid;

use crate::acks::Done;
use crate::session::Session;

const BATCH_MAX: usize = 500;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS bare_events (
        key uuid PRIMARY KEY, event_id text NOT NULL, event_type text NOT NULL, partner_id bigint NOT NULL,
        body bytea NOT NULL, recorded_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE IF NOT EXISTS bare_deliveries (
        id uuid PRIMARY KEY, event_key uuid NOT NULL, webhook integer NOT NULL, status integer NOT NULL,
        total_us bigint NOT NULL, created_at timestamptz NOT NULL DEFAULT now());";

/// An event that was sent to all.
pub struct Row {
    pub tag: u64,
    pub event_id: String,
    pub event_type: String,
    pub partner_id: i64,
    pub body: Bytes,
    pub statuses: Vec<u16>,
    pub total: Duration,
}

pub struct Writer {
    session: Session,
    events: Statement,
    deliveries: Statement,
    channel: Channel,
}

impl Writer {
    pub async fn connect(url: &str, channel: Channel) -> Self {
        let session = Session::open(url, TABLES).await;
        let events = session
            .client
            .prepare(
                "INSERT INTO bare_events (key, event_id, event_type, partner_id, body)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bytea[])",
            )
            .await
            .unwrap();
        let deliveries = session
            .client
            .prepare(
                "INSERT INTO bare_deliveries (id, event_key, webhook, status, total_us)
                 SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::integer[], $5::bigint[])",
            )
            .await
            .unwrap();
        Self {
            session,
            events,
            deliveries,
            channel,
        }
    }

    pub async fn run(self, mut queue: mpsc::UnboundedReceiver<Row>) {
        let mut done = Done::default();
        let mut rows = Vec::with_capacity(BATCH_MAX);
        while queue.recv_many(&mut rows, BATCH_MAX).await > 0 {
            self.write(&rows).await;
            rows.drain(..).for_each(|row| done.add(row.tag));
            if let Some(tag) = done.take() {
                let multiple = BasicAckOptions { multiple: true };
                self.channel.basic_ack(tag, multiple).await.unwrap();
            }
        }
    }

    async fn write(&self, rows: &[Row]) {
        let keys: Vec<Uuid> = rows.iter().map(|_| Uuid::now_v7()).collect();
        let mut deliveries = Deliveries::default();
        for (row, &key) in rows.iter().zip(&keys) {
            deliveries.extend(row, key);
        }
        let ids: Vec<&str> = rows.iter().map(|row| row.event_id.as_str()).collect();
        let types: Vec<&str> = rows.iter().map(|row| row.event_type.as_str()).collect();
        let partners: Vec<i64> = rows.iter().map(|row| row.partner_id).collect();
        let bodies: Vec<&[u8]> = rows.iter().map(|row| row.body.as_ref()).collect();
        self.session.client.batch_execute("BEGIN").await.unwrap();
        self.session
            .client
            .execute(&self.events, &[&keys, &ids, &types, &partners, &bodies])
            .await
            .unwrap();
        let Deliveries {
            ids,
            keys,
            webhooks,
            statuses,
            totals_us,
        } = deliveries;
        self.session
            .client
            .execute(
                &self.deliveries,
                &[&ids, &keys, &webhooks, &statuses, &totals_us],
            )
            .await
            .unwrap();
        self.session.client.batch_execute("COMMIT").await.unwrap();
    }
}

/// The columns of the deliveries.
#[derive(Default)]
struct Deliveries {
    ids: Vec<Uuid>,
    keys: Vec<Uuid>,
    webhooks: Vec<i32>,
    statuses: Vec<i32>,
    totals_us: Vec<i64>,
}

impl Deliveries {
    fn extend(&mut self, row: &Row, key: Uuid) {
        for (webhook, &status) in (0..).zip(&row.statuses) {
            self.ids.push(Uuid::now_v7());
            self.keys.push(key);
            self.webhooks.push(webhook);
            self.statuses.push(status.into());
            self.totals_us
                .push(i64::try_from(row.total.as_micros()).unwrap_or(i64::MAX));
        }
    }
}
