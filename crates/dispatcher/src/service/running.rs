//! A dispatcher's tasks, and the order in which they end.

use std::time::Duration;

use broker::Broker;
use runtime::{Failure, Shutdown};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long each group may take at the end whose work does not depend on receivers.
const FLUSH_DEADLINE: Duration = Duration::from_secs(10);

/// The tasks in the groups in which they end.
#[derive(Clone, Default)]
pub(super) struct Groups {
    /// Take messages, and hold the ends of the queues that `background` works off.
    pub consumers: TaskTracker,
    /// Events and attempts in hand.
    pub work: TaskTracker,
    /// Work off queues until nobody fills them any more.
    pub background: TaskTracker,
    /// Watch and report until `stop`.
    pub attendants: TaskTracker,
    /// The broker's own.
    pub connection: TaskTracker,
    pub admin: TaskTracker,
    /// No message is taken, and no attempt begun, once this is cancelled.
    pub draining: CancellationToken,
    pub stop: CancellationToken,
    /// Set when a task ended that should not have.
    pub failed: CancellationToken,
}

impl Groups {
    /// Starts a task on which others depend. Should it end before the dispatcher is told to stop, the dispatcher stops
    /// and says so: without it events would be sent, and never recorded.
    pub fn essential<F>(&self, group: &TaskTracker, what: &'static str, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let watch = EndWatch {
            what,
            expected: self.draining.clone(),
            failed: self.failed.clone(),
        };
        group.spawn(async move {
            let _watch = watch;
            task.await
        });
    }
}

/// Notices the end of its task, by a panic too.
struct EndWatch {
    what: &'static str,
    expected: CancellationToken,
    failed: CancellationToken,
}

impl Drop for EndWatch {
    fn drop(&mut self) {
        if !self.expected.is_cancelled() {
            tracing::error!("the task that {} has ended by itself", self.what);
            self.failed.cancel();
        }
    }
}

pub(super) struct Running {
    pub groups: Groups,
    pub broker: Broker,
    pub probing: Shutdown,
    /// How long attempts in flight may take at the end.
    pub drain_deadline: Duration,
}

impl Running {
    pub async fn stop(self) -> Result<(), Failure> {
        let Self {
            groups,
            broker,
            probing,
            drain_deadline,
        } = self;
        groups.draining.cancel();
        let mut in_time = within(drain_deadline, &groups.consumers, "consumers").await;
        in_time &= within(drain_deadline, &groups.work, "attempts in flight").await;
        in_time &= within(
            FLUSH_DEADLINE,
            &groups.background,
            "records and announcements",
        )
        .await;
        groups.stop.cancel();
        in_time &= within(FLUSH_DEADLINE, &groups.attendants, "attendants").await;
        broker.close().await;
        drop(broker);
        in_time &= within(
            FLUSH_DEADLINE,
            &groups.connection,
            "the broker's connection",
        )
        .await;
        probing.begin();
        in_time &= within(FLUSH_DEADLINE, &groups.admin, "the admin port").await;
        if in_time {
            Ok(())
        } else {
            let line = "not everything was done in time; it is handed out again";
            Err(Failure::with_code(line, 1))
        }
    }
}

async fn within(deadline: Duration, tasks: &TaskTracker, what: &str) -> bool {
    tasks.close();
    let in_time = tokio::time::timeout(deadline, tasks.wait()).await.is_ok();
    if !in_time {
        tracing::warn!(?deadline, "{what} have not ended in time");
    }
    in_time
}
