//! Few partners and many.

use std::ops::Range;

use ::tests::load::{Behaviour, Clock, LoadReceiver};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Context, pairs};
use crate::ours::Ours;
use crate::report::{Findings, Goal, Line, cpu};
use crate::run::{Load, Outcome, PADDING_BYTES};
use crate::subscribers::Subscriber;

/// Of each partner.
const WEBHOOKS: u32 = 5;
const MANY: u32 = 100_000;
const FEW: u32 = 10;
/// The same choices in every run.
const SEED: u64 = 9;

/// How traffic spreads over partners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    /// The n-th partner has 1/n of the first one's.
    Zipf,
    Uniform,
}

/// Ten partners beside 100,000 with traffic as in life; then 100,000 that are all alike.
pub async fn many(context: &Context) -> Findings {
    let mut findings = Findings::default();
    let many = async || flood(context, MANY, Traffic::Zipf).await.0;
    let few = async || flood(context, FEW, Traffic::Zipf).await.0;
    let names = ("100,000 partners", "10 partners");
    let pairs = pairs::run(context, &mut findings, (names.0, many), (names.1, few)).await;
    let what = "flood of 100,000 partners beside 10, Zipf";
    let line = pairs.line(what, "/s", Some(Goal::AtLeast(0.9)), |o| o.per_second);
    findings.lines.push(line.with_note(pairs.cpu()));

    let (few, cached_few) = flood(context, FEW, Traffic::Uniform).await;
    findings.add_run("10 partners, uniform", &few);
    let (many, cached_many) = flood(context, MANY, Traffic::Uniform).await;
    findings.add_run("100,000 partners, uniform", &many);
    let line = Line::alone("the same, all partners alike", "/s", many.per_second);
    findings.lines.push(line.with_note(cpu(&many.cpu)));
    let more_bytes = (resident_mib(&many) - resident_mib(&few)) * 1024.0 * 1024.0;
    let more_cached = cached_many - cached_few;
    let line = Line::alone("memory of a cached webhook", "B", more_bytes / more_cached);
    let note =
        format!("{cached_many:.0} webhooks cached, beside the same flood with {cached_few:.0}");
    findings.lines.push(line.with_note(note));
    findings
}

/// Also how many webhooks the dispatcher holds in its cache.
async fn flood(context: &Context, partners: u32, traffic: Traffic) -> (Outcome, f64) {
    let receiver = LoadReceiver::start(Clock::start());
    let webhooks = 0..partners * WEBHOOKS;
    let subscribers: Vec<_> = webhooks
        .map(|webhook| Subscriber {
            partner: i64::from(1 + webhook / WEBHOOKS),
            url: receiver.url(Behaviour::Ok, webhook),
        })
        .collect();
    let ours = Ours::start(context, &subscribers, 1).await;
    let mut load = Load::flood(ours.target(PADDING_BYTES), context.flood_time());
    load.partner = choice(partners, traffic);
    let outcome = ours.measure(context, load, &receiver, webhooks_of, 0).await;
    let loads = ours
        .metric("vellocity_dispatcher_subscription_loads_total")
        .await;
    (outcome, loads * f64::from(WEBHOOKS))
}

fn webhooks_of(partner: i64) -> Range<u32> {
    let first = u32::try_from(partner - 1).unwrap() * WEBHOOKS;
    first..first + WEBHOOKS
}

fn resident_mib(outcome: &Outcome) -> f64 {
    let dispatcher = outcome.memory_mib.get("dispatcher 1");
    dispatcher.map_or(0.0, |memory| memory.now_mib)
}

/// The partner of each event.
fn choice(partners: u32, traffic: Traffic) -> Box<dyn FnMut(u32) -> i64 + Send> {
    let mut random = StdRng::seed_from_u64(SEED);
    match traffic {
        Traffic::Uniform => Box::new(move |_| i64::from(random.random_range(1..=partners))),
        Traffic::Zipf => {
            let shares = zipf(partners);
            Box::new(move |_| {
                let at: f64 = random.random();
                let place = shares.partition_point(|&share| share < at);
                i64::try_from(place + 1).unwrap().min(partners.into())
            })
        }
    }
}

/// For each partner the share of the traffic that it and those before it have.
fn zipf(partners: u32) -> Vec<f64> {
    let weights = (1..=partners).map(|n| 1.0 / f64::from(n));
    let sum: f64 = weights.clone().sum();
    let running = weights.scan(0.0, |so_far, weight| {
        *so_far += weight / sum;
        Some(*so_far)
    });
    running.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_partner_has_half_the_traffic_of_the_first() {
        let shares = zipf(1_000);
        assert!(((shares[1] - shares[0]) / shares[0] - 0.5).abs() < 1e-9);
        assert!((shares[999] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn everybody_who_is_chosen_exists_and_the_first_is_chosen_most() {
        for traffic in [Traffic::Zipf, Traffic::Uniform] {
            let mut choose = choice(10, traffic);
            let chosen: Vec<i64> = (0..10_000).map(&mut choose).collect();
            assert!(chosen.iter().all(|partner| (1..=10).contains(partner)));
            let of = |partner| chosen.iter().filter(|&&p| p == partner).count();
            assert_eq!(of(1) > 2 * of(10), traffic == Traffic::Zipf);
        }
    }
}
