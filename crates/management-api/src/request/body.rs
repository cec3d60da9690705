//! The body of a request: whole, JSON by its own word, and never larger than the limit, however it is sent.

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use actix_web::web::{Bytes, BytesMut, Payload};
use domain::limits::API_BODY_BYTES_MAX;
use futures_util::StreamExt as _;

use crate::error::{ApiError, Faults};

/// # Errors
/// [`ApiError::UnsupportedMediaType`], [`ApiError::PayloadTooLarge`], or [`ApiError::Validation`] for one that broke off.
pub async fn read(request: &HttpRequest, mut payload: Payload) -> Result<Bytes, ApiError> {
    if !is_json(request.headers()) {
        return Err(ApiError::UnsupportedMediaType);
    }
    if declared_length(request.headers()).is_some_and(|length| length > API_BODY_BYTES_MAX as u64) {
        return Err(ApiError::PayloadTooLarge);
    }
    let mut body = BytesMut::new();
    while let Some(part) = payload.next().await {
        let part = part.map_err(unreadable)?;
        if body.len() + part.len() > API_BODY_BYTES_MAX {
            return Err(ApiError::PayloadTooLarge);
        }
        body.extend_from_slice(&part);
    }
    Ok(body.freeze())
}

fn unreadable(error: PayloadError) -> ApiError {
    match error {
        PayloadError::Overflow => ApiError::PayloadTooLarge,
        _ => ApiError::Validation(Faults::one("body", "broke off before its end")),
    }
}

/// `application/json`, with or without parameters, and not compressed.
fn is_json(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let essence = text(CONTENT_TYPE).and_then(|value| value.split(';').next());
    let plain = match headers.get(CONTENT_ENCODING) {
        None => true,
        Some(encoding) => encoding.as_bytes().eq_ignore_ascii_case(b"identity"),
    };
    plain && essence.is_some_and(|it| it.trim().eq_ignore_ascii_case("application/json"))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn json(content_type: Option<&'static str>, encoding: Option<&'static str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
        }
        if let Some(value) = encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(value));
        }
        is_json(&headers)
    }

    #[test]
    fn json_is_told_by_its_content_type_alone() {
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;charset=\"utf-8\"",
            "application/json ; a=b",
        ] {
            assert!(json(Some(good), None), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/jsonp",
            "application/problem+json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; a=application/json",
        ] {
            assert!(!json(Some(bad), None), "{bad}");
        }
        assert!(!json(None, None));
    }

    #[test]
    fn a_compressed_body_is_not_accepted() {
        assert!(json(Some("application/json"), Some("identity")));
        assert!(!json(Some("application/json"), Some("gzip")));
    }
}
