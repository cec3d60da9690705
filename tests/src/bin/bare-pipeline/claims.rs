//! A simple claim: one row an event, inserted before the event is sent, without a wait for the disk. Shows what the
//! promise that an event is in one place only costs a pipeline that promises nothing else.

use lapin::message::Delivery;
use tokio::sync::mpsc;
use tokio_postgres::Statement;

use crate::Event;
use crate::session::Session;

/// Connections, so that an event does not wait for the claim of the one before it.
pub const LANES: usize = 4;
const BATCH_MAX: usize = 500;

const TABLE: &str = "
    SET synchronous_commit = off;
    CREATE TABLE IF NOT EXISTS bare_claims (
        partner_id bigint NOT NULL, event_id text NOT NULL, claimed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (partner_id, event_id));";

pub struct Claims {
    session: Session,
    insert: Statement,
}

impl Claims {
    pub async fn connect(url: &str) -> Self {
        let session = Session::open(url, TABLE).await;
        let insert = "INSERT INTO bare_claims (partner_id, event_id)
            SELECT * FROM unnest($1::bigint[], $2::text[]) ON CONFLICT DO NOTHING";
        Self {
            insert: session.client.prepare(insert).await.unwrap(),
            session,
        }
    }

    /// Claims what waits, as much at once as there is, and hands it on.
    pub async fn run(self, mut queue: mpsc::UnboundedReceiver<Delivery>, next: impl Fn(Delivery)) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
            self.claim(&batch).await;
            batch.drain(..).for_each(&next);
        }
    }

    async fn claim(&self, batch: &[Delivery]) {
        let events = batch
            .iter()
            .map(|delivery| serde_json::from_slice::<Event<'_>>(&delivery.data).unwrap());
        let (partners, ids): (Vec<i64>, Vec<&str>) =
            events.map(|event| (event.partner_id, event.id)).unzip();
        self.session
            .client
            .execute(&self.insert, &[&partners, &ids])
            .await
            .unwrap();
    }
}
