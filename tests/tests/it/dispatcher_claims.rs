//! Who waits for whom when events are claimed.

use futures_util::future::join_all;
use tests::database::Sql;
use tests::wait::until_equal;
use tests::{Partner, Stack, eventually, stack};

const EVENT_TYPE: &str = "listing.updated";
/// Events of a shard under way from which on the next one belongs to the crowd, as in the dispatcher.
const CROWD: i64 = 64;
/// Once it has acknowledged so many, a consumer is given more than a crowd at a time.
const WARM_UP: i64 = 4 * CROWD;
/// So many that one of them is in another shard than the busy one, of eight.
const QUIET_PARTNERS: i64 = 10;

async fn publish(stack: &Stack, partner: &Partner, count: i64) {
    join_all((0..count).map(|_| stack.publish(partner, EVENT_TYPE, "{}"))).await;
}

async fn until_recorded(sql: &Sql, count: i64) {
    until_equal("all are recorded", count, async || {
        sql.count("events").await
    })
    .await;
}

/// Claims an event in a transaction that is left open: whoever wants to claim it, too, waits for its end.
async fn claim_without_commit(sql: &Sql, partner: &Partner, id: &str) {
    sql.execute(&format!(
        "BEGIN; INSERT INTO claims (partner_id, event_id, event_key, content_hash) \
         VALUES ({}, '{id}', gen_random_uuid(), '')",
        partner.id
    ))
    .await;
}

#[tokio::test]
async fn an_event_of_a_quiet_shard_is_claimed_while_a_crowds_statement_waits() {
    let stack = Stack::builder()
        .set("rabbitmq.shards", "8")
        .set("dispatcher.prefetch", "128")
        .start()
        .await;
    let busy = stack.partner().await;
    let sql = stack.database.sql().await;
    publish(&stack, &busy, WARM_UP).await;
    until_recorded(&sql, WARM_UP).await;
    let recording = stack.database.sql().await;
    recording
        .execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        .await;
    publish(&stack, &busy, CROWD).await;
    let claimed = WARM_UP + CROWD;
    until_equal(
        "those that make the crowd are claimed",
        claimed,
        async || sql.count("claims").await,
    )
    .await;

    let claiming = stack.database.sql().await;
    let held = stack::new_event_id();
    claim_without_commit(&claiming, &busy, &held).await;
    stack.publish_as(&held, &busy, EVENT_TYPE, "{}").await;
    until_equal("the crowd's statement waits", 1, async || {
        sql.count(
            "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
             AND query LIKE 'INSERT INTO claims%'",
        )
        .await
    })
    .await;
    for _ in 0..QUIET_PARTNERS {
        publish(&stack, &stack.partner().await, 1).await;
    }
    eventually("an event of a quiet shard is claimed", async || {
        (sql.count("claims").await > claimed).then_some(())
    })
    .await;

    for blocker in [&recording, &claiming] {
        blocker.execute("ROLLBACK").await;
    }
    until_recorded(&sql, claimed + 1 + QUIET_PARTNERS).await;
    stack.finish().await;
}
