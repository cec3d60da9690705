//! `docker-compose.yml` as the tests read it. A key that stands in no type here is refused, as a misspelt one would be.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::deploy_repository as repository;

/// What the user has to give.
pub const SECRETS_KEY: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[derive(Debug, Deserialize)]
pub struct Stack {
    pub services: BTreeMap<String, Container>,
    pub volumes: BTreeMap<String, Option<IgnoredAny>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Container {
    pub image: Option<String>,
    pub build: Option<Build>,
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub ports: Vec<String>,
    pub volumes: Vec<String>,
    pub depends_on: BTreeMap<String, Dependency>,
    pub healthcheck: Option<HealthCheck>,
    pub stop_grace_period: Option<String>,
    pub hostname: Option<String>,
    pub profiles: Vec<String>,
    pub cap_drop: Vec<String>,
    pub read_only: bool,
    #[serde(rename = "restart")]
    pub _restart: Option<String>,
    #[serde(rename = "security_opt")]
    pub _security_opt: Vec<String>,
    #[serde(rename = "extra_hosts")]
    pub _extra_hosts: Vec<String>,
    #[serde(rename = "shm_size")]
    pub _shm_size: Option<String>,
    #[serde(rename = "init")]
    pub _init: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    pub context: String,
    pub dockerfile: String,
    pub target: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    pub condition: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    pub test: Vec<String>,
    #[serde(rename = "interval")]
    pub _interval: String,
    #[serde(rename = "timeout")]
    pub _timeout: String,
    #[serde(rename = "retries")]
    pub _retries: u32,
    #[serde(default, rename = "start_period")]
    pub _start_period: String,
}

impl Stack {
    /// With nothing given by the user but the key.
    pub fn read() -> Self {
        let text = repository::read("docker-compose.yml");
        let given = |name: &str| (name == "VELLOCITY_SECRETS_KEY").then(|| SECRETS_KEY.to_owned());
        let text = interpolated(&text, given).unwrap();
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("docker-compose.yml: {error}"))
    }

    pub fn container(&self, name: &str) -> &Container {
        let container = self.services.get(name);
        container.unwrap_or_else(|| panic!("no service {name}"))
    }
}

impl Container {
    /// What it has after a SIGTERM.
    pub fn grace(&self) -> Duration {
        let text = self.stop_grace_period.as_deref().expect("a grace period");
        let seconds = text.strip_suffix('s').expect("a number of seconds");
        Duration::from_secs(seconds.parse().unwrap())
    }

    /// The ports inside of the container that are published. All of them to this machine only.
    pub fn published(&self) -> Vec<u16> {
        let port = |port: &String| {
            let parts: Vec<_> = port.split(':').collect();
            let [address, _outside, inside] = parts.as_slice() else {
                panic!("not address:port:port: {port}");
            };
            assert_eq!(*address, "127.0.0.1", "{port}");
            inside.parse().unwrap()
        };
        self.ports.iter().map(port).collect()
    }

    /// What is mounted where.
    pub fn mounts(&self) -> Vec<(&str, &str)> {
        let volumes = self.volumes.iter();
        volumes
            .map(|volume| volume.split_once(':').expect("source:target"))
            .map(|(from, to)| (from, to.trim_end_matches(":ro")))
            .collect()
    }
}

/// Replaces `${NAME:-default}` and `${NAME:?message}`, the only forms in use, and `$$`. Comments go, since a `$` in them
/// means nothing.
///
/// # Errors
/// With the message for what has to be given and is not.
pub fn interpolated(text: &str, given: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let text = lines.join("\n");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else {
            let (inner, after) = after
                .strip_prefix('{')
                .and_then(|after| after.split_once('}'))
                .expect("${…} or $$");
            out.push_str(&value(inner, &given)?);
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn value(inner: &str, given: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    if let Some((name, default)) = inner.split_once(":-") {
        return Ok(given(name).unwrap_or_else(|| default.to_owned()));
    }
    let (name, message) = inner.split_once(":?").expect("a default or a message");
    given(name).ok_or_else(|| format!("{name} {message}"))
}
