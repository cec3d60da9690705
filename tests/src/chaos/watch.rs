//! Looks at the system from outside: whether it is well, whether everything is done, and what was left behind.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::delay::Bucket;
use broker::topology::{DEAD_QUEUE, DUE_QUEUE, FAILED_QUEUE, REJECTED_QUEUE};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::account::LATE_MS;
use super::clock::Clock;
use super::ledger::Ledger;
use crate::Amqp;
use crate::database::Sql;
use crate::fleet::Fleet;

/// Recovery that takes longer is none.
const WELL_WITHIN: Duration = Duration::from_secs(120);
/// Everything that is open is delivered by then: the longest wait for a retry, the sweep's, and some.
const SETTLED_WITHIN: Duration = Duration::from_secs(300);
/// A retry waits for a second at least, and what fails is retried all the time.
const RETRIES_WAIT_WITHIN: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(100);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Watch {
    fleet: Arc<Fleet>,
}

impl Watch {
    pub(super) fn new(fleet: Arc<Fleet>) -> Self {
        Self { fleet }
    }

    /// Until every service is ready and no event has waited for long to arrive; `false` when that takes too long.
    pub(super) async fn until_recovered(&self, ledger: &Mutex<Ledger>, clock: Clock) -> bool {
        let started = Instant::now();
        while started.elapsed() < WELL_WITHIN {
            let waits = ledger.lock().unwrap().oldest_waits(clock.now());
            if waits < LATE_MS && self.all_ready().await {
                return true;
            }
            sleep(ASK_EVERY).await;
        }
        false
    }

    async fn all_ready(&self) -> bool {
        let all = self.fleet.parts().iter().map(|part| async {
            let ready = timeout(ANSWER_WITHIN, part.is_ready());
            ready.await.unwrap_or(false)
        });
        join_all(all).await.into_iter().all(|ready| ready)
    }

    /// Until so many events are recorded and no queue of events holds one, so that RabbitMQ has nothing but retries.
    ///
    /// # Errors
    /// When that takes too long.
    pub(super) async fn until_recorded(&self, events: usize) -> Result<(), String> {
        let events = i64::try_from(events).expect("few");
        let queues = broker::topology::event_queues(self.shards());
        self.until("every event is recorded", async |sql, amqp| {
            let recorded = format!("claims WHERE recorded_at IS NOT NULL AND {COUNTED}");
            sql.count(&recorded).await == events && are_empty(amqp, &queues).await
        })
        .await
    }

    /// Until retries wait in RabbitMQ's delay queues; tells how many. Those that Postgres has open may be anywhere.
    ///
    /// # Errors
    /// When none does.
    pub(super) async fn until_retries_wait(&self) -> Result<u32, String> {
        let queues: Vec<_> = Bucket::all().map(Bucket::queue).collect();
        let amqp = Amqp::connect(&self.fleet.amqp_url).await;
        let started = Instant::now();
        loop {
            let waiting = ready_in(&amqp, &queues).await;
            if waiting > 0 {
                amqp.close().await;
                return Ok(waiting);
            }
            if started.elapsed() > RETRIES_WAIT_WITHIN {
                return Err(
                    "no retry waits in RabbitMQ, so that there is nothing to lose".to_owned(),
                );
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// Until every delivery of an event that is counted is final.
    ///
    /// # Errors
    /// When that takes too long.
    pub(super) async fn until_final(&self) -> Result<(), String> {
        self.until("every delivery is final", async |sql, _| {
            sql.count(&open()).await == 0
        })
        .await
    }

    /// Until no queue holds anything: what lies in one for longer than its delay is nobody's business any more.
    ///
    /// # Errors
    /// When that takes too long.
    pub(super) async fn until_queues_are_empty(&self) -> Result<(), String> {
        let mut queues = broker::topology::event_queues(self.shards());
        queues.extend([DUE_QUEUE, FAILED_QUEUE, REJECTED_QUEUE, DEAD_QUEUE].map(str::to_owned));
        queues.extend(Bucket::all().map(Bucket::queue));
        self.until("every queue is empty", async |_, amqp| {
            are_empty(amqp, &queues).await
        })
        .await
    }

    async fn until(
        &self,
        what: &str,
        mut condition: impl AsyncFnMut(&Sql, &Amqp) -> bool,
    ) -> Result<(), String> {
        let sql = self.fleet.database.sql().await;
        let amqp = Amqp::connect(&self.fleet.amqp_url).await;
        let started = Instant::now();
        while !condition(&sql, &amqp).await {
            if started.elapsed() > SETTLED_WITHIN {
                let open = sql.count(&open()).await;
                return Err(format!(
                    "not within {SETTLED_WITHIN:?}: {what}; {open} deliveries are open"
                ));
            }
            sleep(ASK_EVERY).await;
        }
        amqp.close().await;
        Ok(())
    }

    fn shards(&self) -> u16 {
        self.fleet.settings().dispatcher().rabbitmq.shards
    }

    /// What nobody will take care of any more.
    pub(super) async fn leftovers(&self) -> Vec<String> {
        let sql = self.fleet.database.sql().await;
        let mut found = Vec::new();
        let unrecorded = format!("claims WHERE recorded_at IS NULL AND {COUNTED}");
        for (what, rows) in [
            ("rejected or dead messages", "dead_letters"),
            ("changes that were not published", "outbox"),
            ("claims of events that were never recorded", &unrecorded),
        ] {
            match sql.count(rows).await {
                0 => {}
                count => found.push(format!("{count} {what} are left")),
            }
        }
        found
    }

    /// URLs that two webhooks have: a creation that was sent again with its key made another one.
    pub(super) async fn made_twice(&self) -> Vec<String> {
        let sql = self.fleet.database.sql().await;
        let query = "SELECT url FROM webhooks GROUP BY url HAVING count(*) > 1";
        let urls: Vec<String> = sql.column(query).await;
        urls.into_iter()
            .map(|url| format!("two webhooks were made for {url}"))
            .collect()
    }
}

/// Events that are counted.
const COUNTED: &str = "event_id LIKE 'chaos-%'";

/// Deliveries of them that are not final.
fn open() -> String {
    format!("deliveries WHERE next_attempt_at IS NOT NULL AND {COUNTED}")
}

async fn are_empty(amqp: &Amqp, queues: &[String]) -> bool {
    ready_in(amqp, queues).await == 0
}

async fn ready_in(amqp: &Amqp, queues: &[String]) -> u32 {
    let mut ready = 0;
    for queue in queues {
        ready += amqp.depth(queue).await.ready;
    }
    ready
}
