//! `POST /partners/webhooks/test` up to the broker: what is asked, and how what came of it is told. Dispatchers are
//! played by the tests here.

use broker::interactive::{Request, TestCall, TestResult};
use broker::topology::INTERACTIVE_QUEUE;
use broker::{Broker, Consumer, Delivery, Publisher};
use reqwest::Method;
use serde_json::{Value, json};
use tests::Stack;
use tests::service::{Kind, metric};

use super::api_fixture::{URL, api, broker, faults};

/// Takes test calls out of the queue.
struct FakeDispatcher {
    broker: Broker,
    consumer: Consumer,
    publisher: Publisher,
}

impl FakeDispatcher {
    async fn start(stack: &Stack) -> Self {
        let broker = broker(stack);
        let link = broker.link().await.unwrap();
        let consumer = link.consume(INTERACTIVE_QUEUE, 10, "tests").await.unwrap();
        let publisher = broker.publisher();
        Self {
            broker,
            consumer,
            publisher,
        }
    }

    async fn next(&mut self) -> (Delivery, TestCall) {
        let delivery = self.consumer.next().await.expect("the link holds");
        let Request::Test(call) = Request::read(&delivery).unwrap();
        (delivery, call)
    }

    async fn answer(&self, question: Delivery, result: &TestResult) {
        let message = result.message(&question).unwrap();
        self.publisher.publish(message).await.unwrap();
        question.receipt.ack();
    }

    /// The broker has taken the last acknowledgements when this returns.
    async fn close(self) {
        self.consumer.cancel().await;
        self.consumer.flush().await;
        self.broker.close().await;
    }
}

fn success(call: &TestCall) -> TestResult {
    TestResult {
        delivery_id: call.delivery_id,
        delivered: true,
        response_code: Some(204),
        duration_ms: 17,
        error: None,
    }
}

#[tokio::test]
async fn a_test_call_asks_a_dispatcher_and_tells_what_really_happened() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let webhook = partner.create_webhook(URL, &["listing.updated"]).await;
    partner
        .update_webhook(&webhook, &json!({"active": false}))
        .await;
    let before = partner.show_webhook(&webhook).await;
    let mut dispatcher = FakeDispatcher::start(&stack).await;

    let asked_at = chrono::Utc::now();
    let (answer, call) = tokio::join!(partner.test_webhook(&webhook), async {
        let (question, call) = dispatcher.next().await;
        dispatcher.answer(question, &success(&call)).await;
        call
    });
    assert_eq!(
        (call.webhook_id.0, call.partner_id.0),
        (webhook.id, partner.id)
    );
    assert!((call.timestamp - asked_at.timestamp()).abs() <= 5);
    let begin_within_ms = call.begin_before_ms - asked_at.timestamp_millis();
    assert!((4000..6000).contains(&begin_within_ms), "{begin_within_ms}");
    assert_eq!(
        answer.expect(200).text,
        format!(
            concat!(
                r#"{{"data":{{"type":"webhook_test","attributes":{{"delivered":true,"response_code":204,"#,
                r#""duration_ms":17,"error":null,"delivery_id":"{}"}}}}}}"#
            ),
            call.delivery_id
        )
    );

    let (answer, ()) = tokio::join!(partner.test_webhook(&webhook), async {
        let (question, call) = dispatcher.next().await;
        let failure = TestResult {
            delivered: false,
            response_code: Some(410),
            error: Some("The receiver answered with status 410.".to_owned()),
            ..success(&call)
        };
        dispatcher.answer(question, &failure).await;
    });
    let attributes = answer.expect(200).body["data"]["attributes"].clone();
    assert_eq!(attributes["delivered"], false);
    assert_eq!(attributes["response_code"], 410);
    assert_eq!(
        attributes["error"],
        "The receiver answered with status 410."
    );
    assert_eq!(partner.show_webhook(&webhook).await, before);
    dispatcher.close().await;
    stack.finish().await;
}

#[tokio::test]
async fn answers_that_come_in_another_order_find_their_questions() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let (one, other) = (
        partner.create_webhook(URL, &["listing.updated"]).await,
        partner.create_webhook(URL, &["listing.updated"]).await,
    );
    let mut dispatcher = FakeDispatcher::start(&stack).await;
    let (of_one, of_other, ()) = tokio::join!(
        partner.test_webhook(&one),
        partner.test_webhook(&other),
        async {
            let (first, second) = (dispatcher.next().await, dispatcher.next().await);
            for (question, call) in [second, first] {
                let code = if call.webhook_id.0 == one.id {
                    201
                } else {
                    202
                };
                let result = TestResult {
                    response_code: Some(code),
                    ..success(&call)
                };
                dispatcher.answer(question, &result).await;
            }
        }
    );
    let code = |answer: tests::Response| {
        answer.expect(200).body["data"]["attributes"]["response_code"].clone()
    };
    assert_eq!((code(of_one), code(of_other)), (json!(201), json!(202)));
    dispatcher.close().await;
    stack.finish().await;
}

