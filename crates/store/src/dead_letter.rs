//! Where the line ends: rejected events, and messages that nobody could handle, as rows for people.
//!
//! The retry service moves messages from the queues `rejected` and `dead` into `dead_letters`, and trims it; where the
//! broker refuses a rejected event, the dispatcher writes the row itself. `hookctl` lists rows, sends them again
//! ([`load`], publish, [`remove`] once the broker has confirmed) and drops them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Binary, Double, Nullable, Text, Timestamptz};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use crate::error::StoreError;

/// Longest text of a row in bytes; publishers fill these fields with what they like.
const TEXT_BYTES_MAX: usize = 1024;

/// Which queue a message ended in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    /// Events that can't be used.
    Rejected,
    /// Messages that came back too often, and references without a row.
    Dead,
}

impl Line {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Dead => "dead",
        }
    }
}

/// A message to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDeadLetter {
    pub line: Line,
    /// Ours; a message that is moved twice stays one row.
    pub message_id: Option<String>,
    pub code: String,
    /// A sentence.
    pub reason: String,
    /// Where to send it again.
    pub exchange: String,
    pub routing_key: String,
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub partner_id: Option<String>,
    pub app_id: Option<String>,
    pub content_type: Option<String>,
    pub traceparent: Option<String>,
    pub tracestate: Option<String>,
    pub body: Vec<u8>,
}

/// A row without its body.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct Summary {
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    #[diesel(sql_type = Text)]
    pub code: String,
    #[diesel(sql_type = Text)]
    pub reason: String,
    #[diesel(sql_type = Text)]
    pub exchange: String,
    #[diesel(sql_type = Text)]
    pub routing_key: String,
    #[diesel(sql_type = Nullable<Text>)]
    pub event_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub event_type: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub partner_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub app_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub content_type: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub traceparent: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub tracestate: Option<String>,
    #[diesel(sql_type = BigInt)]
    pub body_bytes: i64,
    #[diesel(sql_type = Timestamptz)]
    pub at: DateTime<Utc>,
}

/// A row to be sent again.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct DeadLetter {
    #[diesel(embed)]
    pub summary: Summary,
    #[diesel(sql_type = Binary)]
    pub body: Vec<u8>,
}

