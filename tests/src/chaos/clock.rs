//! One clock for what is published, received, struck and recorded: milliseconds since the run began.

use std::time::{Duration, Instant};

use chrono::Utc;

/// Milliseconds since the run began.
pub type Ms = u32;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
    began_epoch_ms: i64,
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self {
            began: Instant::now(),
            began_epoch_ms: Utc::now().timestamp_millis(),
        }
    }

    #[must_use]
    pub fn now(&self) -> Ms {
        Ms::try_from(self.began.elapsed().as_millis()).expect("a run takes less than weeks")
    }

    /// A moment by PostgreSQL's clock, which is this machine's.
    #[must_use]
    pub fn of_epoch_ms(&self, epoch_ms: i64) -> Ms {
        Ms::try_from((epoch_ms - self.began_epoch_ms).max(0)).expect("a moment of this run")
    }
}

/// As a person reads it.
#[must_use]
pub fn span(ms: Ms) -> Duration {
    Duration::from_millis(ms.into())
}
