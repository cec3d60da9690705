//! Plain SQL, for what tests look up or break behind the back of the crate `store`.

use tokio::task::JoinSet;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Client, Error, NoTls, Row};

/// One connection.
pub struct Sql {
    client: Client,
    _connection: JoinSet<()>,
}

impl Sql {
    /// # Panics
    /// When PostgreSQL does not let us in.
    pub async fn connect(url: &str) -> Self {
        Self::try_connect(url).await.expect("PostgreSQL answers")
    }

    /// # Errors
    /// When PostgreSQL does not let us in.
    pub async fn try_connect(url: &str) -> Result<Self, Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // How it ended is told to whoever asks next.
            let _ended = connection.await;
        });
        Ok(Self {
            client,
            _connection: driver,
        })
    }

    /// Any number of statements without arguments.
    pub async fn execute(&self, statements: &str) {
        self.try_execute(statements).await.unwrap();
    }

    /// [`Self::execute`] for what may fail.
    ///
    /// # Errors
    /// Those of Postgres.
    pub async fn try_execute(&self, statements: &str) -> Result<(), Error> {
        self.client.batch_execute(statements).await
    }

    /// One statement with arguments; returns the number of rows that it changed.
    pub async fn run(&self, statement: &str, arguments: &[&(dyn ToSql + Sync)]) -> u64 {
        self.client.execute(statement, arguments).await.unwrap()
    }

    pub async fn rows(&self, query: &str, arguments: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        self.client.query(query, arguments).await.unwrap()
    }

    /// The first column of every row.
    pub async fn column<T: FromSqlOwned>(&self, query: &str) -> Vec<T> {
        let rows = self.rows(query, &[]).await;
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The only value of the only row.
    pub async fn value<T: FromSqlOwned>(&self, query: &str) -> T {
        self.value_of(query, &[]).await
    }

    /// [`Self::value`] with arguments.
    pub async fn value_of<T: FromSqlOwned>(
        &self,
        query: &str,
        arguments: &[&(dyn ToSql + Sync)],
    ) -> T {
        self.client
            .query_one(query, arguments)
            .await
            .unwrap()
            .get(0)
    }

    /// How many rows a table has, or those of it that `condition` names.
    pub async fn count(&self, table_and_condition: &str) -> i64 {
        self.value(&format!("SELECT count(*) FROM {table_and_condition}"))
            .await
    }
}
