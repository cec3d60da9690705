//! One partner floods while 1,000 others go about their business.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use broker::topology;
use tests::Amqp;
use tests::load::{Arrivals, Behaviour, Clock, LoadReceiver, Published, Tally, event_id};

use super::{Context, RECORDED_WITHIN, pairs};
use crate::broker_alone::Probe;
use crate::figures::{Latency, median};
use crate::ours::{Ours, delivered};
use crate::report::{Findings, Goal, Line};
use crate::run::{Load, Outcome, PADDING_BYTES, publish_both, until_accepted};
use crate::subscribers::Subscriber;

/// Partners from 1, with one webhook each, from 0.
const OTHERS: u32 = 1_000;
const PER_SECOND: u32 = 200;
/// Its webhook is the next after the others'.
const FLOODING: i64 = OTHERS as i64 + 1;
const FLOOD: u32 = 100_000;
/// Numbers of its events begin here.
const FLOOD_EVENTS: u32 = 1_000_000_000;
/// Numbers of the events that only show who shares a queue.
const PROBES: u32 = 2_000_000_000;
/// One event for each partner comes first: what is known of a partner is kept longer than the run lasts.
const WARM_UP: u32 = OTHERS + 1;
/// Events of others while the flood lasts; of fewer a percentile says nothing.
const COUNTED_MIN: usize = 100;
/// Of the default configuration.
const SHARDS: u16 = 8;

/// Latencies are of the partners whose events stand in other shards than the flood, while it lasts.
pub async fn flood(context: &Context) -> Findings {
    let mut findings = Findings::default();
    let flooded = async || run(context, FLOOD).await;
    let quiet = async || run(context, 0).await;
    let names = ("flooded", "quiet");
    let pairs = pairs::run(context, &mut findings, (names.0, flooded), (names.1, quiet)).await;
    let what = format!("{PER_SECOND}/s of others beside a flood of {FLOOD}");
    let goal = Some(Goal::AtMost(3.0));
    let p50 = format!("{what}, p50");
    let p90 = median(&pairs.ours(|outcome| outcome.latency.p90_ms));
    findings.lines.extend([
        pairs.line(&p50, "ms", goal, |outcome| outcome.latency.p50_ms),
        Line::alone("the same, p90", "ms", p90).with_goal(Goal::AtMost(50.0)),
        pairs.broker_alone("p50", |alone| alone.p50_ms),
    ]);
    findings
}

async fn run(context: &Context, flood: u32) -> Outcome {
    let receiver = LoadReceiver::start(Clock::start());
    // The queues are there once a dispatcher has declared them; who stands where is asked while none consumes.
    let mut ours = Ours::start(context, &subscribers(&receiver), 1).await;
    ours.end_dispatcher().await;
    let in_the_same_shard = neighbours_in_shard(&ours, receiver.clock()).await;
    ours.add_dispatcher().await;

    let warm = warm_up(&ours, &receiver).await;
    let time = context.steady_time();
    let mut load = Load::steady(ours.target(PADDING_BYTES), PER_SECOND, time);
    load.first = WARM_UP;
    load.partner = Box::new(|number| 1 + i64::from(number % OTHERS));
    let mut flooding = Load::flood(ours.target(PADDING_BYTES), Duration::from_secs(600));
    (flooding.first, flooding.count_max) = (FLOOD_EVENTS, flood);
    flooding.partner = Box::new(|_| FLOODING);
    let clock = receiver.clock();
    let probe = Probe::start(ours.target(PADDING_BYTES), time, clock);
    let (others, flooding) = publish_both(load, flooding, clock).await;
    let samples = probe.end().await;
    let expected = others.partners.len() + flooding.partners.len();
    until_accepted(&receiver, expected).await;
    let expected_rows = expected + warm.events;
    let rows = ours.until_delivered(expected_rows, RECORDED_WITHIN).await;

    let arrivals = receiver.take();
    let of_others = arrivals.only(|arrival| arrival.event < FLOOD_EVENTS);
    let of_flood = arrivals.only(|arrival| arrival.event >= FLOOD_EVENTS);
    let in_another_shard = |webhook: u32| !in_the_same_shard.contains(&webhook);
    let lasts = span(&flooding, &of_flood);
    let in_time = |event: u32| others.due_us(event).is_some_and(|due| lasts.contains(&due));
    let meanwhile = of_others.only(|arrival| in_time(arrival.event));
    let latencies = meanwhile.latencies_us(&others, in_another_shard);
    let counted = latencies.len();
    let mut outcome = Outcome {
        per_second: arrivals.per_second(),
        latency: Latency::of(latencies),
        memory_mib: ours.memory_mib(),
        ..Outcome::of("the others", &others, &of_others, webhook_of, |_| false)
    };
    outcome.set_broker_alone(&samples, |due_us| lasts.contains(&due_us));
    if counted < COUNTED_MIN {
        let fault = format!("the flood was too short: {counted} events of others meanwhile");
        outcome.faults.push(fault);
    }
    outcome.hold_against("the flood", &of_flood.tally(&flooding, webhook_of));
    outcome.hold_against("the warm-up", &warm);
    outcome.hold_rows_against(rows, delivered(expected_rows));
    outcome
}

