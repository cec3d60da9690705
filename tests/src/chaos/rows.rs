//! What Postgres says in the end of every delivery that was counted.

use super::account::Row;
use super::clock::Clock;
use super::ledger::HOOKS_MAX;
use super::publisher::number_of;
use crate::database::Sql;

/// Deliveries by their place in the ledger, and what is wrong with them as such.
pub struct Rows {
    pub rows: Vec<Option<Row>>,
    pub problems: Vec<String>,
}

/// `webhooks` are those of each partner in the order of the ledger's shape; `events` is how many were published.
pub async fn read(sql: &Sql, webhooks: &[Vec<i64>], events: usize, clock: Clock) -> Rows {
    let mut found = Rows {
        rows: vec![None; events * HOOKS_MAX],
        problems: Vec::new(),
    };
    for hooks in webhooks {
        for (hook, webhook) in hooks.iter().enumerate() {
            read_webhook(sql, *webhook, hook, clock, &mut found).await;
        }
    }
    found
}

async fn read_webhook(sql: &Sql, webhook: i64, hook: usize, clock: Clock, found: &mut Rows) {
    const QUERY: &str = "SELECT event_id, status, attempts, \
         (extract(epoch FROM finished_at) * 1000)::bigint FROM deliveries WHERE webhook_id = $1";
    for row in sql.rows(QUERY, &[&webhook]).await {
        let (event_id, status): (&str, &str) = (row.get(0), row.get(1));
        let (attempts, finished): (i32, Option<i64>) = (row.get(2), row.get(3));
        let place = number_of(event_id).map(|number| number as usize * HOOKS_MAX + hook);
        let Some(slot) = place.and_then(|place| found.rows.get_mut(place)) else {
            found.problems.push(format!(
                "a delivery of an event that nobody published: {event_id}"
            ));
            continue;
        };
        let Some(finished) = finished else {
            found
                .problems
                .push(format!("{event_id} is still {status} at webhook {webhook}"));
            continue;
        };
        let row = Row {
            delivered: status == "delivered",
            attempts: u16::try_from(attempts).unwrap_or(u16::MAX),
            finished: clock.of_epoch_ms(finished),
        };
        if slot.replace(row).is_some() {
            found.problems.push(format!(
                "{event_id} has two deliveries for webhook {webhook}"
            ));
        }
    }
}
