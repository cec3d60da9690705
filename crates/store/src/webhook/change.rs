//! A change of a subscription as an immutable row and as an entry of the outbox, in the transaction that makes it.
//!
//! Writes `webhook_versions` and `outbox`. The outbox relay takes it from there to the dispatchers.

use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::id::{PartnerId, WebhookId};

use crate::error::StoreError;

/// What happened to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Created,
    Updated,
    Deleted,
    Disabled,
    /// Its partner was suspended.
    Suspended,
    Resumed,
}

impl ChangeKind {
    pub const ALL: [Self; 6] = [
        Self::Created,
        Self::Updated,
        Self::Deleted,
        Self::Disabled,
        Self::Suspended,
        Self::Resumed,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Disabled => "disabled",
            Self::Suspended => "suspended",
            Self::Resumed => "resumed",
        }
    }

    /// The domain event that tells of it, and its routing key.
    #[must_use]
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Created => "webhook.created",
            Self::Updated | Self::Suspended | Self::Resumed => "webhook.updated",
            Self::Deleted => "webhook.deleted",
            Self::Disabled => "webhook.disabled",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// One webhook's change. `before` and `after` are JSON, as [`snapshot`] makes it.
#[derive(QueryableByName)]
pub(super) struct Change {
    #[diesel(sql_type = BigInt)]
    pub webhook_id: i64,
    #[diesel(sql_type = BigInt)]
    pub partner_id: i64,
    /// The version that the change made.
    #[diesel(sql_type = Integer)]
    pub version: i32,
    #[diesel(sql_type = Nullable<Text>)]
    pub before: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub after: Option<String>,
}

/// A webhook `w` as the history keeps it: everything that a partner can set, and why we switched it off. No secret.
/// A macro, since `concat!` takes literals only and statements must be static to be prepared once.
macro_rules! snapshot {
    () => {
        "jsonb_build_object('url', w.url, 'events', w.events, 'description', w.description, \
         'active', w.active, 'disabled_reason', w.disabled_reason)"
    };
}
pub(super) use snapshot;

/// A webhook's snapshot before a change, taken when its row was locked for it.
#[derive(QueryableByName)]
pub(super) struct Before {
    #[diesel(sql_type = Text)]
    pub before: String,
}

/// Writes the rows of changes that were just made, all of one kind, inside the caller's transaction.
pub(super) async fn record(
    conn: &mut AsyncPgConnection,
    kind: ChangeKind,
    changes: &[Change],
    actor: &str,
) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    sql_query(
        "WITH changes AS (
             SELECT *
             FROM unnest($1, $2, $3, $4, $5) AS c (webhook_id, partner_id, version, before, after)
         ),
         versions AS (
             INSERT INTO webhook_versions (webhook_id, version, partner_id, change, before, after, actor)
             SELECT webhook_id, version, partner_id, $6, before::jsonb, after::jsonb, $7
             FROM changes
         )
         INSERT INTO outbox (routing_key, payload)
         SELECT $8, jsonb_build_object(
             'type', $8, 'partner_id', partner_id, 'webhook_id', webhook_id, 'version', version,
             'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))
         FROM changes",
    )
    .bind::<Array<BigInt>, _>(changes.iter().map(|c| c.webhook_id).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(changes.iter().map(|c| c.partner_id).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(changes.iter().map(|c| c.version).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(changes.iter().map(|c| c.before.as_deref()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(changes.iter().map(|c| c.after.as_deref()).collect::<Vec<_>>())
    .bind::<Text, _>(kind.as_str())
    .bind::<Text, _>(actor)
    .bind::<Text, _>(kind.event_type())
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives every webhook of a partner a new version because its partner was suspended or resumed. A suspension is a
/// deactivation too, so that what was pending then does not come back when it ends.
pub(crate) async fn of_partner(
    conn: &mut AsyncPgConnection,
    partner: PartnerId,
    kind: ChangeKind,
    actor: &str,
) -> Result<Vec<WebhookId>, StoreError> {
    let changes: Vec<Change> = sql_query(concat!(
        "UPDATE webhooks AS w
         SET version = w.version + 1,
             deactivated_version = CASE WHEN $2 THEN w.version + 1 ELSE w.deactivated_version END
         WHERE w.partner_id = $1 AND w.deleted_at IS NULL
         RETURNING w.id AS webhook_id, w.partner_id, w.version,
             (",
        snapshot!(),
        " || jsonb_build_object('partner_suspended', NOT $2))::text AS before,
             (",
        snapshot!(),
        " || jsonb_build_object('partner_suspended', $2))::text AS after",
    ))
    .bind::<BigInt, _>(partner.0)
    .bind::<Bool, _>(kind == ChangeKind::Suspended)
    .load(conn)
    .await?;
    record(conn, kind, &changes, actor).await?;
    Ok(changes.iter().map(|c| WebhookId(c.webhook_id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_word() {
        for kind in ChangeKind::ALL {
            assert_eq!(ChangeKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(ChangeKind::parse("renamed"), None);
    }
}
