//! One request from beginning to end: its id and span, who sends it and whether it is within the limit, what it leads
//! to, a limit on its time, and an answer in the one form. Called by `routes` for everything that comes in.

pub mod body;
pub mod client_address;
pub mod fields;
pub mod id;

use std::cell::OnceCell;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use broker::trace::Trace;
use futures_util::FutureExt as _;
use store::rate_limit::Hit;
use tracing::Instrument as _;

use crate::admission::{self, Caller};
use crate::answer::Answer;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::routes::{Operation, Target};
use crate::{event_type, webhook};

/// A request of a partner that may do what it asks for.
pub struct Call {
    pub gateway: Data<Gateway>,
    pub request: HttpRequest,
    pub caller: Caller,
}

impl Call {
    /// A part of the path, as `routes` names it; empty where there is none.
    #[must_use]
    pub fn path(&self, name: &str) -> &str {
        self.request.match_info().get(name).unwrap_or_default()
    }
}

pub async fn serve(
    target: Target,
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
) -> HttpResponse {
    let started = Instant::now();
    let id = id::request_id(request.headers());
    let method = request.method().clone();
    let route = target.route();
    let span = tracing::info_span!("request", request_id = %id, %method, route, partner_id = tracing::field::Empty);
    trace(request.headers()).adopt(&span);
    let counted = OnceCell::new();
    let answered = answer(target, request, payload, &gateway, &counted);
    let answered = within_limits(gateway.config.request_timeout(), answered)
        .instrument(span.clone())
        .await;
    let _entered = span.enter();
    let mut answer = answered.unwrap_or_else(ApiError::into_answer);
    if let Some(hit) = counted.get() {
        answer = admission::with_limit(answer, hit);
    }
    let status = answer.status();
    let took = started.elapsed();
    gateway.metrics.request(route, &method, status, took);
    tracing::info!(
        status = status.as_u16(),
        duration_us = took.as_micros() as u64,
        "answered"
    );
    answer
        .with_header(id::X_REQUEST_ID, &id)
        .with_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .with_header(header::CACHE_CONTROL, "no-store")
        .into()
}

/// Neither a request that hangs nor one that panics keeps its client waiting, or takes the worker along.
async fn within_limits(
    limit: Duration,
    answered: impl Future<Output = Result<Answer, ApiError>>,
) -> Result<Answer, ApiError> {
    let caught = AssertUnwindSafe(answered).catch_unwind();
    match tokio::time::timeout(limit, caught).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(_panic)) => Err(ApiError::Server("the handler panicked".into())),
        Err(elapsed) => Err(ApiError::Unavailable(
            "The request took too long.",
            Some(elapsed.into()),
        )),
    }
}

async fn answer(
    target: Target,
    request: HttpRequest,
    payload: Payload,
    gateway: &Data<Gateway>,
    counted: &OnceCell<Hit>,
) -> Result<Answer, ApiError> {
    let admitted = admission::admit(gateway, &request, counted).await;
    if let Err(limited @ ApiError::RateLimited { .. }) = admitted {
        return Err(limited);
    }
    let operation = match target {
        Target::Operation { operation, .. } => operation,
        // What is not there, or can't be done, needs no key to be told so.
        Target::Nowhere => return Err(ApiError::NotFound("There is nothing at this address.")),
        Target::OtherMethod { allow, .. } if request.method() == Method::OPTIONS => {
            return Ok(Answer::no_content().with_header(header::ALLOW, &allow));
        }
        Target::OtherMethod { allow, .. } => return Err(ApiError::MethodNotAllowed { allow }),
    };
    let caller = admitted?.may(operation.scope())?;
    tracing::Span::current().record("partner_id", caller.partner_id.0);
    let call = Call {
        gateway: gateway.clone(),
        request,
        caller,
    };
    match operation {
        Operation::ListWebhooks => webhook::list::list(&call).await,
        Operation::ShowWebhook => webhook::show::show(&call).await,
        Operation::UpdateWebhook => webhook::update::update(&call, payload).await,
        Operation::DeleteWebhook => webhook::delete::delete(&call).await,
        Operation::ListEventTypes => event_type::list::list(&call).await,
        Operation::CreateWebhook => webhook::create::create(&call, payload).await,
        Operation::TestWebhook => webhook::test::test(&call, payload).await,
    }
}

/// The client's trace, which ours goes on with.
fn trace(headers: &HeaderMap) -> Trace {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    Trace::new(text("traceparent"), text("tracestate"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_panics_or_hangs_is_answered_all_the_same() {
        let limit = Duration::from_millis(20);
        let panicked = within_limits(limit, async { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err(ApiError::Server(_))));
        let hung = within_limits(limit, std::future::pending()).await;
        assert!(matches!(hung, Err(ApiError::Unavailable(..))));
        let done = within_limits(limit, async { Ok(Answer::no_content()) }).await;
        assert_eq!(done.unwrap().status(), 204);
    }

    #[test]
    fn a_trace_of_the_client_is_gone_on_with_if_it_is_one() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (given, expected) in [(parent, Some(parent)), ("nonsense", None)] {
            let mut headers = HeaderMap::new();
            let name = header::HeaderName::from_static("traceparent");
            headers.insert(name, header::HeaderValue::from_static(given));
            assert_eq!(trace(&headers).traceparent(), expected);
        }
    }
}
