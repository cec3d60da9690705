//! Publishing with confirms.
//!
//! Each publisher is one task with a channel of its own: two tasks on one channel could swap lapin's delivery tags,
//! and then one would be told what became of the other's message. Messages are not sent one by one but as many as are
//! waiting, up to a limit in flight.

mod lane;
mod returns;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::error::PublishError;
use crate::message::Message;
use crate::supervisor::{Phase, current};

/// Messages in flight, per publisher: beyond a few hundred nothing gets faster, and lapin's bookkeeping slower.
pub(crate) const IN_FLIGHT_MAX: usize = 512;

/// A handle to publish with. Cheap to clone; clones share the channel.
#[derive(Clone)]
pub struct Publisher {
    phase: watch::Receiver<Phase>,
    jobs: mpsc::Sender<Job>,
    confirm_timeout: Duration,
}

pub(crate) struct Job {
    message: Message,
    result: oneshot::Sender<Result<(), PublishError>>,
}

impl Publisher {
    pub(crate) fn start(
        phase: watch::Receiver<Phase>,
        confirm_timeout: Duration,
        tracker: &TaskTracker,
    ) -> Self {
        // As many may wait here as are in flight; the rest wait in `publish`.
        let (jobs, queue) = mpsc::channel(IN_FLIGHT_MAX);
        tracker.spawn(lane::run(phase.clone(), queue));
        Self {
            phase,
            jobs,
            confirm_timeout,
        }
    }

    /// Publishes, and waits for the broker's word that the message is safe in a queue (or, if it is not mandatory and
    /// no queue takes it, dropped). Takes no longer than the configured confirm time-out, and does not wait at all
    /// when there is no connection. Dropping the future does not take the message back.
    ///
    /// # Errors
    /// When the message is not known to be in a queue; the variants say what that means.
    pub async fn publish(&self, message: Message) -> Result<(), PublishError> {
        if current(&self.phase).is_none() {
            return Err(self.unavailable());
        }
        let work = async {
            let (result, confirmed) = oneshot::channel();
            let job = Job { message, result };
            if self.jobs.send(job).await.is_err() {
                return Err(self.unavailable());
            }
            match confirmed.await {
                Ok(result) => result,
                Err(_) => Err(self.unavailable()),
            }
        };
        match tokio::time::timeout(self.confirm_timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(PublishError::Timeout(self.confirm_timeout)),
        }
    }

    fn unavailable(&self) -> PublishError {
        PublishError::Unavailable(match &*self.phase.borrow() {
            Phase::Connecting(why) if why.is_empty() => "connecting".to_owned(),
            Phase::Connecting(why) => why.clone(),
            Phase::Up(link) => link.why_lost().to_owned(),
            Phase::Closed => "closed".to_owned(),
        })
    }
}
