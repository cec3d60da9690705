//! Partitions by day of `events`, `deliveries` and `attempts`: made ahead of time, dropped when their time is over.
//!
//! `migrate` and the retry service make them; the retry service drops them. A day is dropped in two statements, each
//! of which stands alone: the partition is detached without stopping anyone, then dropped. What a crash leaves between
//! the two (a detach under way, or a table on its own) is found and finished by the next run.

use chrono::NaiveDate;
use diesel::sql_types::{Bool, Date, Integer, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};

use crate::error::StoreError;
use crate::pool::Store;

/// How long rows are kept, in whole days after the day (in UTC) in which they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days that events are kept, with their bodies.
    pub events_days: u32,
    /// Days that deliveries and their attempts are kept.
    pub deliveries_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            events_days: 7,
            deliveries_days: 30,
        }
    }
}

/// What a run of [`drop_expired`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Tables that are gone now.
    pub tables: Vec<String>,
    /// Tables whose time is over, kept because of deliveries that are not final.
    pub kept: Vec<String>,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = Integer)]
    number: i32,
}

/// Makes the partitions of today and of `days_ahead` days after it, and returns how many were missing.
///
/// # Errors
/// [`StoreError::Transient`] where another session holds the tables too long.
pub async fn create(conn: &mut AsyncPgConnection, days_ahead: u32) -> Result<u32, StoreError> {
    let made = sql_query("SELECT create_partitions($1) AS number")
        .bind::<Integer, _>(i32::try_from(days_ahead).unwrap_or(i32::MAX))
        .get_result::<Number>(conn)
        .await?;
    Ok(u32::try_from(made.number).unwrap_or(0))
}

/// How many days after today have all their partitions, without a gap. 0 also when today itself has not.
///
/// # Errors
/// Those of any query.
pub async fn days_ahead(conn: &mut AsyncPgConnection) -> Result<u32, StoreError> {
    let covered = sql_query(
        "WITH days AS (
             SELECT to_date(right(child.relname, 8), 'YYYYMMDD') AS day
             FROM pg_inherits
             JOIN pg_class child ON child.oid = inhrelid
             WHERE inhparent IN ('events'::regclass, 'deliveries'::regclass, 'attempts'::regclass)
               AND child.relname ~ '_[0-9]{8}$'
             GROUP BY 1
             HAVING count(*) = 3
         ),
         numbered AS (
             SELECT day - (clock_timestamp() AT TIME ZONE 'UTC')::date AS ahead,
                    row_number() OVER (ORDER BY day) - 1 AS place
             FROM days
             WHERE day >= (clock_timestamp() AT TIME ZONE 'UTC')::date
         )
         SELECT coalesce(max(ahead), 0)::integer AS number FROM numbered WHERE ahead = place",
    )
    .get_result::<Number>(conn)
    .await?;
    Ok(u32::try_from(covered.number).unwrap_or(0))
}

/// A table whose time is over.
#[derive(QueryableByName)]
struct Expired {
    #[diesel(sql_type = Text)]
    parent: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Date)]
    day: NaiveDate,
    #[diesel(sql_type = Bool)]
    attached: bool,
    #[diesel(sql_type = Bool)]
    detach_pending: bool,
}

#[derive(QueryableByName)]
struct Flag {
    #[diesel(sql_type = Bool)]
    flag: bool,
}

/// Drops the days whose time is over, except those with a delivery that is not final. Takes a session of its own, since
/// a detach must be outside of any transaction and takes as long as the transactions that it waits for. Where
/// another process is at it already, nothing happens.
///
/// # Errors
/// [`StoreError::Transient`] where a table was in use for too long; the next run goes on from there.
pub async fn drop_expired(store: &Store, retention: Retention) -> Result<Dropped, StoreError> {
    let mut session = store.session().await?;
    let alone = sql_query("SELECT pg_try_advisory_lock(hashtext('drop_expired')) AS flag")
        .get_result::<Flag>(&mut session)
        .await?;
    let mut dropped = Dropped::default();
    if !alone.flag {
        return Ok(dropped);
    }
    for table in expired(&mut session, retention).await? {
        if is_needed(&mut session, &table).await? {
            dropped.kept.push(table.name);
        } else {
            drop_table(&mut session, &table).await?;
            dropped.tables.push(table.name);
        }
    }
    Ok(dropped)
}

/// A detach under way comes first of its parent, since it keeps every other from starting.
async fn expired(
    conn: &mut AsyncPgConnection,
    retention: Retention,
) -> Result<Vec<Expired>, StoreError> {
    let days = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let tables = sql_query(
        "SELECT parent, name, day, attached, detach_pending
         FROM (
             SELECT substring(relname FROM '^(events|deliveries|attempts)_[0-9]{8}$') AS parent,
                    relname::text AS name,
                    to_date(right(relname, 8), 'YYYYMMDD') AS day,
                    inhrelid IS NOT NULL AS attached,
                    coalesce(inhdetachpending, false) AS detach_pending
             FROM pg_class
             LEFT JOIN pg_inherits ON inhrelid = oid
             WHERE relkind = 'r' AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass)
         ) AS tables
         WHERE parent IS NOT NULL
           AND day < (clock_timestamp() AT TIME ZONE 'UTC')::date
               - CASE parent WHEN 'events' THEN $1 ELSE $2 END
         ORDER BY detach_pending DESC, day, parent",
    )
    .bind::<Integer, _>(days(retention.events_days))
    .bind::<Integer, _>(days(retention.deliveries_days))
    .load(conn)
    .await?;
    Ok(tables)
}

/// Whether a delivery that is not final needs the table. One that is no longer attached was asked about before.
async fn is_needed(conn: &mut AsyncPgConnection, table: &Expired) -> Result<bool, StoreError> {
    if !table.attached || table.detach_pending {
        return Ok(false);
    }
    let column = if table.parent == "events" {
        "event_key"
    } else {
        "id"
    };
    let flag = sql_query(format!(
        "SELECT EXISTS (
             SELECT FROM deliveries
             WHERE next_attempt_at IS NOT NULL
               AND {column} >= uuid_v7_floor($1) AND {column} < uuid_v7_floor($1 + 1)
         ) AS flag"
    ))
    .bind::<Date, _>(table.day)
    .get_result::<Flag>(conn)
    .await?;
    Ok(flag.flag)
}

/// Names come from the catalogue and match a pattern without anything that needs quotes.
async fn drop_table(conn: &mut AsyncPgConnection, table: &Expired) -> Result<(), StoreError> {
    let Expired { parent, name, .. } = table;
    if table.attached {
        let how = if table.detach_pending {
            "FINALIZE"
        } else {
            "CONCURRENTLY"
        };
        conn.batch_execute(&format!(
            "ALTER TABLE {parent} DETACH PARTITION {name} {how}"
        ))
        .await?;
    }
    conn.batch_execute(&format!("DROP TABLE {name}")).await?;
    Ok(())
}
