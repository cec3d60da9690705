//! The id under which a request is found in our logs, and which its answer carries as `X-Request-Id`.

use actix_web::http::header::{HeaderMap, HeaderName};
use uuid::Uuid;

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const CHARS_MAX: usize = 64;

/// The client's own id, if it is fit to be written into a log; else a new one.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(&X_REQUEST_ID).and_then(|id| id.to_str().ok());
    match given.filter(|id| is_plain(id)) {
        Some(id) => id.to_owned(),
        None => Uuid::now_v7().to_string(),
    }
}

fn is_plain(id: &str) -> bool {
    (1..=CHARS_MAX).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn id(given: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_str(given).unwrap());
        request_id(&headers)
    }

    #[test]
    fn a_plain_id_is_kept_and_any_other_replaced() {
        for good in ["a", "A-b_9", &"x".repeat(64)] {
            assert_eq!(id(good), good);
        }
        for bad in ["", "a b", "a\"b", "{}", &"x".repeat(65)] {
            assert!(id(bad).parse::<Uuid>().is_ok(), "{bad}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
