//! Where the line ends: messages out of the queues `rejected` and `dead` as rows, and how many of them are kept.

use std::time::Duration;

use broker::topology::{DEAD_QUEUE, DUE_QUEUE, REJECTED_QUEUE};
use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicNackOptions};
use lapin::types::FieldTable;
use retry::DeadLetterCaps;
use retry::cadence::{Rest, Step as _};
use retry::metrics::Metrics;
use retry::trim::Capping;
use tests::service::Kind;
use tests::stack::Leftovers;
use tests::wait::until_equal;
use tests::{Database, Message, Stack, eventually};

const DEAD: Leftovers = Leftovers {
    dead: true,
    rejected: false,
    work: false,
};
const REJECTED: Leftovers = Leftovers {
    dead: false,
    rejected: true,
    work: false,
};

#[tokio::test]
async fn an_event_that_can_not_be_used_becomes_a_row_with_all_that_a_person_wants_to_know() {
    let mut stack = Stack::builder().apis(0).start().await;
    let partner = stack.partner().await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let message = Message::event("evt_1", "listing.lost", partner.id, r#"{"a":1}"#)
        .header("traceparent", traceparent)
        .header("x-foreign", "1");
    stack.amqp().await.publish(&message).await;

    let sql = stack.database.sql().await;
    let query = "SELECT concat_ws('|', line, code, exchange, routing_key, event_id, event_type, partner_id, app_id,
                        content_type, traceparent) FROM dead_letters";
    let row = eventually("a row", async || sql.column::<String>(query).await.pop()).await;
    let expected = format!(
        "rejected|unknown_type|vellocity.events|listing.lost|evt_1|listing.lost|{}|tests|application/json|{traceparent}",
        partner.id
    );
    assert_eq!(row, expected);
    let reason: String = sql.value("SELECT reason FROM dead_letters").await;
    assert!(reason.contains("listing.lost"), "{reason}");
    assert_eq!(
        sql.column::<Vec<u8>>("SELECT body FROM dead_letters").await,
        [message.body]
    );
    until_equal("the queue is empty", 0, async || {
        stack.amqp().await.depth(REJECTED_QUEUE).await.ready
    })
    .await;
    stack.may_leave(REJECTED);
    stack.finish().await;
}

#[tokio::test]
async fn a_message_that_comes_back_a_hundred_times_is_put_aside_with_the_place_it_came_from() {
    let mut stack = Stack::builder().apis(0).dispatchers(0).start().await;
    let amqp = stack.amqp().await;
    let poison = Message {
        exchange: "vellocity.deliveries".to_owned(),
        ..Message::raw("due", "poison")
    };
    // What a publisher writes into headers of ours must not decide where a message is sent again.
    let poison = poison
        .header("x-vellocity-code", "forged")
        .header("x-vellocity-exchange", "vellocity.events");
    amqp.publish(&poison).await;
    let channel = amqp.connection().create_channel().await.unwrap();
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel
        .basic_consume(DUE_QUEUE.into(), "poisoned".into(), options, arguments)
        .await
        .unwrap();
    for _ in 0..=100 {
        let delivery = consumer.next().await.unwrap().unwrap();
        let requeue = BasicNackOptions {
            requeue: true,
            ..BasicNackOptions::default()
        };
        delivery.nack(requeue).await.unwrap();
    }
    let sql = stack.database.sql().await;
    let query =
        "SELECT concat_ws('|', line, code, exchange, routing_key, reason) FROM dead_letters";
    let row = eventually("a row", async || sql.column::<String>(query).await.pop()).await;
    assert_eq!(
        row,
        "dead|delivery_limit|vellocity.deliveries|due|RabbitMQ took the message out of \
         vellocity.deliveries.due.v1: it came back from consumers too often."
    );
    stack.may_leave(DEAD);
    stack.finish().await;
}

#[tokio::test]
async fn many_services_move_each_message_once_and_none_is_lost() {
    const MESSAGES: i64 = 300;
    let mut stack = Stack::builder()
        .apis(0)
        .dispatchers(0)
        .retries(2)
        .start()
        .await;
    let amqp = stack.amqp().await;
    for number in 0..MESSAGES {
        let message = Message {
            exchange: "vellocity.dead".to_owned(),
            ..Message::raw("", number.to_string())
        };
        amqp.publish(&message).await;
    }
    let sql = stack.database.sql().await;
    until_equal("all are rows", MESSAGES, async || {
        sql.count("dead_letters").await
    })
    .await;
    let bodies: i64 = sql
        .value("SELECT count(DISTINCT body) FROM dead_letters")
        .await;
    assert_eq!(bodies, MESSAGES);
    assert_eq!(amqp.depth(DEAD_QUEUE).await.ready, 0);
    stack.may_leave(DEAD);
    stack.finish().await;
}

#[tokio::test]
async fn what_a_service_had_when_it_was_killed_is_moved_by_the_next() {
    let mut stack = Stack::builder().apis(0).dispatchers(0).start().await;
    let sql = stack.database.sql().await;
    // It can write no row, and so acknowledges nothing.
    sql.execute("ALTER TABLE dead_letters RENAME TO hidden")
        .await;
    let message = Message {
        exchange: "vellocity.rejected".to_owned(),
        ..Message::raw("listing.updated", "{}")
    };
    stack.amqp().await.publish(&message).await;
    let admin = stack.services(Kind::Retry).next().unwrap().admin();
    eventually("it has tried", async || {
        let failures =
            tests::service::metric(admin, "retry_step_failures_total", r#"step="dead_letters""#)
                .await;
        (failures > 0.0).then_some(())
    })
    .await;
    stack.take(Kind::Retry).kill();
    sql.execute("ALTER TABLE hidden RENAME TO dead_letters")
        .await;
    stack.add(Kind::Retry).await;
    until_equal("one row", 1, async || {
        sql.count("dead_letters WHERE line = 'rejected'").await
    })
    .await;
    stack.may_leave(REJECTED);
    stack.finish().await;
}

#[tokio::test]
async fn rows_go_when_they_are_too_old_or_there_are_too_many_of_them() {
    let database = Database::create().await;
    let sql = database.sql().await;
    let capping = Capping {
        store: database.store(),
        metrics: Metrics::register(&runtime::metrics::registry("retry").unwrap()).unwrap(),
        caps: DeadLetterCaps {
            age: Duration::from_secs(30 * 86_400),
            bytes: 5 * (1024 + 100),
        },
        batch: 100,
    };
    sql.execute(
        "INSERT INTO dead_letters (line, code, reason, exchange, routing_key, body, at)
         SELECT line, 'c', 'r' || n, 'e', 'k', convert_to(repeat('x', 100), 'UTF8'),
                now() - CASE WHEN n = 10 THEN interval '31 days' ELSE '0' END
         FROM generate_series(1, 10) AS n, (VALUES ('rejected'), ('dead')) AS lines(line) ORDER BY n",
    )
    .await;
    assert_eq!(capping.step().await.unwrap(), Rest::Nothing);
    for line in ["rejected", "dead"] {
        let kept: Vec<String> = sql
            .column(&format!(
                "SELECT reason FROM dead_letters WHERE line = '{line}' ORDER BY id"
            ))
            .await;
        assert_eq!(kept, ["r6", "r7", "r8", "r9"], "{line}");
    }
}
