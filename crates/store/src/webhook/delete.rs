//! The end of a webhook: the secret is wiped, the row stays for the history.

use diesel::sql_types::{BigInt, Text};
use diesel::{OptionalExtension as _, sql_query};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use domain::id::{PartnerId, WebhookId};

use super::change::{self, Before, Change, ChangeKind, snapshot};
use super::update::begin_anew;
use crate::error::StoreError;

/// Deletes a webhook of the partner and cancels what it waits for. False where the partner has no such webhook.
///
/// # Errors
/// Those of any query.
pub async fn delete(
    conn: &mut AsyncPgConnection,
    partner: PartnerId,
    id: WebhookId,
    actor: &str,
) -> Result<bool, StoreError> {
    conn.transaction(async |conn| {
        let locked: Option<Before> = sql_query(concat!(
            "SELECT ",
            snapshot!(),
            "::text AS before
             FROM webhooks w
             WHERE w.id = $1 AND w.partner_id = $2 AND w.deleted_at IS NULL
             FOR UPDATE"
        ))
        .bind::<BigInt, _>(id.0)
        .bind::<BigInt, _>(partner.0)
        .get_result(conn)
        .await
        .optional()?;
        let Some(Before { before }) = locked else {
            return Ok(false);
        };
        let change: Change = sql_query(
            "UPDATE webhooks
             SET active = false, version = version + 1, deactivated_version = version + 1,
                 secret = NULL, sealing_key_id = NULL, updated_at = now(), deleted_at = now()
             WHERE id = $1
             RETURNING id AS webhook_id, partner_id, version, $2 AS before, NULL::text AS after",
        )
        .bind::<BigInt, _>(id.0)
        .bind::<Text, _>(before)
        .get_result(conn)
        .await?;
        begin_anew(conn, id, change.version).await?;
        change::record(conn, ChangeKind::Deleted, &[change], actor).await?;
        Ok(true)
    })
    .await
}
