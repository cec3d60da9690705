//! Keeps a link to RabbitMQ alive: connects, agrees on the topology, watches, and begins anew after any loss.
//!
//! lapin's own recovery is not used: a loss is everybody's business here (receipts of the old link are void, prefetch
//! starts small, caches are emptied), so that it is shown and not hidden.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::error::BrokerError;
use crate::link::{GOODBYE_LIMIT, GOODBYE_LIMIT_LOST, Link};
use crate::publisher::Publisher;

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A link that lived as long as this was sound: the next loss begins with a short wait again.
const SOUND_AFTER: Duration = Duration::from_secs(30);

/// The handle on RabbitMQ. Cheap to clone; when the last clone is dropped, the connection is closed.
#[derive(Clone)]
pub struct Broker {
    phase: watch::Receiver<Phase>,
    stop: CancellationToken,
    /// Ends the supervisor when the last clone goes.
    _guard: Arc<DropGuard>,
    config: Config,
    tracker: TaskTracker,
}

#[derive(Clone)]
pub(crate) enum Phase {
    Connecting(String),
    Up(Arc<Link>),
    Closed,
}

/// How things stand, for readiness checks and status pages. Displays as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not connected, and the last thing that went wrong.
    Connecting(String),
    Connected,
    /// Connected, but the broker takes no messages (out of memory or disk).
    Blocked(String),
    Closed,
}

impl State {
    /// Whether messages can be consumed and published.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self == Self::Connected
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting(why) if why.is_empty() => f.write_str("connecting"),
            Self::Connecting(why) => write!(f, "connecting: {why}"),
            Self::Connected => f.write_str("connected"),
            Self::Blocked(why) => write!(f, "publishers are blocked: {why}"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

impl Broker {
    /// Starts to connect, in a task on `tracker`, and goes on for ever. `name` (the service and its instance) shows
    /// in the management UI. Does not wait for the connection: see [`Self::link`].
    ///
    /// # Errors
    /// When the configuration can't work. A RabbitMQ that is away is no error.
    pub fn start(
        config: Config,
        name: impl Into<String>,
        tracker: &TaskTracker,
    ) -> Result<Self, BrokerError> {
        config.validate()?;
        let stop = CancellationToken::new();
        let (sender, phase) = watch::channel(Phase::Connecting(String::new()));
        let supervisor = Supervisor {
            config: config.clone(),
            name: name.into(),
            tracker: tracker.clone(),
            phase: sender,
            stop: stop.clone(),
        };
        tracker.spawn(supervisor.run());
        Ok(Self {
            phase,
            _guard: Arc::new(stop.clone().drop_guard()),
            stop,
            config,
            tracker: tracker.clone(),
        })
    }

    /// The link, as soon as there is one that is not lost. `None` once the broker was closed.
    pub async fn link(&self) -> Option<Arc<Link>> {
        let mut phase = self.phase.clone();
        let settled = phase
            .wait_for(|phase| match phase {
                Phase::Connecting(_) => false,
                Phase::Up(link) => !link.is_lost(),
                Phase::Closed => true,
            })
            .await;
        match settled {
            Ok(phase) => match &*phase {
                Phase::Up(link) => Some(link.clone()),
                Phase::Connecting(_) | Phase::Closed => None,
            },
            Err(_) => None,
        }
    }

    /// The link, if there is one at this moment.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Link>> {
        current(&self.phase)
    }

    #[must_use]
    pub fn state(&self) -> State {
        match &*self.phase.borrow() {
            Phase::Connecting(why) => State::Connecting(why.clone()),
            Phase::Up(link) if link.is_lost() => State::Connecting(link.why_lost().to_owned()),
            Phase::Up(link) => match link.blocked() {
                Some(why) => State::Blocked(why),
                None => State::Connected,
            },
            Phase::Closed => State::Closed,
        }
    }

    /// A new publisher, with a channel and a task of its own. It goes on over all links to come.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::start(
            self.phase.clone(),
            self.config.confirm_timeout(),
            &self.tracker,
        )
    }

    /// Closes the connection in order and ends the supervisor. Cancel consumers and let publishers finish before.
    pub async fn close(&self) {
        self.stop.cancel();
        let mut phase = self.phase.clone();
        // An error means that the supervisor is gone already.
        let _ = phase.wait_for(|phase| matches!(phase, Phase::Closed)).await;
    }
}

pub(crate) fn current(phase: &watch::Receiver<Phase>) -> Option<Arc<Link>> {
    match &*phase.borrow() {
        Phase::Up(link) if !link.is_lost() => Some(link.clone()),
        _ => None,
    }
}

struct Supervisor {
    config: Config,
    name: String,
    tracker: TaskTracker,
    phase: watch::Sender<Phase>,
    stop: CancellationToken,
}

impl Supervisor {
    async fn run(self) {
        let stop = self.stop.clone();
        let mut generation = 0;
        let mut failures = 0;
        while !stop.is_cancelled() {
            generation += 1;
            let why = tokio::select! {
                () = stop.cancelled() => break,
                lived = self.live(generation) => lived,
            };
            failures = if why.lived >= SOUND_AFTER {
                1
            } else {
                failures + 1
            };
            let wait = backoff(failures, rand::random());
            tracing::warn!(why = %why.reason, retry_in = ?wait, "not connected to RabbitMQ");
            self.phase.send_replace(Phase::Connecting(why.reason));
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        if let Some(link) = current(&self.phase.subscribe()) {
            link.close(GOODBYE_LIMIT).await;
        }
        self.phase.send_replace(Phase::Closed);
    }

    /// One link from beginning to end.
    async fn live(&self, generation: u64) -> Ended {
        let link = match Link::connect(&self.config, &self.name, generation, &self.tracker).await {
            Ok(link) => link,
            Err(error) => {
                return Ended {
                    lived: Duration::ZERO,
                    reason: error.line(),
                };
            }
        };
        let since = Instant::now();
        tracing::info!(generation, "connected to RabbitMQ");
        self.phase.send_replace(Phase::Up(link.clone()));
        link.watch().await;
        let ended = Ended {
            lived: since.elapsed(),
            reason: link.why_lost().to_owned(),
        };
        let reason = ended.reason.clone();
        self.phase.send_replace(Phase::Connecting(reason));
        link.close(GOODBYE_LIMIT_LOST).await;
        ended
    }
}

struct Ended {
    lived: Duration,
    reason: String,
}

/// How long to wait after that many failures in a row: anything between 100 ms and a limit that doubles from 200 ms
/// to 10 s, so that the processes that lost a broker together do not come back together.
fn backoff(failures: u32, random: u32) -> Duration {
    let limit = BACKOFF_MIN
        .saturating_mul(1 << failures.min(16))
        .min(BACKOFF_MAX);
    BACKOFF_MIN + (limit - BACKOFF_MIN).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_to_ten_seconds_and_never_falls_under_a_tenth() {
        let longest: Vec<_> = (1..10).map(|n| backoff(n, u32::MAX).as_millis()).collect();
        assert_eq!(
            longest,
            [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]
        );
        for failures in [0, 1, 5, 40, u32::MAX] {
            assert_eq!(backoff(failures, 0), BACKOFF_MIN);
            assert!(backoff(failures, u32::MAX / 2) <= BACKOFF_MAX);
        }
    }

    #[test]
    fn a_state_is_one_line() {
        assert_eq!(State::Connecting(String::new()).to_string(), "connecting");
        let why = State::Connecting("connection refused".to_owned());
        assert_eq!(why.to_string(), "connecting: connection refused");
        assert!(State::Connected.is_ready() && !State::Blocked("memory".to_owned()).is_ready());
    }
}
