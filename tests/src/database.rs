//! A database of its own for each test, cloned from a template that has all migrations.
//!
//! Dropped with the value, also with clients still connected. What crashed runs left is dropped by the first test of a
//! later process.

mod sql;
mod template;

use tokio::sync::OnceCell;
use tokio_postgres::error::SqlState;

use crate::{ending, owner};

pub use sql::Sql;

/// Names of tests' databases begin with it.
const PREFIX: &str = "test";
/// A template may be replaced between our look at it and the clone.
const TRIES: usize = 10;

pub struct Database {
    name: String,
    server_url: String,
    /// Nothing is dropped where the whole server is thrown away.
    dropped_at_the_end: bool,
}

impl Database {
    /// A migrated database on the server of the test run.
    pub async fn create() -> Self {
        Self::create_at(&server_url()).await
    }

    /// A migrated database on any server.
    pub async fn create_at(server_url: &str) -> Self {
        let admin = Sql::connect(server_url).await;
        drop_orphans(&admin).await;
        let name = owner::new_name(PREFIX);
        for _ in 0..TRIES {
            let template = template::ensure(&admin, server_url).await;
            let clone = format!(r#"CREATE DATABASE "{name}" TEMPLATE "{template}""#);
            match admin.try_execute(&clone).await {
                Ok(()) => {
                    return Self {
                        name,
                        server_url: server_url.to_owned(),
                        dropped_at_the_end: true,
                    };
                }
                Err(error) if error.code() == Some(&SqlState::INVALID_CATALOG_NAME) => {}
                Err(error) => panic!("cannot clone {template}: {error:?}"),
            }
        }
        panic!("the template vanished {TRIES} times");
    }

    /// An empty database without any migration.
    pub async fn empty() -> Self {
        let server_url = server_url();
        let admin = Sql::connect(&server_url).await;
        let name = owner::new_name(PREFIX);
        admin.execute(&format!(r#"CREATE DATABASE "{name}""#)).await;
        Self {
            name,
            server_url,
            dropped_at_the_end: true,
        }
    }

    /// The database that a private server came with; it goes with its server. Migrated if `migrated`.
    pub async fn of_private_server(server_url: &str) -> Self {
        let (_, name) = server_url.rsplit_once('/').expect("a URL with a database");
        let database = Self {
            name: name.to_owned(),
            server_url: server_url.to_owned(),
            dropped_at_the_end: false,
        };
        store::migrations::run(&database.store()).await.unwrap();
        database
    }

    /// `postgres://user:password@host:port/name`
    #[must_use]
    pub fn url(&self) -> String {
        with_database(&self.server_url, &self.name)
    }

    /// A pool of our own crate `store`.
    #[must_use]
    pub fn store(&self) -> store::Store {
        let config = store::Config {
            url: self.url(),
            pool_size: 2,
            ..store::Config::default()
        };
        store::Store::connect(&config, "tests").unwrap()
    }

    /// Makes all three partitions of the day that was so many days ago.
    pub async fn make_day(&self, days_ago: i32) {
        let statements = format!(
            "DO $$
             DECLARE
                 day date := (now() AT TIME ZONE 'UTC')::date - {days_ago};
                 parent text;
             BEGIN
                 FOREACH parent IN ARRAY ARRAY['events', 'deliveries', 'attempts'] LOOP
                     EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                         parent || to_char(day, '_YYYYMMDD'), parent, uuid_v7_floor(day), uuid_v7_floor(day + 1));
                 END LOOP;
             END $$"
        );
        self.sql().await.execute(&statements).await;
    }

    /// A connection for plain SQL.
    pub async fn sql(&self) -> Sql {
        Sql::connect(&self.url()).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !self.dropped_at_the_end {
            return;
        }
        let drop = drop_statement(&self.name);
        ending::run(|| async {
            let admin = Sql::connect(&self.server_url).await;
            let _gone = admin.try_execute(&drop).await;
        });
    }
}

fn drop_statement(name: &str) -> String {
    format!(r#"DROP DATABASE IF EXISTS "{name}" WITH (FORCE)"#)
}

fn server_url() -> String {
    std::env::var("TEST_POSTGRES_URL")
        .expect("TEST_POSTGRES_URL is not set: run the tests with `make test`")
}

fn with_database(server_url: &str, name: &str) -> String {
    let (server, _) = server_url.rsplit_once('/').expect("a URL with a database");
    format!("{server}/{name}")
}

/// Once for this process. Two processes may be at it at once, so that a database may be gone already.
async fn drop_orphans(admin: &Sql) {
    static DONE: OnceCell<()> = OnceCell::const_new();
    DONE.get_or_init(async || {
        let names: Vec<String> = admin
            .column("SELECT datname::text FROM pg_database WHERE datname LIKE 'test\\_%'")
            .await;
        for name in names.iter().filter(|name| owner::is_orphan(PREFIX, name)) {
            let _gone = admin.try_execute(&drop_statement(name)).await;
        }
    })
    .await;
}
