//! What bad webhooks of another partner, on the same host, cost the healthy ones.

use std::ops::Range;
use std::time::Duration;

use tests::load::{Behaviour, Clock, LoadReceiver};

use super::{Context, RECORDED_WITHIN, WARM_UP, pairs};
use crate::broker_alone::Probe;
use crate::ours::Ours;
use crate::report::{Findings, Goal};
use crate::run::{Load, Outcome, PADDING_BYTES, publish_both, until_accepted};
use crate::subscribers::Subscriber;

/// Partners with a healthy webhook each: partners from 1, webhooks from 0.
const HEALTHY: u32 = 20;
const PER_SECOND: u32 = 200;
/// The first of the neighbours.
const NEIGHBOUR: i64 = 1_000;
/// Numbers of the neighbours' events begin here.
const NEIGHBOUR_EVENTS: u32 = 1_000_000_000;

/// Who else is there: so many partners, whose webhooks behave like this, dealt out to them in turn.
struct Neighbours {
    partners: i64,
    behaviours: Vec<Behaviour>,
}

/// A partner's three webhooks: one never answers, one takes 8 s, one answers 500.
pub async fn three(context: &Context) -> Findings {
    let neighbours = Neighbours {
        partners: 1,
        behaviours: vec![
            Behaviour::Never,
            Behaviour::Slow(Duration::from_secs(8)),
            Behaviour::Status(500),
        ],
    };
    beside(context, "three bad webhooks", neighbours).await
}

/// 200 dead webhooks of 50 partners.
pub async fn two_hundred(context: &Context) -> Findings {
    let neighbours = Neighbours {
        partners: 50,
        behaviours: vec![Behaviour::Never; 200],
    };
    beside(context, "200 dead webhooks", neighbours).await
}

/// Runs with the neighbours as they are, and with all of them healthy.
async fn beside(context: &Context, what: &str, bad: Neighbours) -> Findings {
    let healthy = Neighbours {
        partners: bad.partners,
        behaviours: vec![Behaviour::Ok; bad.behaviours.len()],
    };
    let mut findings = Findings::default();
    let with_bad = async || run(context, &bad).await;
    let with_healthy = async || run(context, &healthy).await;
    let pairs = pairs::run(
        context,
        &mut findings,
        (what, with_bad),
        ("all healthy", with_healthy),
    )
    .await;
    let line = |share: &str, goal, figure: fn(&Outcome) -> f64| {
        let what = format!("{PER_SECOND}/s beside {what}, {share}");
        pairs.line(&what, "ms", goal, figure)
    };
    findings.lines.extend([
        line("p50", None, |outcome| outcome.latency.p50_ms),
        line("p99", Some(Goal::AtMost(2.0)), |outcome| {
            outcome.latency.p99_ms
        }),
        pairs.broker_alone("p99", |alone| alone.p99_ms),
    ]);
    findings
}

async fn run(context: &Context, neighbours: &Neighbours) -> Outcome {
    let receiver = LoadReceiver::start(Clock::start());
    let ours = Ours::start(context, &subscribers(&receiver, neighbours), 1).await;
    let (time, clock) = (context.steady_time(), receiver.clock());
    // A cold cache and new connections would count among the slowest, on both sides.
    let warm_up = healthy_load(&ours, 0, WARM_UP).publish(clock).await;
    let first = u32::try_from(warm_up.partners.len()).unwrap();
    until_accepted(&receiver, warm_up.partners.len()).await;
    let load = healthy_load(&ours, first, time);
    let beside = neighbours_load(&ours, neighbours.partners, time);
    let probe = Probe::start(ours.target(PADDING_BYTES), time, clock);
    let (published, beside) = publish_both(load, beside, clock).await;
    let samples = probe.end().await;

    let expected = warm_up.partners.len() + published.partners.len();
    until_accepted(&receiver, expected).await;
    let arrivals = receiver.take().only(|arrival| arrival.webhook < HEALTHY);
    let of_warm_up = arrivals.only(|arrival| arrival.event < first);
    let arrivals = arrivals.only(|arrival| arrival.event >= first);
    let mut outcome = Outcome::of(
        "healthy webhooks",
        &published,
        &arrivals,
        webhook_of,
        |_| true,
    );
    outcome.hold_against("warm-up", &of_warm_up.tally(&warm_up, webhook_of));
    outcome.set_broker_alone(&samples, |_| true);
    let each = neighbours.behaviours.len() / usize::try_from(neighbours.partners).unwrap();
    let expected_rows = expected + beside.partners.len() * each;
    hold_handed_over_against(&mut outcome, &ours, expected_rows, expected).await;
    outcome.memory_mib = ours.memory_mib();
    outcome
}

/// Keeps the rows; a fault unless there are so many, none of them given up, and the healthy ones delivered.
async fn hold_handed_over_against(
    outcome: &mut Outcome,
    ours: &Ours,
    expected: usize,
    healthy: usize,
) {
    let rows = ours.until_recorded(expected, RECORDED_WITHIN).await;
    let delivered = healthy_rows(ours, healthy).await;
    if delivered != healthy {
        let fault = format!("{healthy} healthy deliveries, {delivered} recorded as delivered");
        outcome.faults.push(fault);
    }
    let recorded: usize = rows.values().sum();
    if recorded != expected || rows.contains_key("cancelled") || rows.contains_key("exhausted") {
        let fault = format!("{expected} deliveries to hand over, the rows say {rows:?}");
        outcome.faults.push(fault);
    }
    outcome.rows = rows;
}

/// Events of the neighbours in turn.
fn neighbours_load(ours: &Ours, partners: i64, time: Duration) -> Load {
    Load {
        first: NEIGHBOUR_EVENTS,
        partner: Box::new(move |number| NEIGHBOUR + i64::from(number) % partners),
        ..Load::steady(ours.target(PADDING_BYTES), PER_SECOND, time)
    }
}

/// Events of the healthy partners in turn, from that number on.
fn healthy_load(ours: &Ours, first: u32, time: Duration) -> Load {
    Load {
        first,
        partner: Box::new(|number| 1 + i64::from(number % HEALTHY)),
        ..Load::steady(ours.target(PADDING_BYTES), PER_SECOND, time)
    }
}

fn webhook_of(partner: i64) -> Range<u32> {
    let webhook = u32::try_from(partner - 1).unwrap();
    webhook..webhook + 1
}

fn subscribers(receiver: &LoadReceiver, neighbours: &Neighbours) -> Vec<Subscriber> {
    let healthy = (0..HEALTHY).map(|webhook| Subscriber {
        partner: 1 + i64::from(webhook),
        url: receiver.url(Behaviour::Ok, webhook),
    });
    let others = (0..).zip(&neighbours.behaviours);
    let others = others.map(|(place, &behaviour)| Subscriber {
        partner: NEIGHBOUR + i64::from(place) % neighbours.partners,
        url: receiver.url(behaviour, HEALTHY + place),
    });
    healthy.chain(others).collect()
}

/// Healthy deliveries that are recorded as delivered, once there are as many as expected or time is over.
async fn healthy_rows(ours: &Ours, expected: usize) -> usize {
    let sql = ours.database.sql().await;
    let query = "SELECT count(*) FROM deliveries WHERE status = 'delivered' AND partner_id < $1";
    let mut count = 0;
    for _ in 0..100 {
        let rows: i64 = sql.value_of(query, &[&NEIGHBOUR]).await;
        count = usize::try_from(rows).unwrap();
        if count >= expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    count
}
