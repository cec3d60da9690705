//! What a handler gives back: a status, headers and a whole body, as plain data, so that the first answer to an
//! idempotency key can be kept and given again. `request` makes an HTTP response of it.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<Bytes>,
}

impl Answer {
    /// An answer with `value` as its body.
    #[must_use]
    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        let Ok(body) = serde_json::to_vec(value) else {
            unreachable!("answers are structs of ours, whose members have text keys");
        };
        Self::raw(status, Some(body.into()))
    }

    /// 204.
    #[must_use]
    pub fn no_content() -> Self {
        Self::raw(StatusCode::NO_CONTENT, None)
    }

    /// An answer whose JSON body was rendered before.
    #[must_use]
    pub fn raw(status: StatusCode, body: Option<Bytes>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
        }
    }

    /// A text that is no header value (none of ours is) is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    #[must_use]
    pub fn body(&self) -> Option<&Bytes> {
        self.body.as_ref()
    }

    #[must_use]
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }
}

impl From<Answer> for HttpResponse {
    fn from(answer: Answer) -> Self {
        let mut response = HttpResponse::build(answer.status);
        for header in answer.headers {
            response.insert_header(header);
        }
        let mut response = match answer.body {
            Some(body) => {
                response.insert_header((CONTENT_TYPE, "application/json"));
                response.body(body)
            }
            None => response.finish(),
        };
        // Names of headers mean the same in any case; people read them more easily in this one.
        response.head_mut().set_camel_case_headers(true);
        response
    }
}

/// `{"data": …}`
#[derive(Serialize)]
pub struct Data<D> {
    pub data: D,
}

/// `{"data": …, "meta": …}`
#[derive(Serialize)]
pub struct DataWithMeta<D, M> {
    pub data: D,
    pub meta: M,
}
