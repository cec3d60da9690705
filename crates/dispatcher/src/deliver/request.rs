//! The request's headers. Exactly those of the public page and the three of Standard Webhooks; hyper adds `Host` and
//! `Content-Length`.

use bytes::Bytes;
use domain::attempt::{Failure, FailureKind};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Uri};
use http_body_util::Full;
use url::Position;

use super::Request;

const SIGNATURE: HeaderName = HeaderName::from_static("x-vellocity-signature");
const EVENT: HeaderName = HeaderName::from_static("x-vellocity-event");
const DELIVERY: HeaderName = HeaderName::from_static("x-vellocity-delivery");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue = HeaderValue::from_static("Vellocity-Webhooks/1.0");

/// Ours and hyper's two.
const HEADERS: usize = 10;

/// # Errors
/// When the URL or an id can't be written into an HTTP request at all.
pub(super) fn build(
    request: &Request<'_>,
    timestamp_s: i64,
) -> Result<http::Request<Full<Bytes>>, Failure> {
    // The fragment is the partner's own business.
    let target = &request.url.url()[..Position::AfterQuery];
    let uri = Uri::try_from(target).map_err(|_| unsendable("the URL"))?;
    let delivery_id =
        HeaderValue::from_str(request.delivery_id).map_err(|_| unsendable("the delivery's id"))?;
    let event =
        HeaderValue::from_str(request.event_type).map_err(|_| unsendable("the event's type"))?;
    let signature = owned(request.signer.sign_body(&request.body))?;
    let standard = request
        .signer
        .sign_standard(request.delivery_id, timestamp_s, &request.body);

    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(USER_AGENT, AGENT);
    headers.insert(SIGNATURE, signature);
    headers.insert(EVENT, event);
    headers.insert(DELIVERY, delivery_id.clone());
    headers.insert(WEBHOOK_ID, delivery_id);
    headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp_s));
    headers.insert(WEBHOOK_SIGNATURE, owned(standard)?);

    let mut message = http::Request::new(Full::new(request.body.clone()));
    *message.method_mut() = Method::POST;
    *message.uri_mut() = uri;
    *message.headers_mut() = headers;
    Ok(message)
}

/// Takes the string over without a copy.
fn owned(value: String) -> Result<HeaderValue, Failure> {
    HeaderValue::try_from(value).map_err(|_| unsendable("the signature"))
}

fn unsendable(what: &str) -> Failure {
    Failure {
        kind: FailureKind::Protocol,
        message: format!("{what} can't be written into an HTTP request"),
    }
}
