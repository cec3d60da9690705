//! What is known of one event's claim, for people who ask what became of it.

use diesel::sql_types::{BigInt, Binary, Bool, Text, Uuid as SqlUuid};
use diesel::{OptionalExtension as _, QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::id::{EventId, EventKey, PartnerId};
use uuid::Uuid;

use crate::StoreError;

/// A claim as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub event_key: EventKey,
    pub content_hash: Vec<u8>,
    pub recorded: bool,
}

#[derive(QueryableByName)]
struct KnownRow {
    #[diesel(sql_type = SqlUuid)]
    event_key: Uuid,
    #[diesel(sql_type = Binary)]
    content_hash: Vec<u8>,
    #[diesel(sql_type = Bool)]
    recorded: bool,
}

/// The claim of one event, if there is one.
///
/// # Errors
/// When Postgres fails.
pub async fn look_up(
    connection: &mut AsyncPgConnection,
    partner_id: PartnerId,
    event_id: &EventId,
) -> Result<Option<Known>, StoreError> {
    let row: Option<KnownRow> = sql_query(
        "SELECT event_key, content_hash, recorded_at IS NOT NULL AS recorded FROM claims \
         WHERE partner_id = $1 AND event_id = $2",
    )
    .bind::<BigInt, _>(partner_id.0)
    .bind::<Text, _>(event_id.as_str())
    .get_result(connection)
    .await
    .optional()?;
    Ok(row.map(|row| Known {
        event_key: EventKey(row.event_key),
        content_hash: row.content_hash,
        recorded: row.recorded,
    }))
}
