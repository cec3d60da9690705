//! Whether Postgres and RabbitMQ are there. Writes the readiness checks of both, and holds the loops that need
//! Postgres back until it is up and migrated.

use std::time::Duration;

use broker::Broker;
use runtime::Backoff;
use runtime::Shutdown;
use runtime::probes::Check;
use store::{Store, StoreError, migrations};
use tokio::sync::watch;

/// How often both are looked at while all is well.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Tells whether Postgres was there, migrated, when it was last looked at.
pub type PostgresIsUp = watch::Receiver<bool>;

/// Looks after Postgres until the service ends.
pub async fn watch_postgres(
    store: &Store,
    check: &Check,
    up: &watch::Sender<bool>,
    shutdown: &Shutdown,
) {
    let mut backoff = Backoff::default();
    let mut said = String::new();
    while !shutdown.has_begun() {
        let was_up = *up.borrow();
        let pause = match look(store, was_up).await {
            Ok(()) => {
                if !said.is_empty() {
                    tracing::info!("Postgres is there");
                    said.clear();
                }
                check.ok();
                up.send_replace(true);
                backoff.reset();
                LOOK_EVERY
            }
            Err(why) => {
                up.send_replace(false);
                let pause = backoff.next_delay();
                if why != said {
                    tracing::warn!(%why, retry_in = ?pause, "waiting for Postgres");
                    said.clone_from(&why);
                }
                check.failing(why);
                pause
            }
        };
        rest(pause, shutdown).await;
    }
}

/// A sign of life; and the schema, where it was not seen before.
async fn look(store: &Store, was_up: bool) -> Result<(), String> {
    let looking = async {
        store.ping().await?;
        if was_up {
            return Ok(0);
        }
        let mut connection = store.get().await?;
        migrations::pending(&mut connection).await
    };
    match looking.await {
        Ok(0) => Ok(()),
        Ok(pending) => Err(format!("{pending} migrations were not run yet")),
        Err::<_, StoreError>(error) => Err(runtime::exit::chain(&error)),
    }
}

/// Looks after RabbitMQ until the service ends. The broker's supervisor logs by itself.
pub async fn watch_rabbitmq(broker: &Broker, check: &Check, shutdown: &Shutdown) {
    while !shutdown.has_begun() {
        let state = broker.state();
        if state.is_ready() {
            check.ok();
        } else {
            check.failing(state.to_string());
        }
        rest(LOOK_EVERY, shutdown).await;
    }
}

/// Waits until Postgres is up; `false` when the service ends first.
pub async fn until_up(up: &PostgresIsUp, shutdown: &Shutdown) -> bool {
    let mut up = up.clone();
    tokio::select! {
        () = shutdown.begun() => false,
        up = up.wait_for(|up| *up) => up.is_ok(),
    }
}

async fn rest(pause: Duration, shutdown: &Shutdown) {
    tokio::select! {
        () = shutdown.begun() => {}
        () = tokio::time::sleep(pause) => {}
    }
}
