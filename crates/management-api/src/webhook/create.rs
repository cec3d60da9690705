//! `POST /partners/webhooks`: a new webhook, within the partner's plan. Its secret is shown here and nowhere else. Wakes
//! the relay.

use actix_web::http::StatusCode;
use actix_web::web::Payload;
use domain::event::EventType;
use domain::secret::Secret;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use serde::Serialize;
use store::webhook::{Creation, NewWebhook, Webhook};
use store::{Session, StoreError};

use super::{Resource, input};
use crate::answer::{Answer, DataWithMeta};
use crate::error::ApiError;
use crate::gateway::again;
use crate::idempotency::{self, Key};
use crate::request::{Call, body};

const WARNING: &str = "Store this secret securely. It will not be shown again.";

/// What the public page prints for a new webhook.
#[derive(Serialize)]
struct Attributes<'a> {
    url: &'a str,
    events: &'a [EventType],
    active: bool,
}

#[derive(Serialize)]
struct Meta<'a> {
    secret: &'a str,
    warning: &'static str,
}

/// # Errors
/// Those of [`input::create`], [`ApiError::PlanLimitReached`], and [`ApiError::Conflict`] for a key that was used for
/// another body.
pub async fn create(call: &Call, payload: Payload) -> Result<Answer, ApiError> {
    let body = body::read(&call.request, payload).await?;
    let key = Key::of(call, &body)?;
    // Checked before a transaction is opened, since name servers may be slow. What is wrong is an answer as well, and
    // kept like any other.
    let input = match input::create(&call.gateway, &body).await {
        Ok(input) => Ok(input),
        Err(wrong @ ApiError::Validation(_)) => Err(wrong.into_answer()),
        Err(error) => return Err(error),
    };
    let secret = new_secret()?;
    let work = async |conn: &mut Session| match &input {
        Ok(input) => store(call, conn, input, &secret).await,
        Err(answer) => Ok(answer.clone()),
    };
    let answer = again(async || match &key {
        Some(key) => idempotency::once(call, key, &work).await,
        None => {
            let mut conn = call.gateway.store.get().await?;
            work(&mut conn).await
        }
    })
    .await?;
    call.gateway.relay.wake();
    Ok(answer)
}

async fn store(
    call: &Call,
    conn: &mut Session,
    input: &input::Create,
    secret: &Secret,
) -> Result<Answer, StoreError> {
    let new = NewWebhook {
        partner_id: call.caller.partner_id,
        url: &input.url,
        events: &input.events,
        description: input.description.as_ref(),
        active: input.active,
        secret,
    };
    let actor = call.caller.actor();
    let created = store::webhook::create(conn, &call.gateway.keyring, &new, &actor).await?;
    Ok(match created {
        Creation::Created(webhook) => shown_once(&webhook, secret),
        Creation::LimitReached { webhooks_max } => {
            ApiError::PlanLimitReached { webhooks_max }.into_answer()
        }
        // Suspended since it was admitted.
        Creation::Forbidden => ApiError::Forbidden("This partner is suspended.").into_answer(),
    })
}

fn shown_once(webhook: &Webhook, secret: &Secret) -> Answer {
    let attributes = Attributes {
        url: &webhook.url,
        events: &webhook.events,
        active: webhook.active,
    };
    let data = Resource::new(webhook.id, attributes);
    let meta = Meta {
        secret: secret.reveal(),
        warning: WARNING,
    };
    Answer::json(StatusCode::CREATED, &DataWithMeta { data, meta })
}

fn new_secret() -> Result<Secret, ApiError> {
    let mut bytes = [0; 32];
    OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| ApiError::Server(Box::new(error)))?;
    Ok(Secret::from_random(bytes))
}

#[cfg(test)]
mod tests {
    use super::super::tests::webhook;
    use super::*;

    #[test]
    fn a_new_webhook_is_what_the_page_prints_in_its_order() {
        let secret = Secret::from_random([0xa1; 32]);
        let answer = shown_once(&webhook(), &secret);
        assert_eq!(answer.status(), 201);
        assert_eq!(
            std::str::from_utf8(answer.body().unwrap()).unwrap(),
            format!(
                concat!(
                    r#"{{"data":{{"type":"webhook","id":1,"attributes":{{"url":"https://your-app.com/webhooks/vellocity","#,
                    r#""events":["listing.updated","cosell.created"],"active":true}}}},"#,
                    r#""meta":{{"secret":"{}","warning":"Store this secret securely. It will not be shown again."}}}}"#
                ),
                "a1".repeat(32)
            )
        );
    }

    #[test]
    fn two_secrets_are_never_the_same() {
        assert_ne!(new_secret().unwrap(), new_secret().unwrap());
    }
}
