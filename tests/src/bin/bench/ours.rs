//! The product: dispatchers, a retry service and a management-api as processes, on a database and a virtual host of
//! their own, with the defaults of every option but the network's.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use tests::load::{LoadReceiver, Target};
use tests::service::{self, Kind};
use tests::{Database, Process, Settings, Vhost, amqp};
use tokio::time::sleep;

use crate::run::{self, Load, Outcome};
use crate::scenarios::{Context, RECORDED_WITHIN};
use crate::settle::settle;
use crate::subscribers::{self, EVENT_TYPE, Subscriber};
use crate::usage::Memory;

pub struct Ours {
    pub dispatchers: Vec<Process>,
    retry: Process,
    api: Process,
    settings: Settings,
    pub vhost: Vhost,
    pub database: Database,
}

/// Deliveries by status.
pub type Rows = BTreeMap<String, usize>;

impl Ours {
    /// With these webhooks, and so many dispatchers; ready.
    pub async fn start(context: &Context, subscribers: &[Subscriber], dispatchers: usize) -> Self {
        let (database, vhost) = (Database::create().await, Vhost::create().await);
        let settings = Settings::defaults(&database.url(), vhost.url()).with_environment();
        let sql = database.sql().await;
        subscribers::create(&sql, &settings.keyring(), subscribers).await;
        let mut ours = Self {
            api: Process::service(Kind::ManagementApi, &settings).await,
            retry: Process::service(Kind::Retry, &settings).await,
            dispatchers: Vec::new(),
            settings,
            vhost,
            database,
        };
        for _ in 0..dispatchers {
            ours.add_dispatcher().await;
        }
        ours.api.until_ready().await;
        ours.retry.until_ready().await;
        settle(&sql, &context.folder).await;
        // What was just made has no statistics yet, as it would have where partners came one by one.
        sql.execute("ANALYZE partners, webhooks, webhook_health")
            .await;
        ours
    }

    /// One more, ready.
    pub async fn add_dispatcher(&mut self) {
        let dispatcher = Process::service(Kind::Dispatcher, &self.settings).await;
        dispatcher.until_ready().await;
        self.dispatchers.push(dispatcher);
    }

    /// Ends the one that has run longest, in order.
    pub async fn end_dispatcher(&mut self) {
        let mut oldest = self.dispatchers.remove(0);
        let status = oldest.terminate().await;
        assert!(status.success(), "{status}: {}", oldest.output());
    }

    pub fn target(&self, padding_bytes: usize) -> Target {
        Target {
            amqp_url: self.vhost.url().to_owned(),
            exchange: amqp::EVENTS.to_owned(),
            routing_key: EVENT_TYPE.to_owned(),
            event_type: EVENT_TYPE.to_owned(),
            padding_bytes,
        }
    }

    /// Publishes a load, waits until all of it has arrived and is recorded, and says what came of it. `earlier` deliveries
    /// were recorded before.
    pub async fn measure(
        &self,
        context: &Context,
        load: Load,
        receiver: &LoadReceiver,
        webhooks: impl Fn(i64) -> Range<u32>,
        earlier: usize,
    ) -> Outcome {
        let pids = self.pids();
        let published = run::publish(load, &webhooks, receiver, &pids, &context.folder).await;
        let expected = published.expected() + earlier;
        let rows = self.until_delivered(expected, RECORDED_WITHIN).await;
        let mut outcome = published.outcome(&receiver.take(), &webhooks);
        outcome.hold_rows_against(rows, delivered(expected));
        outcome.memory_mib = self.memory_mib();
        outcome
    }

    pub async fn rows(&self) -> Rows {
        let sql = self.database.sql().await;
        let query = "SELECT status, count(*) FROM deliveries GROUP BY status";
        let rows = sql.rows(query, &[]).await;
        let of_status = |row: &tokio_postgres::Row| {
            let count: i64 = row.get(1);
            (row.get(0), usize::try_from(count).unwrap_or(0))
        };
        rows.iter().map(of_status).collect()
    }

    /// Waits until so many deliveries are recorded as delivered; the rows at last.
    pub async fn until_delivered(&self, expected: usize, within: Duration) -> Rows {
        let is_enough = |rows: &Rows| *rows.get("delivered").unwrap_or(&0) >= expected;
        self.until_rows(is_enough, within).await
    }

    /// Waits until there are so many deliveries; the rows at last.
    pub async fn until_recorded(&self, expected: usize, within: Duration) -> Rows {
        let is_enough = |rows: &Rows| rows.values().sum::<usize>() >= expected;
        self.until_rows(is_enough, within).await
    }

    async fn until_rows(&self, enough: impl Fn(&Rows) -> bool, within: Duration) -> Rows {
        let began = Instant::now();
        loop {
            let rows = self.rows().await;
            if enough(&rows) || began.elapsed() > within {
                return rows;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn pids(&self) -> Vec<u32> {
        self.services().map(|(_, pid)| pid).collect()
    }

    fn services(&self) -> impl Iterator<Item = (String, u32)> {
        let dispatchers = (1..).zip(&self.dispatchers);
        let dispatchers = dispatchers.map(|(n, d)| (format!("dispatcher {n}"), d.pid()));
        dispatchers.chain([
            ("retry".to_owned(), self.retry.pid()),
            ("management-api".to_owned(), self.api.pid()),
        ])
    }

    /// Of each service.
    pub fn memory_mib(&self) -> BTreeMap<String, Memory> {
        let services = self.services();
        services
            .map(|(name, pid)| (name, Memory::of(pid)))
            .collect()
    }

    /// A metric of all dispatchers together.
    pub async fn metric(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for dispatcher in &self.dispatchers {
            sum += service::metric(dispatcher.admin(), name, "").await;
        }
        sum
    }
}

/// So many rows, all of them delivered.
pub fn delivered(count: usize) -> Rows {
    Rows::from([("delivered".to_owned(), count)])
}
