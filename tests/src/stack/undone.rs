//! What must not be left when a test has ended: messages that nobody took, events that ended as dead letters, attempts
//! that were begun and never recorded.

use broker::topology::{DEAD_QUEUE, REJECTED_QUEUE, event_queues};

use super::Stack;

/// What a test says it leaves. Nothing, by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leftovers {
    /// Messages or rows of dead letters.
    pub dead: bool,
    /// Messages or rows of rejected events.
    pub rejected: bool,
    /// Events in the queues, and attempts in flight: for tests without a dispatcher, or with one that was killed.
    pub work: bool,
}

/// All services have ended. Queues that no service declared are empty.
pub(super) async fn check(stack: &Stack) {
    let mut undone = Vec::new();
    let (allowed, sql) = (stack.leftovers, stack.database.sql().await);
    let declared: Vec<String> = {
        let queues = stack.vhost.ask("queues/VHOST?columns=name").await;
        let names = queues.as_array().into_iter().flatten();
        names
            .filter_map(|queue| queue["name"].as_str().map(ToOwned::to_owned))
            .collect()
    };
    for (line, queue, may) in [
        ("dead", DEAD_QUEUE, allowed.dead),
        ("rejected", REJECTED_QUEUE, allowed.rejected),
    ] {
        if may {
            continue;
        }
        look_into(stack, &declared, queue, &mut undone).await;
        let rows = sql
            .rows(
                "SELECT code || ': ' || reason FROM dead_letters WHERE line = $1",
                &[&line],
            )
            .await;
        for row in rows {
            undone.push(format!("{line}: {}", row.get::<_, String>(0)));
        }
    }
    if !allowed.work {
        let shards = stack.settings().dispatcher().rabbitmq.shards;
        for queue in event_queues(shards) {
            if declared.contains(&queue) {
                unrecorded(stack, &queue, &mut undone).await;
            }
        }
        let in_flight = sql.count("deliveries WHERE status = 'in_flight'").await;
        if in_flight > 0 {
            undone.push(format!("{in_flight} attempts in flight"));
        }
    }
    assert!(undone.is_empty(), "left undone: {undone:#?}");
}

async fn look_into(stack: &Stack, declared: &[String], queue: &str, undone: &mut Vec<String>) {
    if !declared.iter().any(|name| name == queue) {
        return;
    }
    let ready = stack.amqp().await.depth(queue).await.ready;
    if ready > 0 {
        undone.push(format!("{ready} messages in {queue}"));
    }
}

/// A busy quorum queue may forget the newest acknowledgements when their connection goes. The copy that it hands out
/// again is a duplicate of what is recorded, and does no harm; anything else was not done.
async fn unrecorded(stack: &Stack, queue: &str, undone: &mut Vec<String>) {
    let (amqp, sql) = (stack.amqp().await, stack.database.sql().await);
    while amqp.depth(queue).await.ready > 0 {
        let Some(body) = amqp.take(queue).await else {
            return;
        };
        let event: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let id = event["id"].as_str().unwrap_or_default().to_owned();
        let recorded =
            "SELECT count(*) FROM claims WHERE event_id = $1 AND recorded_at IS NOT NULL";
        let recorded: i64 = sql.value_of(recorded, &[&id]).await;
        if recorded == 0 {
            undone.push(format!("an event in {queue}: {event}"));
        }
    }
}
