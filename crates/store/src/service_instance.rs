//! Which processes are alive.
//!
//! Each service writes its row of `service_instances` every few seconds and deletes it at its end; `hookctl status` and
//! alerts read them, and breakers of dispatchers that are gone are forgotten by them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bool, Double, Text, Timestamptz};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use crate::error::StoreError;

/// A process's sign of life.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat<'a> {
    /// Unique for each start of a process.
    pub instance: &'a str,
    pub service: &'a str,
    pub version: &'a str,
    pub ready: bool,
    /// What it waits for while it is not ready, for people.
    pub detail: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct ServiceInstance {
    #[diesel(sql_type = Text)]
    pub instance: String,
    #[diesel(sql_type = Text)]
    pub service: String,
    #[diesel(sql_type = Text)]
    pub version: String,
    #[diesel(sql_type = Timestamptz)]
    pub started_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    pub heartbeat_at: DateTime<Utc>,
    #[diesel(sql_type = Bool)]
    pub ready: bool,
    #[diesel(sql_type = Text)]
    pub detail: String,
}

/// # Errors
/// Those of any query.
pub async fn heartbeat(
    conn: &mut AsyncPgConnection,
    heartbeat: &Heartbeat<'_>,
) -> Result<(), StoreError> {
    sql_query(
        "INSERT INTO service_instances (instance, service, version, ready, detail)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (instance) DO UPDATE
         SET heartbeat_at = now(), ready = excluded.ready, detail = excluded.detail",
    )
    .bind::<Text, _>(heartbeat.instance)
    .bind::<Text, _>(heartbeat.service)
    .bind::<Text, _>(heartbeat.version)
    .bind::<Bool, _>(heartbeat.ready)
    .bind::<Text, _>(heartbeat.detail)
    .execute(conn)
    .await?;
    Ok(())
}

/// Those that gave a sign of life in the last `within`, by service and start.
///
/// # Errors
/// Those of any query.
pub async fn alive(
    conn: &mut AsyncPgConnection,
    within: Duration,
) -> Result<Vec<ServiceInstance>, StoreError> {
    let instances = sql_query(
        "SELECT instance, service, version, started_at, heartbeat_at, ready, detail
         FROM service_instances
         WHERE heartbeat_at > now() - make_interval(secs => $1)
         ORDER BY service, started_at, instance",
    )
    .bind::<Double, _>(within.as_secs_f64())
    .load(conn)
    .await?;
    Ok(instances)
}

/// Called by a process at its end.
///
/// # Errors
/// Those of any query.
pub async fn remove(conn: &mut AsyncPgConnection, instance: &str) -> Result<(), StoreError> {
    sql_query("DELETE FROM service_instances WHERE instance = $1")
        .bind::<Text, _>(instance)
        .execute(conn)
        .await?;
    Ok(())
}

/// Deletes those that have been silent for longer than `silent`, and returns how many it were.
///
/// # Errors
/// Those of any query.
pub async fn trim(conn: &mut AsyncPgConnection, silent: Duration) -> Result<usize, StoreError> {
    let trimmed = sql_query(
        "DELETE FROM service_instances
         WHERE instance IN (
             SELECT instance FROM service_instances
             WHERE heartbeat_at < now() - make_interval(secs => $1)
             FOR UPDATE SKIP LOCKED
         )",
    )
    .bind::<Double, _>(silent.as_secs_f64())
    .execute(conn)
    .await?;
    Ok(trimmed)
}
