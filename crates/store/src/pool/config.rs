//! Where Postgres is, and how long is waited for it.

use std::fmt;
use std::path::PathBuf;

use diesel_async::pooled_connection::deadpool::BuildError;
use serde::Deserialize;
use tokio_postgres::config::Host;

use crate::error::Cause;

/// Section `[postgres]` of the configuration.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `postgres://user:password@host:port/database`, or `key=value` pairs. Several hosts may be given, with
    /// `target_session_attrs=read-write`. `sslmode=require` means TLS with a verified certificate; anything else none.
    pub url: String,
    /// Most connections of one pool.
    pub pool_size: u32,
    /// Milliseconds to wait for a free connection or for a new one.
    pub connect_timeout_ms: u32,
    /// Milliseconds after which Postgres gives a statement up.
    pub statement_timeout_ms: u32,
    /// PEM file of the authorities that may sign Postgres' certificate; empty means the public ones.
    pub tls_ca_file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "postgres://vellocity@127.0.0.1:5432/vellocity".to_owned(),
            pool_size: 16,
            connect_timeout_ms: 5_000,
            statement_timeout_ms: 30_000,
            tls_ca_file: PathBuf::new(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &without_password(&self.url))
            .field("pool_size", &self.pool_size)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("statement_timeout_ms", &self.statement_timeout_ms)
            .field("tls_ca_file", &self.tls_ca_file)
            .finish()
    }
}

/// A configuration that can't work however long one waits; the start is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// The driver's own words might repeat the password.
    #[error(
        "postgres.url is neither a URL such as postgres://user@host/database nor key=value pairs"
    )]
    Url,
    #[error("postgres.{0} must be at least 1")]
    Zero(&'static str),
    #[error("postgres.tls_ca_file can't be used")]
    CaFile(#[source] Cause),
    #[error("the connection pool can't be built")]
    Pool(#[from] BuildError),
}

pub(super) fn parse(url: &str) -> Result<tokio_postgres::Config, InvalidConfig> {
    let driver: tokio_postgres::Config = url.parse().map_err(|_| InvalidConfig::Url)?;
    if driver.get_hosts().is_empty() && driver.get_hostaddrs().is_empty() {
        return Err(InvalidConfig::Url);
    }
    Ok(driver)
}

fn without_password(url: &str) -> String {
    let Ok(driver) = parse(url) else {
        return "…".to_owned();
    };
    let hosts: Vec<_> = driver
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(i, host)| {
            let port = driver.get_ports().get(i).or(driver.get_ports().first());
            let host = match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            };
            format!("{host}:{}", port.copied().unwrap_or(5432))
        })
        .collect();
    format!(
        "postgres://{}@{}/{}",
        driver.get_user().unwrap_or_default(),
        hosts.join(","),
        driver.get_dbname().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> Config {
        Config {
            url: url.to_owned(),
            ..Config::default()
        }
    }

    #[test]
    fn debug_output_never_shows_the_password() {
        for url in [
            "postgres://user:hunter2@db.example:5433/main?sslmode=require",
            "host=db.example port=5433 user=user password=hunter2 dbname=main",
            "postgres://user:hunter2@db.example:notaport/main",
        ] {
            let shown = format!("{:?}", with_url(url));
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let shown = format!("{:?}", with_url("postgres://user:p@db.example:5433/main"));
        assert!(
            shown.contains("postgres://user@db.example:5433/main"),
            "{shown}"
        );
    }
}
