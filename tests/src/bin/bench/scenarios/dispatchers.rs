//! One, two and four dispatchers, and a flood during which they come and go.

use std::time::Instant;

use tests::load::{Clock, LoadReceiver};

use super::Context;
use super::floods::{Events, flood_ours, one_partner};
use crate::ours::{Ours, delivered};
use crate::report::{Findings, Line, cpu};
use crate::run::{Load, Outcome, PADDING_BYTES, first_webhooks, until_accepted};

/// So many come, and as many go, while events are published.
const CHANGES: usize = 3;

pub async fn dispatchers(context: &Context) -> Findings {
    let mut findings = Findings::default();
    for count in [1, 2, 4] {
        let outcome = flood_ours(context, Events::FLOOD, count).await;
        let name = format!("dispatchers: {count}");
        findings.add_run(&name, &outcome);
        let what = format!("flood, one webhook, {name}");
        let line = Line::alone(&what, "/s", outcome.per_second);
        findings.lines.push(line.with_note(cpu(&outcome.cpu)));
    }
    let outcome = coming_and_going(context).await;
    findings.add_run("coming and going", &outcome);
    let what = "the same while they come and go";
    let line = Line::alone(what, "/s", outcome.per_second);
    let note = format!("{CHANGES} came, {CHANGES} went");
    findings.lines.push(line.with_note(note));
    findings
}

async fn coming_and_going(context: &Context) -> Outcome {
    let receiver = LoadReceiver::start(Clock::start());
    let mut ours = Ours::start(context, &one_partner(&receiver, 1), 2).await;
    let load = Load::flood(ours.target(PADDING_BYTES), context.flood_time());
    let changing = async {
        for _ in 0..CHANGES {
            ours.add_dispatcher().await;
            ours.end_dispatcher().await;
        }
    };
    let publishing = async {
        let published = load.publish(receiver.clock()).await;
        (published, Instant::now())
    };
    let changing = async {
        changing.await;
        Instant::now()
    };
    let ((published, last_published), last_changed) = tokio::join!(publishing, changing);
    let expected = published.partners.len();
    until_accepted(&receiver, expected).await;
    let rows = ours.until_delivered(expected, super::RECORDED_WITHIN).await;
    let arrivals = receiver.take();
    let mut outcome = Outcome::of("arrivals", &published, &arrivals, first_webhooks(1), |_| {
        true
    });
    outcome.memory_mib = ours.memory_mib();
    outcome.hold_rows_against(rows, delivered(expected));
    if last_changed > last_published {
        let fault = "the last of them went after the last event".to_owned();
        outcome.faults.push(fault);
    }
    outcome
}
