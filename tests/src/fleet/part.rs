//! One service of a fleet: a process that may be killed and started again, under the same name and with the same
//! settings. Its ports are new with each start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;

use tokio::sync::Mutex;

use crate::process::Signal;
use crate::service::{self, Kind};
use crate::{Process, Settings};

pub struct Part {
    kind: Kind,
    name: String,
    settings: Settings,
    log: PathBuf,
    /// Nothing while it does not run.
    process: Mutex<Option<Process>>,
    /// Where it is, or was last; apart from the process, so that nobody who asks waits for its end.
    address: std::sync::Mutex<Option<Address>>,
}

#[derive(Clone, Copy)]
struct Address {
    admin: SocketAddr,
    api: Option<SocketAddr>,
}

impl Part {
    pub(super) fn new(kind: Kind, number: usize, settings: Settings, log: PathBuf) -> Self {
        Self {
            kind,
            name: format!("{} {number}", kind.name()),
            settings,
            log,
            process: Mutex::new(None),
            address: std::sync::Mutex::new(None),
        }
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Such as `dispatcher 2`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it, or does nothing where it runs. Returns when its probes answer, ready or not.
    pub async fn start(&self) {
        let mut process = self.process.lock().await;
        if process.is_some() {
            return;
        }
        let started = Process::service_logged(self.kind, &self.settings, &self.log).await;
        *self.address.lock().unwrap() = Some(Address {
            admin: started.admin(),
            api: (self.kind == Kind::ManagementApi).then(|| started.api()),
        });
        *process = Some(started);
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&self) {
        if let Some(mut process) = self.process.lock().await.take() {
            process.kill();
        }
    }

    /// SIGTERM, and waits until it has ended in order. Nothing where it did not run.
    pub async fn terminate(&self) -> Option<ExitStatus> {
        let mut process = self.process.lock().await.take()?;
        Some(process.terminate().await)
    }

    /// # Panics
    /// When it does not run.
    pub async fn signal(&self, signal: Signal) {
        self.process
            .lock()
            .await
            .as_ref()
            .expect("it runs")
            .signal(signal);
    }

    fn address(&self) -> Address {
        self.address.lock().unwrap().expect("it was started")
    }

    /// Where probes and metrics are, or were when it ran last.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.address().admin
    }

    /// Where the REST API is, or was: `http://host:port`.
    ///
    /// # Panics
    /// For a service that has none.
    #[must_use]
    pub fn api_origin(&self) -> String {
        let api = self
            .address()
            .api
            .expect("only management-api serves the API");
        format!("http://{api}")
    }

    /// Waits until the readiness probe says yes.
    pub async fn until_ready(&self) {
        service::until_ready(&self.name, self.admin()).await;
    }

    /// What the readiness probe says now; a process that does not answer is not ready.
    pub async fn is_ready(&self) -> bool {
        matches!(service::readiness(self.admin()).await, Some((200, _)))
    }

    /// The value of one metric, summed up over its labels, or over those that match `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        service::metric(self.admin(), name, labels).await
    }
}
