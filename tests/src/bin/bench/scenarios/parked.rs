//! A webhook that fails while 100,000 events come, and is healed then.

use std::time::{Duration, Instant};

use tests::load::{Behaviour, Clock, LoadReceiver};

use super::Context;
use crate::ours::{Ours, Rows, delivered};
use crate::report::{Findings, Goal, Line};
use crate::run::{Load, Outcome, PADDING_BYTES, first_webhooks, until_accepted};
use crate::subscribers::{ONLY_PARTNER, Subscriber};
use crate::usage::Memory;

const EVENTS: u32 = 100_000;
/// What each service may hold with events of this size.
const MEMORY_MIB_MAX: f64 = 200.0;
/// What the broker may hold: it has 100,000 references to keep, and no events.
const BROKER_MIB_MAX: f64 = 512.0;
/// All of it waits by then, or the machine is too slow for this scenario.
const PARKED_WITHIN: Duration = Duration::from_secs(300);
/// All has been delivered by then.
const DELIVERED_WITHIN: Duration = Duration::from_secs(900);

pub async fn parked(context: &Context) -> Findings {
    let receiver = LoadReceiver::start(Clock::start());
    let url = receiver.url(Behaviour::Ill, 0);
    let partner = ONLY_PARTNER;
    let ours = Ours::start(context, &[Subscriber { partner, url }], 1).await;
    Memory::forget_most_of_broker(&context.folder);
    let mut load = Load::flood(ours.target(PADDING_BYTES), Duration::from_secs(600));
    load.count_max = EVENTS;
    let published = load.publish(receiver.clock()).await;
    let expected = published.partners.len();
    let waiting = ours.until_recorded(expected, PARKED_WITHIN).await;
    let refused = receiver.count();
    let healed = Instant::now();
    receiver.heal();
    until_all_came(&receiver, expected, healed).await;
    let rows = ours.until_delivered(expected, super::RECORDED_WITHIN).await;
    let took_s = healed.elapsed().as_secs_f64();

    let arrivals = receiver.take();
    let mut outcome = Outcome::of("arrivals", &published, &arrivals, first_webhooks(1), |_| {
        true
    });
    outcome.memory_mib = ours.memory_mib();
    outcome.hold_rows_against(rows, delivered(expected));
    if waiting != Rows::from([("pending".to_owned(), expected)]) {
        let fault =
            format!("{expected} were to wait when it was healed, the rows said {waiting:?}");
        outcome.faults.push(fault);
    }
    let mut findings = Findings::default();
    findings.add_run("parked and healed", &outcome);
    let what = format!("{EVENTS} failing, healed: until all are delivered");
    let note = format!("{refused} refused; when healed: {waiting:?}");
    findings
        .lines
        .push(Line::alone(&what, "s", took_s).with_note(note));
    for (name, memory) in &outcome.memory_mib {
        let what = format!("the same, most memory of {name}");
        let line = Line::alone(&what, "MiB", memory.most_mib);
        let goal = Goal::AtMost(MEMORY_MIB_MAX);
        findings.lines.push(line.with_goal(goal));
    }
    let broker = Memory::of_broker(&context.folder);
    let note = format!("{:.0} MiB at the end", broker.now_mib);
    let line = Line::alone(
        "the same, most memory of the broker",
        "MiB",
        broker.most_mib,
    );
    let goal = Goal::AtMost(BROKER_MIB_MAX);
    findings.lines.push(line.with_goal(goal).with_note(note));
    findings
}

/// Between two retries there may be minutes in which nothing comes.
async fn until_all_came(receiver: &LoadReceiver, expected: usize, since: Instant) {
    while receiver.accepted() < expected as u64 && since.elapsed() < DELIVERED_WITHIN {
        until_accepted(receiver, expected).await;
    }
}
