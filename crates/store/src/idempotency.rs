//! First answers to requests with an `Idempotency-Key`, so that the same request sent again is not carried out again.
//!
//! Reads and writes `idempotency_keys`. The management API calls [`begin`] as the first statement of the transaction
//! in which it carries the request out, and [`insert`] as the last: of two requests at once the second waits in
//! `begin` until the first has committed, and then finds its answer. Answers are sealed, since they may hold a secret.

use std::time::Duration;

use diesel::sql_types::{BigInt, Binary, Double, Integer, Text};
use diesel::{OptionalExtension as _, QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::id::PartnerId;

use crate::error::StoreError;
use crate::keyring::{Keyring, Sealed};

/// How long an answer is repeated.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);

/// SHA-256 of method, path and body.
pub type RequestHash = [u8; 32];

/// What was answered to the first request with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstAnswer {
    /// Of the first request; another one with the same key is a conflict.
    pub request_hash: RequestHash,
    pub status: u16,
    /// The body.
    pub answer: Vec<u8>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Binary)]
    request_hash: Vec<u8>,
    #[diesel(sql_type = Integer)]
    status: i32,
    #[diesel(sql_type = Binary)]
    answer: Vec<u8>,
    #[diesel(sql_type = Text)]
    sealing_key_id: String,
}

/// Reserves the key until the caller's transaction ends, and returns the first answer if there was one.
///
/// # Errors
/// [`StoreError::Transient`] when another request holds the key for too long, [`StoreError::Corrupt`] when the answer
/// can't be opened.
pub async fn begin(
    conn: &mut AsyncPgConnection,
    keyring: &Keyring,
    partner: PartnerId,
    key: &str,
) -> Result<Option<FirstAnswer>, StoreError> {
    sql_query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind::<Text, _>(format!("idempotency/{partner}/{key}"))
        .execute(conn)
        .await?;
    let row: Option<Row> = sql_query(
        "SELECT request_hash, status, answer, sealing_key_id FROM idempotency_keys
         WHERE partner_id = $1 AND key = $2 AND created_at > now() - make_interval(secs => $3)",
    )
    .bind::<BigInt, _>(partner.0)
    .bind::<Text, _>(key)
    .bind::<Double, _>(KEPT.as_secs_f64())
    .get_result(conn)
    .await
    .optional()?;
    row.map(|row| read(keyring, partner, key, row)).transpose()
}

fn read(
    keyring: &Keyring,
    partner: PartnerId,
    key: &str,
    row: Row,
) -> Result<FirstAnswer, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("an idempotent answer: {what}"));
    let sealed = Sealed {
        key_id: row.sealing_key_id,
        bytes: row.answer,
    };
    Ok(FirstAnswer {
        request_hash: row
            .request_hash
            .try_into()
            .map_err(|_| corrupt("the hash is not 32 bytes long"))?,
        status: u16::try_from(row.status).map_err(|_| corrupt("the status is no status"))?,
        answer: keyring.open(&context(partner, key), &sealed)?,
    })
}

/// Keeps the first answer, in the transaction that carried the request out.
///
/// # Errors
/// Those of any query.
pub async fn insert(
    conn: &mut AsyncPgConnection,
    keyring: &Keyring,
    partner: PartnerId,
    key: &str,
    first: &FirstAnswer,
) -> Result<(), StoreError> {
    let sealed = keyring.seal(&context(partner, key), &first.answer)?;
    // A row that is there already is older than KEPT.
    sql_query(
        "INSERT INTO idempotency_keys (partner_id, key, request_hash, status, answer, sealing_key_id)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (partner_id, key) DO UPDATE SET
             request_hash = excluded.request_hash, status = excluded.status, answer = excluded.answer,
             sealing_key_id = excluded.sealing_key_id, created_at = now()",
    )
    .bind::<BigInt, _>(partner.0)
    .bind::<Text, _>(key)
    .bind::<Binary, _>(first.request_hash.as_slice())
    .bind::<Integer, _>(i32::from(first.status))
    .bind::<Binary, _>(sealed.bytes)
    .bind::<Text, _>(sealed.key_id)
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes up to `limit` answers older than [`KEPT`], and returns how many it were.
///
/// # Errors
/// Those of any query.
pub async fn trim(conn: &mut AsyncPgConnection, limit: u32) -> Result<usize, StoreError> {
    let trimmed = sql_query(
        "DELETE FROM idempotency_keys
         WHERE (partner_id, key) IN (
             SELECT partner_id, key FROM idempotency_keys
             WHERE created_at <= now() - make_interval(secs => $1)
             ORDER BY created_at
             LIMIT $2
             FOR UPDATE SKIP LOCKED
         )",
    )
    .bind::<Double, _>(KEPT.as_secs_f64())
    .bind::<BigInt, _>(i64::from(limit))
    .execute(conn)
    .await?;
    Ok(trimmed)
}

fn context(partner: PartnerId, key: &str) -> Vec<u8> {
    format!("idempotent-answer/partner/{partner}/{key}").into_bytes()
}
