//! The template that databases of tests are cloned from. Made once by whichever process comes first.
//!
//! The migrations are embedded in this program, so its identity (path, size, time of the build) names the template: one
//! that other migrations made is never used. The day is part of the name too, because partitions are made by day.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use super::{Sql, drop_statement, with_database};
use crate::wait;

/// The name of the template, which is there when this returns.
pub(super) async fn ensure(admin: &Sql, server_url: &str) -> String {
    let name = format!("template_{:016x}", identity());
    if exists(admin, &name).await {
        return name;
    }
    admin
        .execute("SELECT pg_advisory_lock(hashtext('tests_template'))")
        .await;
    if !exists(admin, &name).await {
        make(admin, server_url, &name).await;
    }
    admin
        .execute("SELECT pg_advisory_unlock(hashtext('tests_template'))")
        .await;
    name
}

fn identity() -> u64 {
    let program = std::env::current_exe().unwrap();
    let file = std::fs::metadata(&program).unwrap();
    let mut hasher = DefaultHasher::new();
    program.hash(&mut hasher);
    (file.len(), file.mtime(), file.mtime_nsec()).hash(&mut hasher);
    chrono::Utc::now().date_naive().hash(&mut hasher);
    hasher.finish()
}

async fn exists(admin: &Sql, name: &str) -> bool {
    admin
        .value_of(
            "SELECT exists (SELECT FROM pg_database WHERE datname = $1)",
            &[&name],
        )
        .await
}

/// Under the lock. It gets its name last, so that it appears whole or not at all.
async fn make(admin: &Sql, server_url: &str, name: &str) {
    drop_old_ones(admin).await;
    let draft = format!("draft_{name}");
    admin.execute(&drop_statement(&draft)).await;
    admin
        .execute(&format!(r#"CREATE DATABASE "{draft}""#))
        .await;
    let config = store::Config {
        url: with_database(server_url, &draft),
        ..store::Config::default()
    };
    let store = store::Store::connect(&config, "tests").unwrap();
    store::migrations::run(&store).await.unwrap();
    drop(store);
    let statement = format!(r#"ALTER DATABASE "{draft}" WITH ALLOW_CONNECTIONS false"#);
    admin.execute(&statement).await;
    wait::within(
        Duration::from_secs(10),
        "nobody is connected to the template",
        async || {
            let left: i64 = admin
                .value_of(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = $1",
                    &[&draft],
                )
                .await;
            (left == 0).then_some(())
        },
    )
    .await;
    let statement = format!(r#"ALTER DATABASE "{draft}" RENAME TO "{name}""#);
    admin.execute(&statement).await;
}

/// Those of earlier builds. One that another run is cloning right now can't be dropped and stays; one that another run
/// would have cloned next is made anew by it.
async fn drop_old_ones(admin: &Sql) {
    let old: Vec<String> = admin
        .column("SELECT datname::text FROM pg_database WHERE datname LIKE 'template\\_________________'")
        .await;
    for name in old {
        let _dropped = admin
            .try_execute(&format!(r#"DROP DATABASE IF EXISTS "{name}""#))
            .await;
    }
}
