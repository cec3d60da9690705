//! `Idempotency-Key`: a POST that is sent again with the same key is not carried out again, and gets the first answer.
//! Reads and writes `idempotency_keys` in the transaction that carries the request out, so that of two at once only one
//! does. Answers that are our failures are not kept.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};
use store::idempotency::{self, FirstAnswer, RequestHash};
use store::{Session, StoreError};

use crate::answer::Answer;
use crate::error::{ApiError, Faults};
use crate::request::Call;

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const CHARS_MAX: usize = 255;
const CONFLICT: &str =
    "This Idempotency-Key was used for another request. Use a new key for each new request.";

/// A key, and the request that it stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    text: String,
    request_hash: RequestHash,
}

impl Key {
    /// The key of a request; `None` if it has none.
    ///
    /// # Errors
    /// [`ApiError::Validation`] when it is no single text of 1 to 255 printable ASCII characters.
    pub fn of(call: &Call, body: &[u8]) -> Result<Option<Self>, ApiError> {
        let Some(text) = text(call.request.headers())? else {
            return Ok(None);
        };
        let hash = Sha256::new()
            .chain_update(call.request.method().as_str())
            .chain_update([0])
            .chain_update(call.request.path())
            .chain_update([0])
            .chain_update(body);
        Ok(Some(Self {
            text,
            request_hash: hash.finalize().into(),
        }))
    }
}

fn text(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut given = headers.get_all(HEADER);
    let Some(value) = given.next() else {
        return Ok(None);
    };
    let printable = |b: &u8| (0x20..0x7f).contains(b);
    let bytes = value.as_bytes();
    let sound = (1..=CHARS_MAX).contains(&bytes.len()) && bytes.iter().all(printable);
    match value.to_str() {
        Ok(text) if sound && given.next().is_none() => Ok(Some(text.to_owned())),
        _ => Err(ApiError::Validation(Faults::one(
            "Idempotency-Key",
            "must be 1 to 255 printable ASCII characters",
        ))),
    }
}

/// Carries a request out, unless its key has an answer already. `work` runs inside the transaction that keeps it.
///
/// # Errors
/// Those of the work and of the store; nothing is kept then.
pub async fn once<E: From<StoreError>>(
    call: &Call,
    key: &Key,
    work: impl AsyncFnOnce(&mut Session) -> Result<Answer, E>,
) -> Result<Answer, E> {
    let gateway = &call.gateway;
    let partner = call.caller.partner_id;
    let mut transaction = gateway.store.begin().await?;
    let first = idempotency::begin(&mut transaction, &gateway.keyring, partner, &key.text).await?;
    if let Some(first) = first {
        transaction.rollback().await?;
        gateway.metrics.idempotent_replays.inc();
        return Ok(again(key, first));
    }
    let answer = match work(&mut transaction).await {
        Ok(answer) if !answer.status().is_server_error() => answer,
        failed => {
            transaction.rollback().await?;
            return failed;
        }
    };
    let first = FirstAnswer {
        request_hash: key.request_hash,
        status: answer.status().as_u16(),
        answer: answer.body().map(|body| body.to_vec()).unwrap_or_default(),
    };
    idempotency::insert(
        &mut transaction,
        &gateway.keyring,
        partner,
        &key.text,
        &first,
    )
    .await?;
    transaction.commit().await?;
    Ok(answer)
}

fn again(key: &Key, first: FirstAnswer) -> Answer {
    let status = StatusCode::from_u16(first.status);
    match status {
        Ok(status) if first.request_hash == key.request_hash => {
            Answer::raw(status, Some(first.answer.into())).with_header(REPLAYED, "true")
        }
        _ => ApiError::Conflict(CONFLICT).into_answer(),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn parse(values: &[&[u8]]) -> Result<Option<String>, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        text(&headers)
    }

    #[test]
    fn a_key_is_a_short_printable_text() {
        assert_eq!(parse(&[]).unwrap(), None);
        let long = [b'x'; 255];
        for good in [b"a".as_slice(), b"6f1c 1\"{}~", &long] {
            assert_eq!(parse(&[good]).unwrap().unwrap().as_bytes(), good);
        }
        let longer = [b'x'; 256];
        for bad in [b"".as_slice(), "ä".as_bytes(), b"a\tb", &longer] {
            assert!(parse(&[bad]).is_err(), "{bad:?}");
        }
        assert!(parse(&[b"a", b"b"]).is_err());
    }

    #[test]
    fn only_the_same_request_gets_the_first_answer_again() {
        let key = |hash| Key {
            text: "k".to_owned(),
            request_hash: [hash; 32],
        };
        let first = FirstAnswer {
            request_hash: [1; 32],
            status: 201,
            answer: b"{}".to_vec(),
        };
        let replayed = again(&key(1), first.clone());
        assert_eq!(replayed.status(), 201);
        assert_eq!(replayed.body().unwrap().as_ref(), b"{}");
        assert_eq!(replayed.headers().first().unwrap().0, REPLAYED);
        assert_eq!(again(&key(2), first).status(), 409);
    }
}
