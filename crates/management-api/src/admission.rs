//! Who calls, and whether one more request is within the limit. Runs before every answer, on routes and off them: reads
//! `api_keys`, counts in `rate_limits`, by partner for a valid key and by address for everything else.

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr};

use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use domain::api_key::ApiKey;
use domain::id::PartnerId;
use store::api_key::{self, Authenticated, KeyState, Scope};
use store::rate_limit::{self, Hit};
use store::{Connection, StoreError};

use crate::answer::Answer;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::request::client_address::{client_address, subject};

const NO_KEY: &str = "Send your API key in the header Authorization: Bearer KEY.";
const MALFORMED_KEY: &str =
    "The header Authorization must be Bearer and one API key, which begins with vel_.";
/// One answer for all, so that whoever guesses learns nothing.
const INVALID_KEY: &str = "This API key is not valid: it may be mistyped, expired or revoked.";
const SUSPENDED: &str = "This partner is suspended. Please contact support.";
const NO_READ: &str = "This API key lacks the scope read.";
const NO_WRITE: &str = "This API key lacks the scope write.";

/// A partner, by a valid key.
#[derive(Clone, Debug)]
pub struct Caller {
    pub partner_id: PartnerId,
    key_id: i64,
    scopes: Vec<Scope>,
    suspended: bool,
}

impl Caller {
    /// # Errors
    /// [`ApiError::Forbidden`] when the partner is suspended, or the key has not that scope.
    pub fn may(self, scope: Scope) -> Result<Self, ApiError> {
        if self.suspended {
            return Err(ApiError::Forbidden(SUSPENDED));
        }
        match scope {
            _ if self.scopes.contains(&scope) => Ok(self),
            Scope::Read => Err(ApiError::Forbidden(NO_READ)),
            Scope::Write => Err(ApiError::Forbidden(NO_WRITE)),
        }
    }

    /// Who makes a change, as the history of a webhook keeps it.
    #[must_use]
    pub fn actor(&self) -> String {
        format!("api_key:{}", self.key_id)
    }
}

/// Finds out who calls, and counts the request. `counted` is left with the window of a valid key, whatever comes of the
/// request.
///
/// # Errors
/// [`ApiError::Unauthorized`] without a valid key, [`ApiError::RateLimited`] beyond the limit, and those of the store.
pub async fn admit(
    gateway: &Gateway,
    request: &HttpRequest,
    counted: &OnceCell<Hit>,
) -> Result<Caller, ApiError> {
    let key = match bearer(request.headers()) {
        Ok(key) => key,
        Err(refusal) => {
            // Without a count the answer is the same, so that it does not take a database.
            return match count_address_if_possible(gateway, request).await {
                Err(limited @ ApiError::RateLimited { .. }) => Err(limited),
                Ok(()) | Err(_) => Err(ApiError::Unauthorized(refusal)),
            };
        }
    };
    gateway.database.check()?;
    let mut conn = gateway.store.get().await?;
    let found = api_key::authenticate(&mut conn, &key.hash()).await?;
    match found.filter(|key| key.state == KeyState::Valid) {
        Some(key) => count_partner(gateway, conn, key, counted).await,
        None => {
            count_address(gateway, conn, request).await?;
            Err(ApiError::Unauthorized(INVALID_KEY))
        }
    }
}

async fn count_partner(
    gateway: &Gateway,
    mut conn: Connection,
    key: Authenticated,
    counted: &OnceCell<Hit>,
) -> Result<Caller, ApiError> {
    let partner = rate_limit::partner_subject(key.partner_id);
    let hit = rate_limit::hit(&mut conn, &partner, key.plan.requests_per_minute()).await?;
    let hit = *counted.get_or_init(|| hit);
    if !hit.allowed {
        gateway.metrics.rate_limited_partners.inc();
        return Err(limited(&hit));
    }
    if key.touch_due {
        touch(&mut conn, key.key_id).await;
    }
    Ok(Caller {
        partner_id: key.partner_id,
        key_id: key.key_id,
        scopes: key.scopes,
        suspended: key.suspended,
    })
}

/// That a key was used is worth knowing, but no reason to refuse a request.
async fn touch(conn: &mut Connection, key_id: i64) {
    if let Err(error) = api_key::touch(conn, key_id).await {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(key_id, error, "the use of a key was not noted");
    }
}

async fn count_address_if_possible(
    gateway: &Gateway,
    request: &HttpRequest,
) -> Result<(), ApiError> {
    gateway.database.check()?;
    let conn = gateway.store.get().await?;
    count_address(gateway, conn, request).await
}

