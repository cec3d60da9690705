//! One request from beginning to end: its id and span, who sends it and whether it is within the limit, what it leads
//! to, a limit on its time, and an answer in the one form. Called by `routes` for everything that comes in.

pub mod body;
pub mod client_address;
pub mod fields;
pub mod id;

use std::cell::OnceCell;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

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
    let answered = within_limits(&gateway, answered)
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
    gateway: &Gateway,
    answered: impl Future<Output = Result<Answer, ApiError>>,
) -> Result<Answer, ApiError> {
    let caught = AssertUnwindSafe(answered).catch_unwind();
    match tokio::time::timeout(gateway.config.request_timeout(), caught).await {
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
