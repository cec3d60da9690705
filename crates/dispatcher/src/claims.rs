//! Claims events, all that came during one statement with the next.
//!
//! Asked by [`crate::fan_out`] after validation and before anything is sent. Writes `claims`, over sessions whose
//! commits don't wait for the disk.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use domain::id::{EventId, PartnerId};
use store::claim::{Claim, ClaimRequest};
use store::{Store, StoreError};

use crate::batch::{Answer, BatchQueue, Batcher, batches};
use crate::metrics::Metrics;

/// Events in one statement.
const CLAIM_MAX: usize = 500;

/// How long a crowd's next batch gathers: nearly all of its events wait for others of their shard anyway, and what a
/// statement costs by itself is better shared by more of them.
const CROWD_GATHERS: Duration = Duration::from_millis(4);

/// Which events wait for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimLane {
    /// Claimed as soon as the statement before is done.
    Express,
    /// Events of a shard that has many under way. Those of other shards must not wait for their statements.
    Crowd,
}

/// The askers' end; cheap to clone.
#[derive(Clone, Debug)]
pub struct Claims {
    express: Batcher<ClaimRequest, Claim>,
    crowd: Batcher<ClaimRequest, Claim>,
}

/// Answers claims until nobody asks any more.
pub struct Claimer {
    express: BatchQueue<ClaimRequest, Claim>,
    crowd: BatchQueue<ClaimRequest, Claim>,
    statements: Statements,
}

/// Runs on sessions with `synchronous_commit = off`.
#[derive(Clone)]
struct Statements {
    store: Store,
    metrics: Metrics,
}

/// Makes both ends, given a pool of such sessions, one for each lane.
#[must_use]
pub fn claims(relaxed: Store, metrics: Metrics) -> (Claims, Claimer) {
    let (express, express_queue) = batches(CLAIM_MAX);
    let (crowd, crowd_queue) = batches(CLAIM_MAX);
    (
        Claims { express, crowd },
        Claimer {
            express: express_queue,
            crowd: crowd_queue.with_pause(CROWD_GATHERS),
            statements: Statements {
                store: relaxed,
                metrics,
            },
        },
    )
}

impl Claims {
    /// Asks, and waits for the answer for as long as it takes. `None` when the claimer has ended.
    pub async fn ask(&self, lane: ClaimLane, request: ClaimRequest) -> Option<Claim> {
        match lane {
            ClaimLane::Express => self.express.ask(request).await,
            ClaimLane::Crowd => self.crowd.ask(request).await,
        }
    }
}

impl Claimer {
    pub async fn run(self) {
        let express = self.express.run(self.statements.clone());
        tokio::join!(express, self.crowd.run(self.statements));
    }
}

impl Answer<ClaimRequest, Claim> for Statements {
    const WHAT: &'static str = "claim events";

    async fn answer(&self, requests: &[ClaimRequest]) -> Result<Vec<Claim>, StoreError> {
        let started = Instant::now();
        let claims = claim(&self.store, requests).await?;
        self.metrics
            .batch("claim", claims.len(), started.elapsed().as_secs_f64());
        Ok(claims)
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
