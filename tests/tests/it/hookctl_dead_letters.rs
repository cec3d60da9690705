//! What was rejected or is dead: listed, sent again, dropped.

use serde_json::json;
use tests::stack::Leftovers;
use tests::wait::until_equal;
use tests::{Message, Receiver, Stack};

use super::hookctl_line::Hookctl;

#[tokio::test]
async fn a_rejected_event_is_delivered_when_it_is_sent_again_after_its_type_was_added() {
    let stack = Stack::start().await;
    let hookctl = Hookctl::of(&stack);
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    let message = Message::event("evt_1", "listing.moved", partner.id, r#"{"b":1.0}"#).header(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    stack.amqp().await.publish(&message).await;
    let sql = stack.database.sql().await;
    until_equal("it is rejected", 1, async || {
        sql.count("dead_letters").await
    })
    .await;

    let listed = hookctl.json(&["rejected", "list", "--bodies"]).await;
    let row = &listed[0];
    assert_eq!(row["code"], "unknown_type");
    assert_eq!(
        (&row["routing_key"], &row["type"]),
        (&json!("listing.moved"), &json!("listing.moved"))
    );
    assert_eq!(
        (&row["partner_id"], &row["app_id"]),
        (&json!(partner.id), &json!("tests"))
    );
    assert!(row["at"].is_string() && row["reason"].is_string());
    assert_eq!(row["body"].as_str().unwrap().as_bytes(), message.body);
    let id = row["id"].to_string();

    // As it was, it is rejected again: another row, which `--all` does not run after.
    assert_eq!(
        hookctl.json(&["rejected", "requeue", "--all"]).await["requeued"],
        1
    );
    until_equal("it is rejected again", 1, async || {
        sql.count(&format!("dead_letters WHERE id > {id}")).await
    })
    .await;
    assert_eq!(sql.count("dead_letters").await, 1);

    sql.execute(
        "INSERT INTO event_types (name, position, description, schema)
         VALUES ('listing.moved', 9, 'x', '{\"type\":\"object\"}')",
    )
    .await;
    partner
        .create_webhook(&receiver.url("/"), &["listing.moved"])
        .await;
    assert_eq!(
        hookctl.json(&["rejected", "requeue", "--all"]).await["requeued"],
        1
    );
    let request = receiver.wait_for_delivery("evt_1").await;
    assert!(request.body.ends_with(br#""data":{"b":1.0}}"#));
    stack.until_delivery_is("evt_1", "delivered").await;
    let trace: String = sql.value("SELECT traceparent FROM deliveries").await;
    assert!(
        trace.contains("0af7651916cd43dd8448eb211c80319c"),
        "{trace}"
    );
    assert_eq!(hookctl.json(&["rejected", "list"]).await, json!([]));
    stack.finish().await;
}

#[tokio::test]
async fn an_event_sent_again_takes_over_a_claim_that_nobody_recorded() {
    let stack = Stack::start().await;
    let hookctl = Hookctl::of(&stack);
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    partner
        .create_webhook(&receiver.url("/"), &["listing.updated"])
        .await;
    let event = Message::event("evt_1", "listing.updated", partner.id, "{}");
    // Somebody claimed it a moment ago, and was gone before it was recorded; the message ended as a dead one.
    let sql = stack.database.sql().await;
    let raw = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
    let hash =
        domain::content_hash::content_hash(&"listing.updated".parse().unwrap(), &raw).unwrap();
    sql.run(
        "INSERT INTO claims (partner_id, event_id, event_key, content_hash) VALUES ($1, 'evt_1', uuid_v7(), $2)",
        &[&partner.id, &&hash[..]],
    )
    .await;
    sql.run(
        "INSERT INTO dead_letters (line, code, reason, exchange, routing_key, event_id, partner_id, body)
         VALUES ('dead', 'delivery_limit', 'r', 'vellocity.events', 'listing.updated', 'evt_1', $1, $2)",
        &[&partner.id.to_string(), &event.body],
    )
    .await;
    assert_eq!(
        hookctl.json(&["dead", "requeue", "--all"]).await["requeued"],
        1
    );
    receiver.wait_for_delivery("evt_1").await;
    stack.until_delivery_is("evt_1", "delivered").await;
    stack.finish().await;
}

#[tokio::test]
async fn rows_are_dropped_by_id_or_all_at_once_and_each_line_by_itself() {
    let mut stack = Stack::builder().without_services().start().await;
    let hookctl = Hookctl::of(&stack);
    stack
        .database
        .sql()
        .await
        .execute(
            "INSERT INTO dead_letters (line, code, reason, exchange, routing_key, body)
             SELECT line, 'c', 'r', 'nowhere', 'k', '' FROM generate_series(1, 3), (VALUES ('rejected'), ('dead')) AS l(line)
             ORDER BY line DESC",
        )
        .await;
    assert_eq!(
        hookctl
            .json(&["rejected", "list"])
            .await
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        hookctl
            .json(&["rejected", "list", "--limit", "1", "--before", "3"])
            .await[0]["id"],
        2
    );
    assert_eq!(
        hookctl.json(&["rejected", "drop", "1"]).await,
        json!({"dropped": 1})
    );
    // Ids of the other line are not touched.
    let ended = hookctl.run(&["rejected", "drop", "4", "--json"]).await;
    assert_eq!((ended.code, ended.document()), (3, json!({"dropped": 0})));
    assert_eq!(
        hookctl.json(&["rejected", "drop", "--all"]).await,
        json!({"dropped": 2})
    );
    assert_eq!(
        hookctl
            .json(&["dead", "list"])
            .await
            .as_array()
            .unwrap()
            .len(),
        3
    );

    // What came from nowhere of ours stays, and the exit code says so.
    let ended = hookctl.run(&["dead", "requeue", "4", "99", "--json"]).await;
    assert_eq!(ended.code, 3, "{ended:?}");
    let failed = ended.document()["failed"].as_array().unwrap().len();
    assert_eq!((failed, &ended.document()["requeued"]), (2, &json!(0)));
    assert_eq!(
        hookctl
            .json(&["dead", "list"])
            .await
            .as_array()
            .unwrap()
            .len(),
        3
    );
    stack.may_leave(Leftovers {
        dead: true,
        ..Leftovers::default()
    });
    stack.finish().await;
}

#[tokio::test]
async fn a_message_that_the_broker_does_not_take_stays_a_row() {
    let mut stack = Stack::builder().without_services().start().await;
    let hookctl = Hookctl::of(&stack);
    stack
        .database
        .sql()
        .await
        .execute(
            "INSERT INTO dead_letters (line, code, reason, exchange, routing_key, body)
             VALUES ('dead', 'c', 'r', 'vellocity.deliveries', 'due', '{}')",
        )
        .await;
    // Nothing is declared in this virtual host.
    let ended = hookctl.run(&["dead", "requeue", "--all", "--json"]).await;
    assert_eq!(ended.code, 69, "{ended:?}");
    assert_eq!(
        hookctl
            .json(&["dead", "list"])
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
    stack.may_leave(Leftovers {
        dead: true,
        ..Leftovers::default()
    });
    stack.finish().await;
}
