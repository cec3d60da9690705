//! Whether a process can do its work now. The loops that depend on something write one check each; the probe and whoever
//! waits for a start read all of them.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::sync::watch;

/// What a check reads before its loop has written it.
const STARTING: &str = "starting";

/// Ready means: every check that was made is ok, and the process is not stopping. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By name; `None` is ok, a text is what fails.
    checks: BTreeMap<&'static str, Option<String>>,
    stopping: bool,
}

/// The answer of `/ready`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub ready: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopping: bool,
    pub checks: BTreeMap<&'static str, String>,
}

/// One thing that a process needs. Cheap to clone; writing the same again wakes nobody.
#[derive(Debug, Clone)]
pub struct Check {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    pub fn new() -> Self {
        Self {
            state: watch::Sender::new(State::default()),
        }
    }

    /// Adds a check, which fails until it is told otherwise. A second one of the same name is the same check.
    pub fn check(&self, name: &'static str) -> Check {
        self.change(|state| {
            if state.checks.contains_key(name) {
                return false;
            }
            state.checks.insert(name, Some(STARTING.to_owned()));
            true
        });
        Check {
            readiness: self.clone(),
            name,
        }
    }

    /// The process is about to end: not ready from now on, whatever the checks say.
    pub fn stopping(&self) {
        self.change(|state| !std::mem::replace(&mut state.stopping, true));
    }

    pub fn is_ready(&self) -> bool {
        self.state.borrow().is_ready()
    }

    /// Completes at once if ready, and otherwise as soon as it is; never, once it is stopping.
    pub async fn until_ready(&self) {
        let mut watcher = self.state.subscribe();
        // The sender is ours, so that the channel cannot close.
        let _state = watcher.wait_for(State::is_ready).await;
    }

    pub(super) fn report(&self) -> Report {
        let state = self.state.borrow();
        let checks = state.checks.iter().map(|(name, failing)| {
            let text = failing.clone().unwrap_or_else(|| "ok".to_owned());
            (*name, text)
        });
        Report {
            ready: state.is_ready(),
            stopping: state.stopping,
            checks: checks.collect(),
        }
    }

    /// `change` tells whether it changed anything. Turning ready or unready is worth a log line.
    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        let mut turned = None;
        self.state.send_if_modified(|state| {
            let before = state.is_ready();
            let changed = change(state);
            let after = state.is_ready();
            turned = (before != after).then_some(after);
            changed
        });
        match turned {
            Some(true) => tracing::info!("ready"),
            Some(false) => tracing::info!(report = ?self.report(), "not ready"),
            None => {}
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// A process without any check has not said yet what it needs.
    fn is_ready(&self) -> bool {
        !self.stopping && !self.checks.is_empty() && self.checks.values().all(Option::is_none)
    }
}

impl Check {
    pub fn ok(&self) {
        self.set(None);
    }

    /// `why` is shown to whoever reaches the admin port: no secrets.
    pub fn failing(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    fn set(&self, failing: Option<String>) {
        self.readiness.change(|state| {
            let checks = &mut state.checks;
            match checks.get(self.name) {
                Some(current) if *current == failing => false,
                _ => {
                    checks.insert(self.name, failing);
                    true
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_ready_before_it_has_a_check() {
        assert!(!Readiness::new().is_ready());
    }

    #[test]
    fn ready_means_that_every_check_is_ok() {
        let readiness = Readiness::new();
        let (postgres, rabbitmq) = (readiness.check("postgres"), readiness.check("rabbitmq"));
        postgres.ok();
        assert!(!readiness.is_ready());
        rabbitmq.ok();
        assert!(readiness.is_ready());
        postgres.failing("connection refused");
        assert!(!readiness.is_ready());
    }

    #[test]
    fn stopping_is_final() {
        let readiness = Readiness::new();
        let check = readiness.check("postgres");
        check.ok();
        readiness.stopping();
        check.failing("gone");
        check.ok();
        assert!(!readiness.is_ready());
    }

    #[test]
    fn asking_for_a_check_again_does_not_reset_it() {
        let readiness = Readiness::new();
        readiness.check("postgres").ok();
        readiness.check("postgres");
        assert!(readiness.is_ready());
    }

    #[test]
    fn the_report_names_every_check() {
        let readiness = Readiness::new();
        readiness.check("postgres").ok();
        readiness
            .check("rabbitmq")
            .failing("connecting: connection refused");
        readiness.check("cache");
        let json = serde_json::to_value(readiness.report()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"ready": false, "checks": {
                "cache": "starting", "postgres": "ok", "rabbitmq": "connecting: connection refused"
            }})
        );
    }

    #[tokio::test]
    async fn a_waiter_is_woken_when_the_last_check_is_ok() {
        let readiness = Readiness::new();
        let check = readiness.check("postgres");
        let waiter = readiness.clone();
        tokio::join!(async move { waiter.until_ready().await }, async {
            tokio::task::yield_now().await;
            check.ok();
        });
        readiness.until_ready().await;
    }
}
