//! A connection to PostgreSQL, with its settings and tables made.

use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

pub struct Session {
    pub client: Client,
    _connection: JoinSet<()>,
}

impl Session {
    /// Runs `setup` first.
    pub async fn open(url: &str, setup: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async {
            connection.await.expect("the connection to PostgreSQL");
        });
        client.batch_execute(setup).await.unwrap();
        Self {
            client,
            _connection: driver,
        }
    }
}
