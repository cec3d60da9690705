//! Everything that the API refuses, and the one table that says how: status, code, header and words. Handlers return an
//! [`ApiError`]; `request` turns it into the answer. A new variant does not compile before it has a row here.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use serde::Serialize;
use store::StoreError;

use crate::answer::Answer;

/// When a client should ask again after a 503, in seconds.
const UNAVAILABLE_RETRY_AFTER_S: u64 = 2;
/// Most fields that one answer tells about: more are the work of a program, which won't read them.
const FAULTY_FIELDS_MAX: usize = 50;
/// Longest name of a field, and longest message, that is repeated to the client, in characters.
const REPEATED_CHARS_MAX: usize = 200;

/// Why a request is not carried out. `Display` is for the partner, except that of the source.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    Unauthorized(&'static str),
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("Your plan allows {webhooks_max} webhooks. Delete one, or ask for a larger plan.")]
    PlanLimitReached { webhooks_max: u32 },
    #[error("{0}")]
    NotFound(&'static str),
    #[error("This address takes {allow} only.")]
    MethodNotAllowed { allow: String },
    #[error("{0}")]
    Conflict(&'static str),
    #[error("The body of a request must not be larger than {} KiB.", domain::limits::API_BODY_BYTES_MAX / 1024)]
    PayloadTooLarge,
    #[error("The body of a request must be JSON, with the header Content-Type: application/json.")]
    UnsupportedMediaType,
    #[error("The request is not valid; `details` tells what is wrong with each field.")]
    Validation(Faults),
    #[error("Too many requests. The next one is possible in {retry_after_s} s.")]
    RateLimited { retry_after_s: u64 },
    #[error("Something went wrong on our side. X-Request-Id tells us which request it was.")]
    Server(#[source] Cause),
    /// The first part is the sentence that the client reads.
    #[error("{0} Please try again in a moment.")]
    Unavailable(&'static str, #[source] Option<Cause>),
}

/// What only our log reads.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// How one error is answered.
struct Row {
    status: StatusCode,
    code: &'static str,
    header: Option<(HeaderName, String)>,
}

impl ApiError {
    /// The table.
    fn row(&self) -> Row {
        let row = |status, code| Row {
            status,
            code,
            header: None,
        };
        let with = |status, code, name, value| Row {
            status,
            code,
            header: Some((name, value)),
        };
        match self {
            Self::Unauthorized(_) => with(
                StatusCode::UNAUTHORIZED,
                "UNAUTHORIZED",
                header::WWW_AUTHENTICATE,
                "Bearer".to_owned(),
            ),
            Self::Forbidden(_) => row(StatusCode::FORBIDDEN, "FORBIDDEN"),
            Self::PlanLimitReached { .. } => row(StatusCode::FORBIDDEN, "PLAN_LIMIT_REACHED"),
            Self::NotFound(_) => row(StatusCode::NOT_FOUND, "NOT_FOUND"),
            Self::MethodNotAllowed { allow } => with(
                StatusCode::METHOD_NOT_ALLOWED,
                "METHOD_NOT_ALLOWED",
                header::ALLOW,
                allow.clone(),
            ),
            Self::Conflict(_) => row(StatusCode::CONFLICT, "CONFLICT"),
            Self::PayloadTooLarge => row(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
            Self::UnsupportedMediaType => {
                row(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE")
            }
            Self::Validation(_) => row(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR"),
            Self::RateLimited { retry_after_s } => with(
                StatusCode::TOO_MANY_REQUESTS,
                "RATE_LIMITED",
                header::RETRY_AFTER,
                retry_after_s.to_string(),
            ),
            Self::Server(_) => row(StatusCode::INTERNAL_SERVER_ERROR, "SERVER_ERROR"),
            Self::Unavailable(..) => with(
                StatusCode::SERVICE_UNAVAILABLE,
                "UNAVAILABLE",
                header::RETRY_AFTER,
                UNAVAILABLE_RETRY_AFTER_S.to_string(),
            ),
        }
    }

    /// The answer that the client gets. Logs what only we should know.
    pub fn into_answer(self) -> Answer {
        match &self {
            Self::Server(source) => {
                tracing::error!(error = %runtime::exit::chain(source.as_ref()), "a request failed");
            }
            Self::Unavailable(what, Some(source)) => {
                tracing::warn!(what, error = %runtime::exit::chain(source.as_ref()), "a request can't be served");
            }
            _ => {}
        }
        let Row {
            status,
            code,
            header,
        } = self.row();
        let message = self.to_string();
        let details = match self {
            Self::Validation(faults) => faults,
            _ => Faults::default(),
        };
        let answer = Answer::json(
            status,
            &Body {
                success: false,
                error: Error {
                    code,
                    message,
                    details,
                },
            },
        );
        match header {
            Some((name, value)) => answer.with_header(name, &value),
            None => answer,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Transient(_) => Self::Unavailable(
                "The service can't reach its database.",
                Some(Box::new(error)),
            ),
            StoreError::Data(_) | StoreError::Corrupt(_) | StoreError::Query(_) => {
                Self::Server(Box::new(error))
            }
        }
    }
}

/// What is wrong with a request, by field. All of it is told at once.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults(BTreeMap<String, Vec<String>>);

impl Faults {
    /// One fault alone.
    #[must_use]
    pub fn one(field: &str, message: &str) -> Self {
        let mut faults = Self::default();
        faults.add(field, message);
        faults
    }

    pub fn add(&mut self, field: &str, message: impl AsRef<str>) {
        let field = shortened(field);
        if self.0.len() < FAULTY_FIELDS_MAX || self.0.contains_key(&field) {
            let messages = self.0.entry(field).or_default();
            messages.push(shortened(message.as_ref()));
        }
    }

    /// # Errors
    /// When there is any fault.
    pub fn none(self) -> Result<(), ApiError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(ApiError::Validation(self))
        }
    }
}

/// What a client sent may be long, and is told back only as far as a person needs it.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(REPEATED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[derive(Serialize)]
struct Body {
    success: bool,
    error: Error,
}

#[derive(Serialize)]
struct Error {
    code: &'static str,
    message: String,
    details: Faults,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(error: ApiError) -> (u16, serde_json::Value) {
        let answer = error.into_answer();
        let body = serde_json::from_slice(answer.body().unwrap()).unwrap();
        (answer.status().as_u16(), body)
    }

    #[test]
    fn an_error_has_the_one_form() {
        let (status, body) = answer(ApiError::NotFound("There is no such webhook."));
        assert_eq!(status, 404);
        assert_eq!(
            body.to_string(),
            r#"{"error":{"code":"NOT_FOUND","details":{},"message":"There is no such webhook."},"success":false}"#
        );
    }

    #[test]
    fn details_map_a_field_to_its_messages() {
        let mut faults = Faults::one("url", "is required");
        faults.add("events", "is required");
        faults.add("events", "and more");
        let (status, body) = answer(faults.none().unwrap_err());
        assert_eq!(status, 422);
        assert_eq!(
            body["error"]["details"],
            serde_json::json!({"url": ["is required"], "events": ["is required", "and more"]})
        );
    }

    #[test]
    fn what_a_client_sent_is_repeated_only_in_part() {
        let mut faults = Faults::one(&"é".repeat(10_000), &"ü".repeat(10_000));
        for n in 0..1000 {
            faults.add(&format!("field{n}"), "is not a known field");
        }
        let (_, body) = answer(faults.none().unwrap_err());
        assert!(body.to_string().len() < 10_000);
    }

    #[test]
    fn a_source_is_never_shown_to_a_client() {
        let source = || Box::<dyn std::error::Error + Send + Sync>::from("password");
        for error in [
            ApiError::Server(source()),
            ApiError::Unavailable("RabbitMQ is away.", Some(source())),
        ] {
            assert!(!answer(error).1.to_string().contains("password"));
        }
    }

    #[test]
    fn some_errors_say_more_in_a_header() {
        for (error, name, value) in [
            (ApiError::Unauthorized("x"), "www-authenticate", "Bearer"),
            (
                ApiError::MethodNotAllowed {
                    allow: "GET, POST".to_owned(),
                },
                "allow",
                "GET, POST",
            ),
            (
                ApiError::RateLimited { retry_after_s: 7 },
                "retry-after",
                "7",
            ),
            (ApiError::Unavailable("x", None), "retry-after", "2"),
        ] {
            let answer = error.into_answer();
            let (found, text) = answer.headers().first().unwrap();
            assert_eq!((found.as_str(), text.to_str().unwrap()), (name, value));
        }
    }
}
