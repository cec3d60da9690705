//! Keys for the public API.
//!
//! Reads and writes `api_keys`. `hookctl` makes, lists and revokes them; the management API asks for one at each
//! request, by the SHA-256 of what the caller sent. The key itself is never stored.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{Array, BigInt, Binary, Bool, Double, Nullable, Text, Timestamptz};
use diesel::{OptionalExtension as _, QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::id::PartnerId;
use domain::plan::Plan;

use crate::error::StoreError;
use crate::partner::read_plan;

/// SHA-256 of a whole key.
pub type KeyHash = [u8; 32];

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Read,
    Write,
}

impl Scope {
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no scope: read or write")]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

#[derive(Clone, Copy, Debug)]
pub struct NewApiKey<'a> {
    pub partner_id: PartnerId,
    /// The first characters, by which a person recognises it.
    pub prefix: &'a str,
    pub hash: &'a KeyHash,
    pub scopes: &'a [Scope],
    /// `None` for a key that does not expire.
    pub expires_in: Option<Duration>,
}

/// A key as a person may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub id: i64,
    pub partner_id: PartnerId,
    pub prefix: String,
    pub scopes: Vec<Scope>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    /// Correct to a minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    partner_id: i64,
    #[diesel(sql_type = Text)]
    prefix: String,
    #[diesel(sql_type = Array<Text>)]
    scopes: Vec<String>,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expires_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    revoked_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    last_used_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for ApiKey {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            partner_id: PartnerId(row.partner_id),
            prefix: row.prefix,
            scopes: read_scopes(row.id, &row.scopes)?,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        })
    }
}

fn read_scopes(key: i64, stored: &[String]) -> Result<Vec<Scope>, StoreError> {
    stored
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()
        .map_err(|error: UnknownScope| StoreError::Corrupt(format!("API key {key}: {error}")))
}

/// Stores a key; `None` where there is no such partner.
///
/// # Errors
/// Those of any query.
pub async fn create(
    conn: &mut AsyncPgConnection,
    new: &NewApiKey<'_>,
) -> Result<Option<ApiKey>, StoreError> {
    let row: Result<Row, Error> = sql_query(
        "INSERT INTO api_keys (partner_id, prefix, hash, scopes, expires_at)
         VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))
         RETURNING id, partner_id, prefix, scopes, created_at, expires_at, revoked_at, last_used_at",
    )
    .bind::<BigInt, _>(new.partner_id.0)
    .bind::<Text, _>(new.prefix)
    .bind::<Binary, _>(new.hash.as_slice())
    .bind::<Array<Text>, _>(new.scopes.iter().map(|s| s.as_str()).collect::<Vec<_>>())
    .bind::<Nullable<Double>, _>(new.expires_in.map(|t| t.as_secs_f64()))
    .get_result(conn)
    .await;
    match row {
        Ok(row) => row.try_into().map(Some),
        Err(Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All keys of a partner, or of all partners, in the order of their ids, at most `limit`.
///
/// # Errors
/// Those of any query.
pub async fn list(
    conn: &mut AsyncPgConnection,
    partner: Option<PartnerId>,
    limit: u32,
) -> Result<Vec<ApiKey>, StoreError> {
    let rows: Vec<Row> = sql_query(
        "SELECT id, partner_id, prefix, scopes, created_at, expires_at, revoked_at, last_used_at
         FROM api_keys
         WHERE $1 IS NULL OR partner_id = $1
         ORDER BY id
         LIMIT $2",
    )
    .bind::<Nullable<BigInt>, _>(partner.map(|p| p.0))
    .bind::<BigInt, _>(i64::from(limit))
    .load(conn)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Revokes a key; `None` where there is no such key. Revoking twice keeps the first time.
///
/// # Errors
/// Those of any query.
pub async fn revoke(conn: &mut AsyncPgConnection, id: i64) -> Result<Option<ApiKey>, StoreError> {
    sql_query(
        "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now())
         WHERE id = $1
         RETURNING id, partner_id, prefix, scopes, created_at, expires_at, revoked_at, last_used_at",
    )
    .bind::<BigInt, _>(id)
    .get_result::<Row>(conn)
    .await
    .optional()?
    .map(TryInto::try_into)
    .transpose()
}

/// Whether a known key can still be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    Valid,
    Expired,
    Revoked,
}

/// Whose key it is, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    pub key_id: i64,
    pub state: KeyState,
    pub scopes: Vec<Scope>,
    pub partner_id: PartnerId,
    pub partner_name: String,
    pub plan: Plan,
    pub suspended: bool,
    /// Whether [`touch`] is due: its last use was noted a minute ago or longer.
    pub touch_due: bool,
}

#[derive(QueryableByName)]
struct AuthenticatedRow {
    #[diesel(sql_type = BigInt)]
    key_id: i64,
    #[diesel(sql_type = Bool)]
    expired: bool,
    #[diesel(sql_type = Bool)]
    revoked: bool,
    #[diesel(sql_type = Array<Text>)]
    scopes: Vec<String>,
    #[diesel(sql_type = BigInt)]
    partner_id: i64,
    #[diesel(sql_type = Text)]
    partner_name: String,
    #[diesel(sql_type = Text)]
    plan: String,
    #[diesel(sql_type = Bool)]
    suspended: bool,
    #[diesel(sql_type = Bool)]
    touch_due: bool,
}

/// Finds a key by its hash; `None` where nobody has it.
///
/// # Errors
/// Those of any query.
pub async fn authenticate(
    conn: &mut AsyncPgConnection,
    hash: &KeyHash,
) -> Result<Option<Authenticated>, StoreError> {
    let row: Option<AuthenticatedRow> = sql_query(
        "SELECT k.id AS key_id, coalesce(k.expires_at <= now(), false) AS expired,
                k.revoked_at IS NOT NULL AS revoked, k.scopes, k.partner_id, p.name AS partner_name, p.plan,
                p.suspended_at IS NOT NULL AS suspended,
                coalesce(k.last_used_at <= now() - interval '1 minute', true) AS touch_due
         FROM api_keys k
         JOIN partners p ON p.id = k.partner_id
         WHERE k.hash = $1",
    )
    .bind::<Binary, _>(hash.as_slice())
    .get_result(conn)
    .await
    .optional()?;
    let Some(row) = row else { return Ok(None) };
    let state = match (row.revoked, row.expired) {
        (true, _) => KeyState::Revoked,
        (false, true) => KeyState::Expired,
        (false, false) => KeyState::Valid,
    };
    Ok(Some(Authenticated {
        key_id: row.key_id,
        state,
        scopes: read_scopes(row.key_id, &row.scopes)?,
        partner_id: PartnerId(row.partner_id),
        plan: read_plan(row.partner_id, &row.plan)?,
        partner_name: row.partner_name,
        suspended: row.suspended,
        touch_due: row.touch_due,
    }))
}

/// Notes that a key was used, once a minute at most however often it is called. Where another request is at it,
/// nothing is waited for.
///
/// # Errors
/// Those of any query.
pub async fn touch(conn: &mut AsyncPgConnection, key_id: i64) -> Result<(), StoreError> {
    sql_query(
        "UPDATE api_keys SET last_used_at = now()
         WHERE id = (
             SELECT id FROM api_keys
             WHERE id = $1 AND coalesce(last_used_at <= now() - interval '1 minute', true)
             FOR NO KEY UPDATE SKIP LOCKED
         )",
    )
    .bind::<BigInt, _>(key_id)
    .execute(conn)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_is_found_by_its_word() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert!("admin".parse::<Scope>().is_err());
    }
}
