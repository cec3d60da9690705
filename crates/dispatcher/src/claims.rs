//! Claims events, all that came during one statement with the next.
//!
//! Asked by [`crate::fan_out`] after validation and before anything is sent. Writes `claims`, over sessions whose
//! commits don't wait for the disk.

use std::collections::{HashMap, HashSet};

use domain::id::{EventId, PartnerId};
use store::claim::{Claim, ClaimRequest};
use store::{Store, StoreError};

use crate::batch::{Answer, BatchQueue, Batcher, batches};

/// Events in one statement.
const CLAIM_MAX: usize = 500;

pub type Claims = Batcher<ClaimRequest, Claim>;

/// Answers claims until nobody asks any more.
pub struct Claimer {
    queue: BatchQueue<ClaimRequest, Claim>,
    statements: Statements,
}

/// Runs on sessions with `synchronous_commit = off`.
struct Statements(Store);

/// Makes both ends, given a pool of such sessions.
#[must_use]
pub fn claims(relaxed: Store) -> (Claims, Claimer) {
    let (claims, queue) = batches(CLAIM_MAX);
    (
        claims,
        Claimer {
            queue,
            statements: Statements(relaxed),
        },
    )
}

impl Claimer {
    pub async fn run(self) {
        self.queue.run(self.statements).await;
    }
}

impl Answer<ClaimRequest, Claim> for Statements {
    const WHAT: &'static str = "claim events";

    async fn answer(&self, requests: &[ClaimRequest]) -> Result<Vec<Claim>, StoreError> {
        claim(&self.0, requests).await
    }
}

/// One event may be asked for twice in a batch; each copy has its own statement then.
async fn claim(store: &Store, requests: &[ClaimRequest]) -> Result<Vec<Claim>, StoreError> {
    let mut connection = store.get().await?;
    let mut open: Vec<usize> = (0..requests.len()).collect();
    let mut answers: HashMap<usize, Claim> = HashMap::with_capacity(requests.len());
    while !open.is_empty() {
        let (now, later) = first_copies(requests, &open);
        let distinct: Vec<_> = now
            .iter()
            .filter_map(|&i| requests.get(i).cloned())
            .collect();
        let claimed = store::claim::claim(&mut connection, &distinct).await?;
        answers.extend(now.into_iter().zip(claimed));
        open = later;
    }
    Ok((0..requests.len())
        .filter_map(|i| answers.get(&i).copied())
        .collect())
}

fn first_copies(requests: &[ClaimRequest], open: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut seen: HashSet<(PartnerId, &EventId)> = HashSet::with_capacity(open.len());
    open.iter().partition(|&&i| {
        requests
            .get(i)
            .is_some_and(|r| seen.insert((r.partner_id, &r.event_id)))
    })
}
