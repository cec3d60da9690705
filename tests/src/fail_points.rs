//! What a process of ours does at its fail points, which `crates/runtime/src/fail_points.rs` makes and only the feature
//! `fail-points` has.

use std::os::unix::process::ExitStatusExt as _;

use crate::Process;
use crate::process::Signal;

/// Steps by their names, with what happens there. Nothing, by default.
#[derive(Clone, Debug, Default)]
pub struct FailPoints(Vec<String>);

impl FailPoints {
    /// The process ends there as if it were killed.
    #[must_use]
    pub fn abort_at(point: &str) -> Self {
        Self(vec![format!("{point}=return(abort)")])
    }

    /// Whoever gets there first is held, and the rest of the process goes on.
    #[must_use]
    pub fn hold_at(point: &str) -> Self {
        Self(vec![format!("{point}=1*return(hold)")])
    }

    /// The environment variable that the process reads.
    pub(crate) fn variable(&self) -> Option<(&'static str, String)> {
        (!self.0.is_empty()).then(|| ("FAILPOINTS", self.0.join(";")))
    }

    pub(crate) fn assert_armed(&self, process: &Process) {
        let armed = self.0.is_empty() || process.output().contains("fail points armed");
        assert!(
            armed,
            "built without fail points: use `make test`, or `cargo build --workspace --bins --features tests/fail-points`"
        );
    }
}

impl Process {
    /// Waits until it has ended itself at a fail point.
    ///
    /// # Panics
    /// When it ends in another way, or not at all.
    pub async fn until_aborted(&mut self) {
        const ABORTED: i32 = 6;
        let status = self.exited().await;
        assert_eq!(
            status.signal(),
            Some(ABORTED),
            "{status}: {}",
            self.output()
        );
    }

    /// Waits until something is held at a fail point.
    pub async fn until_held(&self, point: &str) {
        self.until_output(&format!("fail point {point}: held"))
            .await;
    }

    /// Lets what is held go on.
    pub fn go_on(&self) {
        self.signal(Signal::Usr1);
    }
}