/// An event for each partner, so that who is asked about next is known, as in life: beside the flood nobody pays for
/// the first look at a partner.
async fn warm_up(ours: &Ours, receiver: &LoadReceiver) -> Tally {
    let mut load = Load::flood(ours.target(PADDING_BYTES), Duration::from_secs(60));
    load.count_max = WARM_UP;
    load.partner = Box::new(|number| 1 + i64::from(number));
    let published = load.publish(receiver.clock()).await;
    until_accepted(receiver, published.partners.len()).await;
    receiver.take().tally(&published, webhook_of)
}

/// From the flood's first event to its last arrival, in microseconds; all time where there is none.
fn span(flood: &Published, arrivals: &Arrivals) -> Range<u64> {
    let first_us = flood.due_us.first().copied().unwrap_or(0);
    first_us..arrivals.last_us().unwrap_or(u64::MAX)
}

fn webhook_of(partner: i64) -> Range<u32> {
    let webhook = u32::try_from(partner - 1).unwrap();
    webhook..webhook + 1
}

fn subscribers(receiver: &LoadReceiver) -> Vec<Subscriber> {
    let partners = (1..=FLOODING).zip(0..);
    partners
        .map(|(partner, webhook)| Subscriber {
            partner,
            url: receiver.url(Behaviour::Ok, webhook),
        })
        .collect()
}

/// The webhooks of the partners whose events stand in the flooding partner's shard.
async fn neighbours_in_shard(ours: &Ours, clock: Clock) -> HashSet<u32> {
    let mut probes = Load::flood(ours.target(0), Duration::from_secs(60));
    (probes.first, probes.count_max) = (PROBES, OTHERS + 1);
    probes.partner = Box::new(|number| 1 + i64::from(number - PROBES));
    let probes: Published = probes.publish(clock).await;
    assert_eq!(probes.partners.last(), Some(&FLOODING));
    let amqp = Amqp::connect(ours.vhost.url()).await;
    let mut found = HashSet::new();
    for queue in topology::event_queues(SHARDS) {
        let mut shard = HashSet::new();
        while let Some(body) = amqp.take(&queue).await {
            let text = String::from_utf8(body).unwrap();
            let is_of = |webhook: &u32| text.contains(&event_id(PROBES + webhook));
            shard.extend((0..=OTHERS).find(is_of));
        }
        if shard.contains(&OTHERS) {
            found = shard;
        }
    }
    amqp.close().await;
    assert!(
        !found.is_empty(),
        "the flooding partner stands in some shard"
    );
    found
}
