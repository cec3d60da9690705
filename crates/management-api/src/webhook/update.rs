//! `PATCH /partners/webhooks/{id}`: changes what is given. An empty object changes nothing. Wakes the relay.

use actix_web::web::Payload;

use super::{full, id_of_path, input, unknown};
use crate::answer::Answer;
use crate::error::ApiError;
use crate::gateway::again;
use crate::request::{Call, body};

/// # Errors
/// [`ApiError::NotFound`] when the partner has no such webhook, and those of [`input::update`].
pub async fn update(call: &Call, payload: Payload) -> Result<Answer, ApiError> {
    let id = id_of_path(call.path("id"))?;
    let body = body::read(&call.request, payload).await?;
    let change = input::update(&call.gateway, &body).await?;
    let partner = call.caller.partner_id;
    let actor = call.caller.actor();
    let mut conn = call.gateway.store.get().await?;
    let updated =
        again(async || store::webhook::update(&mut conn, partner, id, &change, &actor).await)
            .await?;
    let updated = updated.ok_or_else(unknown)?;
    call.gateway.relay.wake();
    Ok(full(&updated))
}