/// Keeps messages, and returns how many were not there yet. Texts are cut to 1 KiB and rid of U+0000, the body is kept
/// as it came.
///
/// # Errors
/// Those of any query.
pub async fn insert(
    conn: &mut AsyncPgConnection,
    letters: &[NewDeadLetter],
) -> Result<usize, StoreError> {
    let text = |field: fn(&NewDeadLetter) -> &String| -> Vec<String> {
        letters
            .iter()
            .map(|letter| storable(field(letter)))
            .collect()
    };
    let optional = |field: fn(&NewDeadLetter) -> &Option<String>| -> Vec<Option<String>> {
        letters
            .iter()
            .map(|letter| field(letter).as_deref().map(storable))
            .collect()
    };
    let inserted = sql_query(
        "INSERT INTO dead_letters (line, message_id, code, reason, exchange, routing_key, event_id, event_type,
                                   partner_id, app_id, content_type, traceparent, tracestate, body)
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         ON CONFLICT (message_id) DO NOTHING",
    )
    .bind::<Array<Text>, _>(letters.iter().map(|l| l.line.as_str()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(optional(|l| &l.message_id))
    .bind::<Array<Text>, _>(text(|l| &l.code))
    .bind::<Array<Text>, _>(text(|l| &l.reason))
    .bind::<Array<Text>, _>(text(|l| &l.exchange))
    .bind::<Array<Text>, _>(text(|l| &l.routing_key))
    .bind::<Array<Nullable<Text>>, _>(optional(|l| &l.event_id))
    .bind::<Array<Nullable<Text>>, _>(optional(|l| &l.event_type))
    .bind::<Array<Nullable<Text>>, _>(optional(|l| &l.partner_id))
    .bind::<Array<Nullable<Text>>, _>(optional(|l| &l.app_id))
    .bind::<Array<Nullable<Text>>, _>(optional(|l| &l.content_type))
    .bind::<Array<Nullable<Text>>, _>(optional(|l| &l.traceparent))
    .bind::<Array<Nullable<Text>>, _>(optional(|l| &l.tracestate))
    .bind::<Array<Binary>, _>(letters.iter().map(|l| l.body.as_slice()).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(inserted)
}

/// Postgres takes any text but U+0000.
fn storable(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    text.get(..end)
        .unwrap_or_default()
        .replace('\0', "\u{fffd}")
}

/// The columns of [`Summary`].
macro_rules! summary_columns {
    () => {
        "id, code, reason, exchange, routing_key, event_id, event_type, partner_id, app_id, content_type, \
         traceparent, tracestate, octet_length(body)::bigint AS body_bytes, at"
    };
}

/// Up to `limit` rows of a line, newest first, those with an id below `before`.
///
/// # Errors
/// Those of any query.
pub async fn list(
    conn: &mut AsyncPgConnection,
    line: Line,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<Summary>, StoreError> {
    let rows = sql_query(concat!(
        "SELECT ",
        summary_columns!(),
        " FROM dead_letters WHERE line = $1 AND id < $2 ORDER BY id DESC LIMIT $3"
    ))
    .bind::<Text, _>(line.as_str())
    .bind::<BigInt, _>(before.unwrap_or(i64::MAX))
    .bind::<BigInt, _>(i64::from(limit))
    .load(conn)
    .await?;
    Ok(rows)
}

/// Rows of a line that came after the row `after`, of events published in one trace, in the order of their ids.
///
/// # Errors
/// Those of any query.
pub async fn of_trace(
    conn: &mut AsyncPgConnection,
    line: Line,
    after: i64,
    traceparent: &str,
) -> Result<Vec<Summary>, StoreError> {
    let rows = sql_query(concat!(
        "SELECT ",
        summary_columns!(),
        " FROM dead_letters WHERE line = $1 AND id > $2 AND traceparent = $3 ORDER BY id LIMIT 100"
    ))
    .bind::<Text, _>(line.as_str())
    .bind::<BigInt, _>(after)
    .bind::<Text, _>(traceparent)
    .load(conn)
    .await?;
    Ok(rows)
}

/// Rows with their bodies, in the order of their ids, to be sent again. Ids that the line lacks are left out.
///
/// # Errors
/// Those of any query.
pub async fn load(
    conn: &mut AsyncPgConnection,
    line: Line,
    ids: &[i64],
) -> Result<Vec<DeadLetter>, StoreError> {
    let rows = sql_query(concat!(
        "SELECT ",
        summary_columns!(),
        ", body FROM dead_letters WHERE line = $1 AND id = ANY($2) ORDER BY id"
    ))
    .bind::<Text, _>(line.as_str())
    .bind::<Array<BigInt>, _>(ids)
    .load(conn)
    .await?;
    Ok(rows)
}

/// Deletes rows that were sent again, or that nobody wants, and returns how many it were.
///
/// # Errors
/// Those of any query.
pub async fn remove(
    conn: &mut AsyncPgConnection,
    line: Line,
    ids: &[i64],
) -> Result<usize, StoreError> {
    let removed = sql_query("DELETE FROM dead_letters WHERE line = $1 AND id = ANY($2)")
        .bind::<Text, _>(line.as_str())
        .bind::<Array<BigInt>, _>(ids)
        .execute(conn)
        .await?;
    Ok(removed)
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// How many rows a line has.
///
/// # Errors
/// Those of any query.
pub async fn count(conn: &mut AsyncPgConnection, line: Line) -> Result<u64, StoreError> {
    let row: CountRow = sql_query("SELECT count(*) AS count FROM dead_letters WHERE line = $1")
        .bind::<Text, _>(line.as_str())
        .get_result(conn)
        .await?;
    Ok(u64::try_from(row.count).unwrap_or(0))
}

/// Deletes up to `limit` rows of a line that are older than `age_max`, or beyond the newest `bytes_max` of bodies,
/// and returns how many it were. A row counts with 1 KiB more than its body.
///
/// # Errors
/// Those of any query.
pub async fn trim(
    conn: &mut AsyncPgConnection,
    line: Line,
    age_max: Duration,
    bytes_max: u64,
    limit: u32,
) -> Result<usize, StoreError> {
    let trimmed = sql_query(
        "DELETE FROM dead_letters
         WHERE id IN (
             SELECT id
             FROM (
                 SELECT id, at, sum(octet_length(body) + 1024) OVER (ORDER BY id DESC) AS bytes
                 FROM dead_letters
                 WHERE line = $1
             ) AS rows
             WHERE at < now() - make_interval(secs => $2) OR bytes > $3
             ORDER BY id
             LIMIT $4
         )",
    )
    .bind::<Text, _>(line.as_str())
    .bind::<Double, _>(age_max.as_secs_f64())
    .bind::<BigInt, _>(i64::try_from(bytes_max).unwrap_or(i64::MAX))
    .bind::<BigInt, _>(i64::from(limit))
    .execute(conn)
    .await?;
    Ok(trimmed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_rid_of_nul() {
        assert_eq!(storable("a\0b"), "a\u{fffd}b");
        let long = format!("{}é", "x".repeat(TEXT_BYTES_MAX - 1));
        assert_eq!(storable(&long), "x".repeat(TEXT_BYTES_MAX - 1));
    }
}
