//! What every request is served with: connections, keys, rules and the doors to the background tasks. Built once by
//! `service`, shared by all workers, and never changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use broker::Publisher;
use domain::network::NetworkPolicy;
use runtime::Resolver;
use store::keyring::Keyring;
use store::{Store, StoreError};
use tokio::sync::Semaphore;

use crate::config::Api;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::relay::Wake;
use crate::test_desk::TestDesk;

/// How often a transaction that Postgres gave up (a deadlock, say) is run before the client hears of it.
const TRIES_MAX: u32 = 3;

pub struct Gateway {
    pub config: Api,
    pub store: Store,
    pub database: Database,
    pub keyring: Keyring,
    pub policy: NetworkPolicy,
    pub resolver: Resolver,
    pub publisher: Publisher,
    pub desk: TestDesk,
    /// Test calls that keep a connection to Postgres while they wait, because they hold an idempotency key.
    pub slow_calls: Semaphore,
    pub relay: Wake,
    pub metrics: Metrics,
}

/// Whether the database has been seen with all the tables that this program knows. Until then nothing is asked of it,
/// since the answers would be errors of ours.
#[derive(Clone, Debug, Default)]
pub struct Database {
    seen: Arc<AtomicBool>,
}

impl Database {
    /// From now on it is used.
    pub fn seen(&self) {
        self.seen.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// [`ApiError::Unavailable`] until it was seen.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.seen.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(ApiError::Unavailable("The service is starting.", None))
        }
    }
}

/// Does the work again while Postgres gives its transaction up.
///
/// # Errors
/// Those of the work.
pub async fn again<T>(
    mut work: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut tries = 1;
    loop {
        match work().await {
            Err(StoreError::Transient(error)) if tries < TRIES_MAX => {
                tracing::info!(%error, tries, "a transaction is run again");
                tries += 1;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transient() -> StoreError {
        StoreError::Transient("deadlock detected".into())
    }

    #[tokio::test]
    async fn a_transaction_that_was_given_up_is_run_again_but_not_for_ever() {
        let mut runs = 0;
        let result = again(async || {
            runs += 1;
            if runs < 3 { Err(transient()) } else { Ok(runs) }
        })
        .await;
        assert_eq!(result.unwrap(), 3);

        let mut runs = 0;
        let result: Result<(), _> = again(async || {
            runs += 1;
            Err(transient())
        })
        .await;
        assert!(matches!(result, Err(StoreError::Transient(_))));
        assert_eq!(runs, TRIES_MAX);
    }

    #[tokio::test]
    async fn nothing_is_asked_of_a_database_that_was_not_seen() {
        let database = Database::default();
        assert!(database.check().is_err());
        database.clone().seen();
        assert!(database.check().is_ok());
    }
}
