//! `management-api migrate`: brings the database up to date, once Postgres is there, and says what it did.

use std::time::{Duration, Instant};

use runtime::{Backoff, Failure};
use store::migrations::{self, MigrationError};
use store::{Store, StoreError};

use crate::SERVICE;

/// A Postgres that is just starting is waited for; one that is not there at all must not hang a deployment.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Runs what the database lacks and returns one line about it. `waiting` is told of every vain try.
///
/// # Errors
/// With exit code 78 for a configuration that can't work, 1 for everything else.
pub async fn run(config: &store::Config, mut waiting: impl FnMut(&str)) -> Result<String, Failure> {
    let store = Store::connect(config, SERVICE).map_err(|error| Failure::config(&error))?;
    let started = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        match migrations::run(&store).await {
            Ok(ran) if ran.is_empty() => {
                return Ok("The database is up to date; no migration was run.".to_owned());
            }
            Ok(ran) => return Ok(format!("Ran {}: {}.", count(ran.len()), ran.join(", "))),
            Err(error) if is_away(&error) && started.elapsed() < WAIT_MAX => {
                waiting(&format!(
                    "waiting for Postgres: {}",
                    runtime::exit::chain(&error)
                ));
                tokio::time::sleep(backoff.next_delay()).await;
            }
            Err(error) => return Err(Failure::other(&error).context("cannot migrate")),
        }
    }
}

fn is_away(error: &MigrationError) -> bool {
    matches!(error, MigrationError::Store(StoreError::Unavailable(_)))
}

fn count(migrations: usize) -> String {
    match migrations {
        1 => "1 migration".to_owned(),
        more => format!("{more} migrations"),
    }
}
