//! `DELETE /partners/webhooks/{id}`: the end of a webhook and of what it waits for. Wakes the relay.

use super::{id_of_path, unknown};
use crate::answer::Answer;
use crate::error::ApiError;
use crate::gateway::again;
use crate::request::Call;

/// # Errors
/// [`ApiError::NotFound`] when the partner has no such webhook, or no longer.
pub async fn delete(call: &Call) -> Result<Answer, ApiError> {
    let id = id_of_path(call.path("id"))?;
    let partner = call.caller.partner_id;
    let actor = call.caller.actor();
    let mut conn = call.gateway.store.get().await?;
    let deleted =
        again(async || store::webhook::delete(&mut conn, partner, id, &actor).await).await?;
    if !deleted {
        return Err(unknown());
    }
    call.gateway.relay.wake();
    Ok(Answer::no_content())
}
