//! Notices that this process stood still: stopped by a signal, or the whole machine suspended.
//!
//! After half a heartbeat of silence the broker may have given this process up and handed its messages to others, so
//! its link is dropped before anything more is sent. Beats on its own task; asked before each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use broker::{Broker, Link};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Beats within the longest silence allowed.
const BEATS: u32 = 8;

#[derive(Clone, Debug)]
pub struct Pulse {
    clocks: Clocks,
    last_ms: Arc<AtomicU64>,
    silence_max: Duration,
    metrics: Metrics,
}

/// A suspended machine stops the monotonic clock, a stopped process does not: both clocks are asked.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    monotonic: Instant,
    wall: SystemTime,
}

impl Clocks {
    /// The time since this process began, by the clock that went further.
    fn elapsed(self) -> Duration {
        self.wall
            .elapsed()
            .unwrap_or_default()
            .max(self.monotonic.elapsed())
    }
}

impl Pulse {
    #[must_use]
    pub fn new(heartbeat: Duration, metrics: Metrics) -> Self {
        let clocks = Clocks {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        };
        Self {
            clocks,
            last_ms: Arc::new(AtomicU64::new(0)),
            silence_max: heartbeat / 2,
            metrics,
        }
    }

    /// Beats until told to stop.
    pub async fn run(self, broker: Broker, stop: CancellationToken) {
        let mut beat = tokio::time::interval(self.silence_max / BEATS);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(beat.tick()).await.is_some() {
            // Counted here, once for each: whether a sender or lapin notices first is a matter of chance.
            let silence = self.silence();
            if silence > self.silence_max {
                self.metrics.stalls.inc();
                tracing::warn!(
                    ?silence,
                    "this process stood still: dropping what it holds before sending anything more"
                );
            }
            if let Some(link) = broker.current() {
                self.check(&link);
            }
            self.last_ms.store(self.now_ms(), Ordering::Release);
        }
    }

    /// Whether something may be sent on behalf of a message that came over this link. Gives the link up if not.
    #[must_use]
    pub fn may_send(&self, link: &Link) -> bool {
        self.check(link);
        !link.is_lost()
    }

    fn check(&self, link: &Link) {
        let silence = self.silence();
        if silence > self.silence_max && !link.is_lost() {
            link.declare_lost(format!(
                "this process stood still for {} s",
                silence.as_secs()
            ));
        }
    }

    /// Since the last beat.
    fn silence(&self) -> Duration {
        let last_ms = self.last_ms.load(Ordering::Acquire);
        Duration::from_millis(self.now_ms().saturating_sub(last_ms))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clocks.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
