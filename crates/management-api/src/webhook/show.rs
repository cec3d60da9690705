//! `GET /partners/webhooks/{id}`: one webhook, with why and when we disabled it.

use super::{full, id_of_path, unknown};
use crate::answer::Answer;
use crate::error::ApiError;
use crate::request::Call;

/// # Errors
/// [`ApiError::NotFound`] when the partner has no such webhook.
pub async fn show(call: &Call) -> Result<Answer, ApiError> {
    let id = id_of_path(call.path("id"))?;
    let mut conn = call.gateway.store.get().await?;
    let found = store::webhook::get(&mut conn, call.caller.partner_id, id).await?;
    Ok(full(&found.ok_or_else(unknown)?))
}
