//! As fast as it goes: published with a window, for a time, and all at once taken, sent and recorded.

use tests::load::{Behaviour, Clock, LoadReceiver};

use super::{Context, pairs};
use crate::bare::{Bare, Claim};
use crate::ours::Ours;
use crate::report::{Findings, Goal};
use crate::run::{Load, Outcome, PADDING_BYTES, first_webhooks};
use crate::subscribers::{self, Subscriber};

/// One partner, so many webhooks an event, beside the bare pipeline.
pub async fn flood(context: &Context, webhooks: u32, goal: f64) -> Findings {
    let what = match webhooks {
        1 => "flood, one webhook an event".to_owned(),
        more => format!("flood, {more} webhooks an event"),
    };
    let mut findings = Findings::default();
    let goal = Some(Goal::AtLeast(goal));
    beside_bare(
        context,
        &mut findings,
        &what,
        (webhooks, PADDING_BYTES),
        goal,
    )
    .await;
    findings
}

/// Small, middling and large events.
pub async fn payloads(context: &Context) -> Findings {
    let mut findings = Findings::default();
    for (name, bytes) in [("200 B", 200), ("4 KiB", 4 << 10), ("64 KiB", 64 << 10)] {
        let what = format!("flood, one webhook, payload of {name}");
        beside_bare(context, &mut findings, &what, (1, bytes), None).await;
    }
    findings
}

async fn beside_bare(
    context: &Context,
    findings: &mut Findings,
    what: &str,
    (webhooks, padding_bytes): (u32, usize),
    goal: Option<Goal>,
) {
    let ours = async || flood_ours(context, webhooks, padding_bytes, 1).await;
    let bare = async || flood_bare(context, webhooks, padding_bytes).await;
    let pairs = pairs::run(context, findings, ("ours", ours), ("bare pipeline", bare)).await;
    let line = pairs.line(what, "/s", goal, |outcome| outcome.per_second);
    findings.lines.push(line.with_note(pairs.cpu()));
}

async fn flood_bare(context: &Context, webhooks: u32, padding_bytes: usize) -> Outcome {
    let receiver = LoadReceiver::start(Clock::start());
    let bare = Bare::start(&receiver, webhooks, Claim::None).await;
    let load = Load::flood(bare.target(padding_bytes), context.flood_time());
    bare.measure(context, load, &receiver).await
}

pub(super) async fn flood_ours(
    context: &Context,
    webhooks: u32,
    padding_bytes: usize,
    dispatchers: usize,
) -> Outcome {
    let receiver = LoadReceiver::start(Clock::start());
    let ours = Ours::start(&one_partner(&receiver, webhooks), dispatchers).await;
    let load = Load::flood(ours.target(padding_bytes), context.flood_time());
    let webhooks = first_webhooks(webhooks);
    ours.measure(context, load, &receiver, webhooks, 0).await
}

pub(super) fn one_partner(receiver: &LoadReceiver, webhooks: u32) -> Vec<Subscriber> {
    let urls = (0..webhooks).map(|webhook| receiver.url(Behaviour::Ok, webhook));
    let partner = subscribers::ONLY_PARTNER;
    urls.map(|url| Subscriber { partner, url }).collect()
}
