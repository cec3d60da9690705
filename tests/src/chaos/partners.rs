//! The partners whose events are counted, their webhooks, and the receiver behind all of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::plan::Plan;
use futures_util::StreamExt as _;
use rand::Rng as _;
use serde_json::json;

use super::changes::Arrivals;
use super::clock::Clock;
use super::ledger::{HOOKS_MAX, Ledger, Manner};
use super::publisher::number_of;
use crate::receiver::Request;
use crate::{Answer, Partner, Receiver};

/// What is published.
pub const TYPE: &str = "listing.updated";
/// What one webhook of each partner waits for in vain.
const OTHER_TYPE: &str = "cosell.created";

/// Enough for every shard to have some.
const PARTNERS: usize = 20;
/// Share of a flaky webhook's requests that is answered with 500.
const FAILING: f64 = 0.15;
/// Longer than the 250 ms that a dispatcher holds an event.
const SLOW: Duration = Duration::from_millis(400);

/// Fan-out 1 to 5: each partner has as many of these as its number says, from the left.
const MANNERS: [Manner; HOOKS_MAX] = [
    Manner::Healthy,
    Manner::Healthy,
    Manner::Flaky,
    Manner::Slow,
    Manner::Flaky,
];

/// How many webhooks every event of each partner matches, and how they answer.
#[must_use]
pub fn shape() -> Vec<Vec<Manner>> {
    (0..PARTNERS)
        .map(|partner| MANNERS[..1 + partner % HOOKS_MAX].to_vec())
        .collect()
}

/// The partners' side of the run.
pub struct Partners {
    pub ids: Vec<i64>,
    /// Of each partner, in the order of the shape.
    pub webhooks: Vec<Vec<i64>>,
    pub receiver: Arc<Receiver>,
    /// While it is set, every flaky webhook refuses everything.
    pub outage: Arc<AtomicBool>,
}

impl Partners {
    /// Makes all of them over REST.
    pub async fn create(
        store: &store::Store,
        api_origin: &str,
        ledger: Arc<Mutex<Ledger>>,
        arrivals: Arc<Arrivals>,
        clock: Clock,
    ) -> Self {
        let outage = Arc::new(AtomicBool::new(false));
        let judge = Judge {
            ledger,
            arrivals,
            clock,
            outage: outage.clone(),
        };
        let judge = move |request: &Request| judge.answer(request);
        let receiver = Arc::new(Receiver::judged_by(Box::new(judge)).await);
        let made = futures_util::stream::iter(shape().into_iter().enumerate())
            .map(|(number, hooks)| {
                create_partner(store, api_origin, &receiver, number, hooks.len())
            })
            .buffered(2);
        let (ids, webhooks) = made.unzip().await;
        Self {
            ids,
            webhooks,
            receiver,
            outage,
        }
    }
}

async fn create_partner(
    store: &store::Store,
    api_origin: &str,
    receiver: &Receiver,
    number: usize,
    hooks: usize,
) -> (i64, Vec<i64>) {
    let partner = Partner::create(store, api_origin, Plan::Enterprise).await;
    let mut webhooks = Vec::new();
    for hook in 0..hooks {
        let url = receiver.url(&format!("{COUNTED}{number}/{hook}"));
        webhooks.push(partner.create_webhook(&url, &[TYPE]).await.id);
    }
    let url = receiver.url(&format!("{COUNTED}{number}/other"));
    let other = json!({"url": url, "events": [OTHER_TYPE]});
    partner.create_webhook_from(&other).await;
    (partner.id, webhooks)
}

const COUNTED: &str = "/counted/";

/// Notes each request and says how it is answered.
struct Judge {
    ledger: Arc<Mutex<Ledger>>,
    arrivals: Arc<Arrivals>,
    clock: Clock,
    outage: Arc<AtomicBool>,
}

impl Judge {
    fn answer(&self, request: &Request) -> Answer {
        let Some(place) = request.path.strip_prefix(COUNTED) else {
            self.arrivals.note(&request.path);
            return Answer::ok();
        };
        let number = request.header("X-Vellocity-Delivery").and_then(number_of);
        let place = place.split_once('/').and_then(|(partner, hook)| {
            Some((partner.parse::<u16>().ok()?, hook.parse::<usize>().ok()?))
        });
        let (Some(number), Some((partner, hook))) = (number, place) else {
            self.ledger.lock().unwrap().stray();
            return Answer::ok();
        };
        let manner = MANNERS[hook.min(HOOKS_MAX - 1)];
        let fails = manner == Manner::Flaky
            && (self.outage.load(Ordering::Relaxed) || rand::rng().random_bool(FAILING));
        let now = self.clock.now();
        let mut ledger = self.ledger.lock().unwrap();
        ledger.requested(number, partner, hook, !fails, now);
        match manner {
            _ if fails => Answer::status(500),
            Manner::Slow => Answer::ok().after(SLOW),
            Manner::Healthy | Manner::Flaky => Answer::ok(),
        }
    }
}