async fn count_address(
    gateway: &Gateway,
    mut conn: Connection,
    request: &HttpRequest,
) -> Result<(), ApiError> {
    // Only a listener that is no TCP socket has no peer, and we have none.
    let peer = request
        .peer_addr()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let config = &gateway.config;
    let client = client_address(peer, request.headers(), &config.trusted_proxies);
    let limit = config.address_requests_per_minute;
    let hit: Result<Hit, StoreError> = rate_limit::hit(&mut conn, &subject(client), limit).await;
    let hit = hit?;
    if hit.allowed {
        Ok(())
    } else {
        gateway.metrics.rate_limited_addresses.inc();
        Err(limited(&hit))
    }
}

fn limited(hit: &Hit) -> ApiError {
    ApiError::RateLimited {
        retry_after_s: hit.reset_in.as_millis().div_ceil(1000).max(1) as u64,
    }
}

/// The key that a request brings, or what to tell whoever sent none.
fn bearer(headers: &HeaderMap) -> Result<ApiKey, &'static str> {
    let mut given = headers.get_all(AUTHORIZATION);
    let text = match (given.next(), given.next()) {
        (None, _) => return Err(NO_KEY),
        (Some(one), None) => one.to_str().map_err(|_| MALFORMED_KEY)?,
        (Some(_), Some(_)) => return Err(MALFORMED_KEY),
    };
    let (scheme, key) = text.split_once(' ').ok_or(MALFORMED_KEY)?;
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(MALFORMED_KEY);
    }
    ApiKey::parse(key.trim()).map_err(|_| MALFORMED_KEY)
}

/// Tells a partner how much of its limit is left.
#[must_use]
pub fn with_limit(answer: Answer, hit: &Hit) -> Answer {
    const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
    const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
    const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
    let at = hit.reset_at;
    // A client that asks again in that very second must not be too early.
    let reset_s = at.timestamp() + i64::from(at.timestamp_subsec_nanos() > 0);
    answer
        .with_header(LIMIT, &hit.limit.to_string())
        .with_header(REMAINING, &hit.remaining.to_string())
        .with_header(RESET, &reset_s.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix_web::http::header::HeaderValue;

    use super::*;

    fn key() -> ApiKey {
        ApiKey::from_random([7; 32])
    }

    fn parse(lines: &[String]) -> Result<ApiKey, &'static str> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, HeaderValue::from_str(line).unwrap());
        }
        bearer(&headers)
    }

    #[test]
    fn a_key_comes_as_a_bearer_token_in_any_case() {
        for scheme in ["Bearer", "bearer", "BEARER", "Bearer "] {
            let line = format!("{scheme} {}", key().reveal());
            assert_eq!(parse(&[line]), Ok(key()), "{scheme}");
        }
    }

    #[test]
    fn without_a_key_the_client_hears_how_to_send_one() {
        assert_eq!(parse(&[]), Err(NO_KEY));
        let good = format!("Bearer {}", key().reveal());
        for lines in [
            vec![key().reveal().to_owned()],
            vec![format!("Basic {}", key().reveal())],
            vec!["Bearer".to_owned()],
            vec!["Bearer x".to_owned()],
            vec![format!("{good} x")],
            vec![good.clone(), good],
        ] {
            assert_eq!(parse(&lines), Err(MALFORMED_KEY), "{lines:?}");
        }
    }

    #[test]
    fn a_scope_and_a_suspension_are_looked_at_before_anything_is_done() {
        let caller = Caller {
            partner_id: PartnerId(1),
            key_id: 3,
            scopes: vec![Scope::Read],
            suspended: false,
        };
        assert_eq!(caller.actor(), "api_key:3");
        assert!(caller.clone().may(Scope::Read).is_ok());
        assert!(matches!(
            caller.clone().may(Scope::Write),
            Err(ApiError::Forbidden(NO_WRITE))
        ));
        let suspended = Caller {
            suspended: true,
            ..caller
        };
        assert!(matches!(
            suspended.may(Scope::Read),
            Err(ApiError::Forbidden(SUSPENDED))
        ));
    }

    #[test]
    fn a_limit_is_told_in_whole_seconds_and_never_too_early() {
        let hit = Hit {
            limit: 60,
            remaining: 0,
            allowed: false,
            reset_at: "2026-01-01T00:00:00.001Z".parse().unwrap(),
            reset_in: Duration::from_millis(1001),
        };
        let answer = with_limit(Answer::no_content(), &hit);
        let told: Vec<_> = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                ("x-ratelimit-limit", "60"),
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1767225601")
            ]
        );
        assert!(matches!(
            limited(&hit),
            ApiError::RateLimited { retry_after_s: 2 }
        ));
    }
}
