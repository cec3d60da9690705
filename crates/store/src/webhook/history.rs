//! What a webhook was, change by change: the audit log, and the answer to "why did I not get it?".

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Timestamptz};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::id::WebhookId;
use serde_json::Value;

use super::change::ChangeKind;
use crate::error::StoreError;

/// One change of a webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// The version that the change made.
    pub version: i32,
    pub change: ChangeKind,
    /// What a partner can set, before and after, as a JSON object; `None` before the first and after the last.
    pub before: Option<Value>,
    pub after: Option<Value>,
    /// Who: `api_key:ID`, `hookctl`, `dispatcher`, `retry`.
    pub actor: String,
    pub at: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = Text)]
    change: String,
    #[diesel(sql_type = Nullable<Text>)]
    before: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    after: Option<String>,
    #[diesel(sql_type = Text)]
    actor: String,
    #[diesel(sql_type = Timestamptz)]
    at: DateTime<Utc>,
}

/// The last `limit` changes of a webhook, newest first; also of a deleted one.
///
/// # Errors
/// Those of any query.
pub async fn history(
    conn: &mut AsyncPgConnection,
    id: WebhookId,
    limit: u32,
) -> Result<Vec<Version>, StoreError> {
    let rows: Vec<Row> = sql_query(
        "SELECT version, change, before::text AS before, after::text AS after, actor, at
         FROM webhook_versions
         WHERE webhook_id = $1
         ORDER BY version DESC
         LIMIT $2",
    )
    .bind::<BigInt, _>(id.0)
    .bind::<BigInt, _>(i64::from(limit))
    .load(conn)
    .await?;
    rows.into_iter().map(|row| read(id, row)).collect()
}

fn read(id: WebhookId, row: Row) -> Result<Version, StoreError> {
    let corrupt = |what: &str| {
        StoreError::Corrupt(format!("version {} of webhook {id}: {what}", row.version))
    };
    let json = |text: Option<String>| {
        text.map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|_| corrupt("no JSON"))
    };
    Ok(Version {
        version: row.version,
        change: ChangeKind::parse(&row.change).ok_or_else(|| corrupt("an unknown change"))?,
        before: json(row.before)?,
        after: json(row.after)?,
        actor: row.actor,
        at: row.at,
    })
}
