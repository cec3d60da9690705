//! The one signal that ends a process in order. It hears SIGTERM and SIGINT; every loop of a service holds a clone and
//! ends when it has begun. Tests make one by hand.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a shell reports for a program that SIGINT ended.
const EXIT_CODE_INTERRUPTED: i32 = 130;

/// Cheap to clone; all clones begin together.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    /// The task that listens for signals lives as long as somebody holds the shutdown.
    _listener: Option<Arc<JoinSet<()>>>,
}

impl Shutdown {
    /// One that begins only when told to.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that SIGTERM or SIGINT begins. A further SIGINT ends the process at once with exit code 130, for a person
    /// who does not want to wait for the drain; a further SIGTERM changes nothing, because orchestrators repeat it.
    ///
    /// Must be called within a Tokio runtime. Fails if the handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        let token = CancellationToken::new();
        let mut listener = JoinSet::new();
        listener.spawn(listen(token.clone(), interrupt, terminate));
        Ok(Self {
            token,
            _listener: Some(Arc::new(listener)),
        })
    }

    /// Begins the shutdown; once begun, nothing takes it back.
    pub fn begin(&self) {
        self.token.cancel();
    }

    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Completes when the shutdown has begun. Safe to drop and call again, as in a `select!`.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// For libraries that take a token.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// One that begins with this one, and may begin earlier without it.
    pub fn child(&self) -> Self {
        Self {
            token: self.token.child_token(),
            _listener: self._listener.clone(),
        }
    }
}

async fn listen(token: CancellationToken, mut interrupt: Signal, mut terminate: Signal) {
    loop {
        tokio::select! {
            Some(()) = interrupt.recv() => {
                if token.is_cancelled() {
                    tracing::warn!("interrupted again: ending without a drain");
                    end_at_once();
                }
                tracing::info!(signal = "SIGINT", "shutting down");
            }
            Some(()) = terminate.recv() => {
                if token.is_cancelled() {
                    tracing::info!(signal = "SIGTERM", "already shutting down");
                    continue;
                }
                tracing::info!(signal = "SIGTERM", "shutting down");
            }
            else => return,
        }
        token.cancel();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a person asked twice: nothing is left to be done in order"
)]
fn end_at_once() -> ! {
    std::process::exit(EXIT_CODE_INTERRUPTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_clones_begin_together() {
        let shutdown = Shutdown::new();
        let clone = shutdown.clone();
        assert!(!clone.has_begun());
        shutdown.begin();
        clone.begun().await;
        assert!(clone.has_begun());
    }

    #[tokio::test]
    async fn a_child_begins_with_its_parent_but_not_the_other_way_round() {
        let parent = Shutdown::new();
        let (early, late) = (parent.child(), parent.child());
        early.begin();
        assert!(early.has_begun() && !parent.has_begun() && !late.has_begun());
        parent.begin();
        late.begun().await;
    }

    fn send(signal: &str, pid: u32) {
        let status = std::process::Command::new("kill")
            .args([signal, &pid.to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    #[tokio::test]
    async fn a_signal_begins_it_and_a_repeated_sigterm_changes_nothing() {
        let shutdown = Shutdown::on_signals().unwrap();
        assert!(!shutdown.has_begun());
        send("-TERM", std::process::id());
        shutdown.begun().await;
        send("-TERM", std::process::id());
    }

    const CHILD: &str = "SHUTDOWN_TEST_CHILD";

    /// Runs itself again as a process of its own, since that one has to end.
    #[tokio::test]
    async fn a_second_interrupt_ends_the_process_at_once() {
        if std::env::var_os(CHILD).is_some() {
            let shutdown = Shutdown::on_signals().unwrap();
            eprintln!("listening");
            shutdown.begun().await;
            eprintln!("begun");
            std::future::pending::<()>().await;
        }
        let test = "shutdown::tests::a_second_interrupt_ends_the_process_at_once";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, "1")
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        for line in std::io::BufRead::lines(stderr) {
            if ["listening", "begun"].contains(&line.unwrap().as_str()) {
                send("-INT", child.id());
            }
        }
        assert_eq!(child.wait().unwrap().code(), Some(EXIT_CODE_INTERRUPTED));
    }
}
