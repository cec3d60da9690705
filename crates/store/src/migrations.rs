//! Brings a database up to date. Run by `management-api migrate` and by tests; any number of them may run at once.

use diesel::migration::MigrationSource;
use diesel::pg::Pg;
use diesel::sql_types::{Bool, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};

use crate::error::{Cause, StoreError};
use crate::partition;
use crate::pool::{InvalidConfig, Store};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// Days after today whose partitions exist after a run.
pub const PARTITION_DAYS_AHEAD: u32 = 7;

#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a migration failed")]
    Failed(#[source] Cause),
    #[error("the task that runs migrations failed")]
    Task(#[from] tokio::task::JoinError),
}

impl From<diesel::result::Error> for MigrationError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Runs what was not run yet, makes the partitions of today and the next days, and returns the names of the
/// migrations that it ran.
///
/// # Errors
/// [`MigrationError::Store`] with [`StoreError::Unavailable`] where Postgres does not answer; all others are final.
pub async fn run(store: &Store) -> Result<Vec<String>, MigrationError> {
    let mut session = store.session().await?;
    // Changing a table may take longer than a statement of a service, and whoever comes second waits for the first.
    session
        .batch_execute("SET statement_timeout = 0; SET lock_timeout = 0;")
        .await?;
    sql_query("SELECT pg_advisory_lock(hashtext('migrations'))")
        .execute(&mut session)
        .await?;
    // Diesel's harness blocks its thread, which a runtime's own threads must not do.
    let (ran, mut session) = tokio::task::spawn_blocking(move || {
        let mut session: AsyncConnectionWrapper<_> = session.into();
        let ran = session
            .run_pending_migrations(MIGRATIONS)
            .map(|versions| versions.iter().map(ToString::to_string).collect());
        (ran, session.into_inner())
    })
    .await?;
    let ran = ran.map_err(MigrationError::Failed)?;
    partition::create(&mut session, PARTITION_DAYS_AHEAD).await?;
    Ok(ran)
}

#[derive(QueryableByName)]
struct Present {
    #[diesel(sql_type = Bool)]
    present: bool,
}

#[derive(QueryableByName)]
struct Applied {
    #[diesel(sql_type = Text)]
    version: String,
}

/// How many of this program's migrations the database lacks. A service waits until there are none; migrations that
/// only a newer program knows don't count.
///
/// # Errors
/// Those of any query.
pub async fn pending(conn: &mut AsyncPgConnection) -> Result<usize, StoreError> {
    let table =
        sql_query("SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS present")
            .get_result::<Present>(conn)
            .await?;
    let applied = if table.present {
        sql_query("SELECT version FROM __diesel_schema_migrations")
            .load::<Applied>(conn)
            .await?
    } else {
        Vec::new()
    };
    let known = MigrationSource::<Pg>::migrations(&MIGRATIONS)
        .map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let lacks = |version: String| applied.iter().all(|row| row.version != version);
    Ok(known
        .iter()
        .filter(|migration| lacks(migration.name().version().to_string()))
        .count())
}
