//! How many events are on their way to be recorded: whether it is worth it for a batch to wait for more. From the question
//! for the claim to the hand-over, however long receivers take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A hint, so relaxed ordering is enough.
#[derive(Clone, Debug, Default)]
pub(super) struct OnTheirWay(Arc<AtomicUsize>);

/// An event on its way, until it is handed over or given up, either of which drops this.
#[derive(Debug)]
#[must_use = "batches wait for it while it lives, each for a moment"]
pub struct Coming(OnTheirWay);

impl OnTheirWay {
    pub(super) fn enter(&self) -> Coming {
        self.0.fetch_add(1, Ordering::Relaxed);
        Coming(self.clone())
    }

    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        (self.0).0.fetch_sub(1, Ordering::Relaxed);
    }
}
