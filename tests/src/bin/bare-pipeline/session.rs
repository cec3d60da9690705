//! A connection to PostgreSQL on which the tables are made.

use std::ops::Deref;

use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

pub struct Session {
    client: Client,
    _connection: JoinSet<()>,
}

impl Session {
    /// Runs `setup` first.
    pub async fn open(url: &str, setup: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async {
            let _ended = connection.await;
        });
        client.batch_execute(setup).await.unwrap();
        Self {
            client,
            _connection: driver,
        }
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}
