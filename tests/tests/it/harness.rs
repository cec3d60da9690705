//! That the harness itself holds what it promises.

use tests::{Database, Stack, Vhost};

#[tokio::test]
async fn two_databases_of_one_template_know_nothing_of_each_other() {
    let (one, other) = tokio::join!(Database::create(), Database::create());
    let sql = one.sql().await;
    sql.execute("INSERT INTO partners (name, plan) VALUES ('A', 'Starter')")
        .await;
    assert_eq!(sql.count("partners").await, 1);
    assert_eq!(other.sql().await.count("partners").await, 0);
    assert_eq!(other.sql().await.count("event_types").await, 8);
}

#[tokio::test]
async fn a_virtual_host_begins_empty() {
    let vhost = Vhost::create().await;
    let queues = vhost.ask("queues/VHOST").await;
    assert_eq!(queues, serde_json::json!([]));
}

#[tokio::test]
async fn a_stack_starts_and_ends_in_order() {
    let stack = Stack::start().await;
    stack.finish().await;
}
