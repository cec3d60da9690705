//! Whether the neighbours are there: asks Postgres every two seconds, follows the state of RabbitMQ, and writes both to
//! the readiness probe. Starts the use of the database once it has all its tables.

use std::time::Duration;

use broker::Broker;
use runtime::probes::Check;
use runtime::{Backoff, Shutdown};
use store::{Store, migrations};

use crate::gateway::Database;

const PING_INTERVAL: Duration = Duration::from_secs(2);
/// A Postgres that says nothing for so long is away.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// RabbitMQ's state is looked at this often: a look costs nothing.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

pub async fn postgres(store: Store, database: Database, check: Check, shutdown: Shutdown) {
    let mut backoff = Backoff::default();
    loop {
        let pause = match look(&store, &database).await {
            Ok(()) => {
                check.ok();
                backoff.reset();
                PING_INTERVAL
            }
            Err(why) => {
                let pause = backoff.next_delay();
                tracing::warn!(why, retry_in = ?pause, "Postgres can't be used");
                check.failing(why);
                pause
            }
        };
        tokio::select! {
            () = shutdown.begun() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn look(store: &Store, database: &Database) -> Result<(), String> {
    let asked = async {
        if database.check().is_ok() {
            return store.ping().await.map(|()| 0);
        }
        let mut conn = store.get().await?;
        migrations::pending(&mut conn).await
    };
    match tokio::time::timeout(PING_TIMEOUT, asked).await {
        Ok(Ok(0)) => {
            database.seen();
            Ok(())
        }
        Ok(Ok(pending)) => Err(format!(
            "the database lacks {pending} migrations: run `management-api migrate`"
        )),
        Ok(Err(error)) => Err(runtime::exit::chain(&error)),
        Err(_elapsed) => Err(format!("no answer within {} s", PING_TIMEOUT.as_secs())),
    }
}

pub async fn rabbitmq(broker: Broker, check: Check, shutdown: Shutdown) {
    loop {
        let state = broker.state();
        if state.is_ready() {
            check.ok();
        } else {
            check.failing(state.to_string());
        }
        tokio::select! {
            () = shutdown.begun() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}