#[tokio::test]
async fn without_an_answer_in_time_the_outcome_is_not_known() {
    let stack = api()
        .set("api.test_call_timeout_ms", "300")
        .set("api.test_call_begin_within_ms", "100")
        .start()
        .await;
    let partner = stack.partner().await;
    let webhook = partner.create_webhook(URL, &["listing.updated"]).await;
    let answer = partner.test_webhook(&webhook).await.expect(202);
    let attributes = answer.body["data"]["attributes"].as_object().unwrap();
    for name in ["delivered", "response_code", "duration_ms", "error"] {
        assert_eq!(attributes[name], Value::Null, "{name}");
    }
    assert!(
        attributes["delivery_id"]
            .as_str()
            .unwrap()
            .starts_with("dlv_")
    );

    // Whoever answers too late answers nobody, and the next one is not mistaken for it.
    let mut dispatcher = FakeDispatcher::start(&stack).await;
    let (late, late_call) = dispatcher.next().await;
    let (answer, ()) = tokio::join!(partner.test_webhook(&webhook), async {
        let (question, call) = dispatcher.next().await;
        dispatcher.answer(late, &success(&late_call)).await;
        let result = TestResult {
            response_code: Some(299),
            ..success(&call)
        };
        dispatcher.answer(question, &result).await;
    });
    assert_eq!(
        answer.expect(200).body["data"]["attributes"]["response_code"],
        299
    );
    dispatcher.close().await;
    let admin = stack.services(Kind::ManagementApi).next().unwrap().admin();
    for result in ["unanswered", "delivered"] {
        let labels = format!(r#"result="{result}""#);
        let count = metric(admin, "api_test_calls_total", &labels).await;
        assert!((count - 1.0).abs() < 0.5, "{result}: {count}");
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_body_without_a_proper_id_is_refused() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let path = "/partners/webhooks/test";
    for id in [
        json!(0),
        json!(-1),
        json!(1.5),
        json!(1.0),
        json!("1"),
        json!(null),
        json!([1]),
        json!(99_999_999_999_999_999_999_f64),
        json!(u64::MAX),
    ] {
        let refused = partner.api.post(path, &json!({"webhook_id": id})).await;
        assert_eq!(
            faults(refused, "webhook_id"),
            ["must be a positive whole number"],
            "{id}"
        );
    }
    faults(partner.api.post(path, &json!({})).await, "webhook_id");
    faults(
        partner
            .api
            .post(path, &json!({"webhook_id": 1, "x": 1}))
            .await,
        "x",
    );
    let nobodys = partner
        .api
        .post(path, &json!({"webhook_id": i64::MAX}))
        .await
        .expect(404);
    assert_eq!(nobodys.code(), Some("NOT_FOUND"));
    let untyped = partner.api.request(Method::POST, path).body("{}");
    partner.api.send(untyped).await.expect(415);
    stack.finish().await;
}

#[tokio::test]
async fn a_test_call_sent_again_with_its_key_calls_once() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let webhook = partner.create_webhook(URL, &["listing.updated"]).await;
    let mut dispatcher = FakeDispatcher::start(&stack).await;
    let post = async || {
        let request = partner.api.request(Method::POST, "/partners/webhooks/test");
        let request = request.header("idempotency-key", "once");
        partner
            .api
            .send(request.json(&json!({"webhook_id": webhook.id})))
            .await
            .expect(200)
    };
    let (first, second, _) = tokio::join!(post(), post(), async {
        let (question, call) = dispatcher.next().await;
        dispatcher.answer(question, &success(&call)).await;
    });
    assert_eq!(first.text, second.text);
    let replayed = [&first, &second].map(|answer| answer.header("idempotent-replayed").is_some());
    assert_ne!(replayed[0], replayed[1]);
    dispatcher.close().await;
    assert_eq!(stack.amqp().await.depth(INTERACTIVE_QUEUE).await.ready, 0);
    stack.finish().await;
}

#[tokio::test]
async fn an_orderly_end_waits_for_a_test_call_on_its_way() {
    let mut stack = api().start().await;
    let partner = stack.partner().await;
    let webhook = partner.create_webhook(URL, &["listing.updated"]).await;
    let mut dispatcher = FakeDispatcher::start(&stack).await;
    let service = stack.take(Kind::ManagementApi);
    let admin = service.admin();
    let (asked, was_asked) = tokio::sync::oneshot::channel();
    let (answer, (), ()) = tokio::join!(
        partner.test_webhook(&webhook),
        async {
            let (question, call) = dispatcher.next().await;
            asked.send(()).unwrap();
            // The answer comes when the end has begun.
            tests::service::until_unready("management-api", admin).await;
            dispatcher.answer(question, &success(&call)).await;
        },
        async {
            was_asked.await.unwrap();
            service.stop().await;
        }
    );
    answer.expect(200);
    dispatcher.close().await;
    stack.finish().await;
}
