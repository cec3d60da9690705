//! Traces: from the publisher's `traceparent` through the dispatcher to the delivery and its retries.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tests::receiver::Request;
use tests::service::Kind;
use tests::{Answer, Message, Receiver, Stack};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const PUBLISHERS_SPAN: &str = "b7ad6b7169203331";

#[tokio::test]
async fn one_trace_goes_from_the_publisher_through_the_delivery_to_its_retry() {
    let collector = Receiver::start().await;
    let mut stack = Stack::builder()
        .set("telemetry.otlp_endpoint", &collector.url(""))
        .set("retry_policy.schedule_s", "1,1")
        .dispatchers(0)
        .start()
        .await;
    let mut dispatcher = stack.process(Kind::Dispatcher).await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    receiver.next([Answer::status(500)]);
    partner
        .create_webhook(&receiver.url("/"), &["listing.updated"])
        .await;

    let traceparent = format!("00-{TRACE_ID}-{PUBLISHERS_SPAN}-01");
    let message = Message::event("evt_traced", "listing.updated", partner.id, "{}")
        .header("traceparent", &traceparent);
    stack.amqp().await.publish(&message).await;
    stack.until_delivery_is("evt_traced", "delivered").await;
    assert!(
        dispatcher.terminate().await.success(),
        "what is traced is exported at the end"
    );

    let spans: Vec<Span> = collector
        .requests_at("/v1/traces")
        .iter()
        .flat_map(spans)
        .collect();
    let ours: Vec<&Span> = spans
        .iter()
        .filter(|s| hex::encode(&s.trace_id) == TRACE_ID)
        .collect();
    let event = ours
        .iter()
        .find(|s| s.name == "process event")
        .expect("the event's span");
    assert_eq!(hex::encode(&event.parent_span_id), PUBLISHERS_SPAN);
    let mut statuses: Vec<_> = ours
        .iter()
        .filter(|s| s.name == "POST")
        .map(|s| status(s))
        .collect();
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [Some(200), Some(500)],
        "the first attempt and its retry: {ours:?}"
    );
    let retry = ours
        .iter()
        .find(|s| s.name == "retry")
        .expect("the retry's span");
    assert_eq!(retry.parent_span_id, event.span_id);
    stack.finish().await;
}

fn spans(request: &Request) -> Vec<Span> {
    let export = ExportTraceServiceRequest::decode(request.body.as_ref()).expect("an OTLP request");
    let scopes = export
        .resource_spans
        .into_iter()
        .flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

fn status(span: &Span) -> Option<i64> {
    let attribute = span
        .attributes
        .iter()
        .find(|a| a.key == "http.response.status_code")?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(status) => Some(*status),
        _ => None,
    }
}
