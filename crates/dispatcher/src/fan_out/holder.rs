//! A claim that another copy of the event holds, in this process or another: waiting until its holder has recorded it, or
//! has given it up.

use std::time::Duration;

use broker::{Delivery, Link};
use domain::rejection::Rejection;
use runtime::Backoff;
use store::claim::{Claim, ClaimRequest};

use super::claimed::Claimed;
use super::{FanOut, Fate};
use crate::claims::ClaimLane;

/// How often a copy that may take a claim over looks whether its holder has recorded it.
const HOLDER_ASKED_EVERY: Duration = Duration::from_millis(200);

impl FanOut {
    /// All that comes before anything is sent. A copy that may take the claim over waits for its holder first.
    pub(super) async fn prepare(
        &self,
        message: &Delivery,
        link: &Link,
        lane: ClaimLane,
    ) -> Result<Claimed, Fate> {
        let mut prepared = self.prepare_first(message, link, lane).await;
        while let Err(Fate::HolderIsYoung) = prepared {
            tokio::select! {
                () = tokio::time::sleep(HOLDER_ASKED_EVERY) => {}
                () = self.attempts.draining.cancelled() => return Err(Fate::Back),
            }
            prepared = self.claim(message, link, lane).await;
        }
        prepared
    }

    /// Waits for whoever took the claim over, as a fresh copy would. To go back at once would be to take it over in turn,
    /// and two that record slowly would send the event again and again.
    pub(super) async fn await_holder(&self, claim: ClaimRequest, conflict: Rejection) -> Fate {
        let mut backoff = Backoff::default();
        loop {
            tokio::time::sleep(backoff.next_delay()).await;
            match self.claims.ask(ClaimLane::Express, claim.clone()).await {
                Some(Claim::InProgress) => {}
                Some(Claim::Duplicate) => return Fate::Done("duplicate"),
                Some(Claim::Conflict) => return Fate::Rejected(conflict),
                // Whoever had it has given it up: it is this message's turn again.
                Some(Claim::Held(_)) | None => return Fate::Back,
            }
        }
    }
}
