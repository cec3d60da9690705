//! A service that runs in this process, on a thread and a runtime of its own, so that a test which blocks its thread
//! does not hold it up, and so that it can be dropped in the middle of its work, as a crash would.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use runtime::{Failure, Shutdown};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{Settings, client, logs, wait};

/// An orderly end takes no longer than an attempt's time-out and some seconds.
const STOP_DEADLINE: Duration = Duration::from_secs(40);

/// The three services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ManagementApi,
    Dispatcher,
    Retry,
}

impl Kind {
    /// The name of the binary, and of the service in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ManagementApi => "management-api",
            Self::Dispatcher => "dispatcher",
            Self::Retry => "retry",
        }
    }
}

/// One running service. Dropped without [`Service::stop`], it is killed.
pub struct Service {
    kind: Kind,
    admin: SocketAddr,
    api: Option<SocketAddr>,
    shutdown: Shutdown,
    killed: CancellationToken,
    ended: Option<oneshot::Receiver<Result<(), Failure>>>,
    thread: Option<JoinHandle<()>>,
}

/// Where a service has bound its ports.
struct Bound {
    admin: SocketAddr,
    api: Option<SocketAddr>,
}

impl Service {
    /// Builds it and lets it run; does not wait until it is ready.
    ///
    /// # Panics
    /// When it refuses to start.
    pub async fn start(kind: Kind, settings: &Settings) -> Self {
        Self::try_start(kind, settings)
            .await
            .unwrap_or_else(|failure| panic!("{}: {}", kind.name(), failure.line()))
    }

    /// [`Self::start`] for what is to be refused.
    ///
    /// # Errors
    /// What the process would have ended with.
    pub async fn try_start(kind: Kind, settings: &Settings) -> Result<Self, Failure> {
        logs::start();
        runtime::exit::install_crypto_provider();
        let (shutdown, killed) = (Shutdown::new(), CancellationToken::new());
        let (tell_bound, bound) = oneshot::channel();
        let (tell_end, ended) = oneshot::channel();
        let life = Life {
            kind,
            settings: settings.clone(),
            shutdown: shutdown.clone(),
            killed: killed.clone(),
            bound: tell_bound,
        };
        let thread = std::thread::Builder::new()
            .name(kind.name().to_owned())
            .spawn(move || {
                let _nobody_asks = tell_end.send(life.live());
            })
            .unwrap();
        match bound.await {
            Ok(bound) => Ok(Self {
                kind,
                admin: bound.admin,
                api: bound.api,
                shutdown,
                killed,
                ended: Some(ended),
                thread: Some(thread),
            }),
            Err(_) => match ended.await.expect("the service's thread says how it ended") {
                Err(failure) => Err(failure),
                Ok(()) => panic!("{} ended before it had begun", kind.name()),
            },
        }
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where probes and metrics are.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where the REST API is.
    ///
    /// # Panics
    /// For a service that has none.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.api.expect("only management-api serves the API")
    }

    /// Waits until the readiness probe says yes.
    pub async fn until_ready(&self) {
        until_ready(self.kind.name(), self.admin).await;
    }

    /// SIGTERM's way: waits until it has ended in order.
    ///
    /// # Panics
    /// When it takes too long, or says that something was not done.
    pub async fn stop(mut self) {
        let name = self.kind.name();
        self.shutdown.begin();
        let ended = self.ended.take().expect("stopped once");
        let ended = tokio::time::timeout(STOP_DEADLINE, ended)
            .await
            .unwrap_or_else(|_| panic!("{name} did not stop within {STOP_DEADLINE:?}"))
            .unwrap_or_else(|_| panic!("{name} panicked"));
        if let Err(failure) = ended {
            panic!("{name} did not end in order: {}", failure.line());
        }
    }

    /// Ends it in the middle of whatever it is doing: nothing is finished, flushed or acknowledged. Its connections
    /// are closed by the operating system.
    pub fn kill(self) {}
}

impl Drop for Service {
    fn drop(&mut self) {
        self.killed.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic of the service was told where it happened.
            let _ended = thread.join();
        }
    }
}

/// Everything that the service's thread needs.
struct Life {
    kind: Kind,
    settings: Settings,
    shutdown: Shutdown,
    killed: CancellationToken,
    bound: oneshot::Sender<Bound>,
}

impl Life {
    fn live(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(self.kind.name())
            .enable_all()
            .build()
            .map_err(|error| Failure::other(&error))?;
        let killed = self.killed.clone();
        let result = runtime.block_on(async {
            tokio::select! {
                result = self.run() => result,
                () = killed.cancelled() => Ok(()),
            }
        });
        runtime.shutdown_timeout(Duration::from_secs(2));
        result
    }

    async fn run(self) -> Result<(), Failure> {
        let Self {
            kind,
            settings,
            shutdown,
            bound,
            ..
        } = self;
        let tell = |admin, api| {
            let _nobody_asks = bound.send(Bound { admin, api });
        };
        match kind {
            Kind::ManagementApi => {
                let service = management_api::build(settings.management_api()).await?;
                tell(service.admin_addr(), Some(service.api_addr()));
                service.run(shutdown).await
            }
            Kind::Dispatcher => {
                let service = dispatcher::build(settings.dispatcher()).await?;
                tell(service.admin_addr(), None);
                service.run(shutdown).await
            }
            Kind::Retry => {
                let service = retry::build(settings.retry()).await?;
                tell(service.admin_addr(), None);
                service.run(shutdown).await
            }
        }
    }
}

/// Waits until a readiness probe says yes.
pub async fn until_ready(name: &str, admin: SocketAddr) {
    let what = format!("{name} is ready");
    wait::eventually(&what, async || {
        (readiness(admin).await?.0 == 200).then_some(())
    })
    .await;
}

/// Waits until a readiness probe says no, and returns its report.
pub async fn until_unready(name: &str, admin: SocketAddr) -> String {
    let what = format!("{name} is not ready");
    wait::eventually(&what, async || {
        let (status, report) = readiness(admin).await?;
        (status == 503).then_some(report)
    })
    .await
}

/// Status and report of a readiness probe, if it answers.
pub async fn readiness(admin: SocketAddr) -> Option<(u16, String)> {
    let url = format!("http://{admin}/ready");
    let response = client::http().get(url).send().await.ok()?;
    Some((response.status().as_u16(), response.text().await.ok()?))
}

/// The value of one metric, summed up over its labels, or over those that match `labels` (`outcome="delivered"`).
pub async fn metric(admin: SocketAddr, name: &str, labels: &str) -> f64 {
    let url = format!("http://{admin}/metrics");
    let response = client::http().get(url).send().await.expect("metrics");
    let text = response.text().await.expect("metrics");
    text.lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(labels))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
