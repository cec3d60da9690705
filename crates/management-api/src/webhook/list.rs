//! `GET /partners/webhooks`: the partner's webhooks, newest first, page by page.

use actix_web::http::StatusCode;
use serde::Serialize;
use url::form_urlencoded;

use super::{Attributes, Resource};
use crate::answer::{Answer, DataWithMeta};
use crate::error::{ApiError, Faults};
use crate::request::Call;

const PER_PAGE_DEFAULT: u32 = 20;
const PER_PAGE_MAX: u32 = 100;

#[derive(Serialize)]
struct Meta {
    total: u64,
    page: u32,
    per_page: u32,
    total_pages: u64,
}

/// # Errors
/// [`ApiError::Validation`] for a page that can't be.
pub async fn list(call: &Call) -> Result<Answer, ApiError> {
    let Paging { page, per_page } = Paging::parse(call.request.query_string())?;
    let mut conn = call.gateway.store.get().await?;
    let partner = call.caller.partner_id;
    let found = store::webhook::list(&mut conn, partner, page.into(), per_page).await?;
    let data: Vec<_> = found
        .webhooks
        .iter()
        .map(|webhook| Resource::new(webhook.id, Attributes::from(webhook)))
        .collect();
    let meta = Meta {
        total: found.total,
        page,
        per_page,
        total_pages: found.total.div_ceil(per_page.into()).max(1),
    };
    Ok(Answer::json(StatusCode::OK, &DataWithMeta { data, meta }))
}

#[derive(Debug, PartialEq, Eq)]
struct Paging {
    page: u32,
    per_page: u32,
}

impl Paging {
    /// Other parameters are nobody's concern here.
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut faults = Faults::default();
        let page = number(query, "page", 1, u32::MAX, &mut faults);
        let per_page = number(
            query,
            "per_page",
            PER_PAGE_DEFAULT,
            PER_PAGE_MAX,
            &mut faults,
        );
        faults.none()?;
        Ok(Self { page, per_page })
    }
}

fn number(query: &str, name: &str, default: u32, max: u32, faults: &mut Faults) -> u32 {
    let mut given = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
    let Some((_, text)) = given.next() else {
        return default;
    };
    if given.next().is_some() {
        faults.add(name, "must be given once");
        return default;
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && (1..=max).contains(&number) => number,
        _ if max == u32::MAX => {
            faults.add(name, "must be a whole number, 1 or more");
            default
        }
        _ => {
            faults.add(name, format!("must be a whole number from 1 to {max}"));
            default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_twenty_webhooks_unless_asked_otherwise() {
        for (query, page, per_page) in [
            ("", 1, 20),
            ("page=3", 3, 20),
            ("per_page=100&page=2&other=x", 2, 100),
            ("per_page=1", 1, 1),
        ] {
            assert_eq!(
                Paging::parse(query).unwrap(),
                Paging { page, per_page },
                "{query}"
            );
        }
    }

    #[test]
    fn a_page_that_can_not_be_is_refused() {
        for query in [
            "per_page=0",
            "per_page=101",
            "per_page=abc",
            "per_page=",
            "per_page=-1",
            "per_page=%2B5",
            "per_page=1.5",
            "per_page=5&per_page=6",
            "page=0",
            "page=-1",
            "page=99999999999999999999",
        ] {
            assert!(Paging::parse(query).is_err(), "{query}");
        }
    }
}
