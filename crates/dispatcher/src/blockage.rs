//! Whether what is sent can be recorded.
//!
//! [`crate::record`] says when a batch can't be written and when it is; [`crate::attempt`] begins nothing meanwhile, in
//! neither lane, and [`crate::presence`] shows it on the readiness probe. Postgres may answer everyone else: when the
//! partition of the day is missing, events are claimed as ever, and each that is sent would be sent again after a restart.

use tokio::sync::watch;

/// The handle of all sides; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Blockage(watch::Sender<Option<String>>);

impl Blockage {
    /// A batch could not be written; the last reason counts.
    pub fn begin(&self, why: String) {
        self.0.send_replace(Some(why));
    }

    /// A batch was written.
    pub fn end(&self) {
        self.0.send_if_modified(|why| why.take().is_some());
    }

    /// Why nothing can be recorded, while that is so.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Waits until something can be recorded; at once while nothing is in the way.
    pub async fn over(&self) {
        if self.0.borrow().is_none() {
            return;
        }
        // This handle keeps the channel open.
        let _ = self.0.subscribe().wait_for(Option::is_none).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn whoever_wants_to_send_waits_until_a_batch_is_written() {
        let blockage = Blockage::default();
        assert!(blockage.over().now_or_never().is_some());
        blockage.begin("no partition".to_owned());
        let waiting = blockage.clone();
        let mut over = Box::pin(async move { waiting.over().await });
        assert!((&mut over).now_or_never().is_none());
        assert_eq!(blockage.why().as_deref(), Some("no partition"));
        blockage.end();
        over.await;
        assert_eq!(blockage.why(), None);
    }
}
