//! As fast as it goes: published with a window, for a time, and all at once taken, sent and recorded.

use tests::load::{Behaviour, Clock, LoadReceiver};

use super::Context;
use super::pairs::{self, Pairs};
use crate::bare::{Bare, Claim};
use crate::ours::Ours;
use crate::report::{Findings, Goal};
use crate::run::{Load, Outcome, PADDING_BYTES, first_webhooks};
use crate::subscribers::{self, Subscriber};

/// Events of one partner.
#[derive(Clone, Copy)]
pub(super) struct Events {
    /// How many webhooks each event goes to.
    pub webhooks: u32,
    pub padding_bytes: usize,
}

/// One partner, so many webhooks an event, beside the bare pipeline.
pub async fn flood(context: &Context, webhooks: u32, goal: f64) -> Findings {
    let what = match webhooks {
        1 => "flood, one webhook an event".to_owned(),
        more => format!("flood, {more} webhooks an event"),
    };
    let events = Events {
        webhooks,
        ..Events::FLOOD
    };
    let mut findings = Findings::default();
    let pairs = beside_bare(context, &mut findings, events).await;
    let line = pairs.line(&what, "/s", Some(Goal::AtLeast(goal)), |o| o.per_second);
    findings.lines.push(line.with_note(pairs.cpu()));
    findings
}

/// Small, middling and large events.
pub async fn payloads(context: &Context) -> Findings {
    let mut findings = Findings::default();
    for (name, padding_bytes) in [("200 B", 200), ("4 KiB", 4 << 10), ("64 KiB", 64 << 10)] {
        let what = format!("flood, one webhook, payload of {name}");
        let events = Events {
            padding_bytes,
            ..Events::FLOOD
        };
        let pairs = beside_bare(context, &mut findings, events).await;
        let line = pairs.line(&what, "/s", None, |o| o.per_second);
        findings.lines.push(line.with_note(pairs.cpu()));
    }
    findings
}

async fn beside_bare(context: &Context, findings: &mut Findings, events: Events) -> Pairs {
    let ours = async || flood_ours(context, events, 1).await;
    let bare = async || flood_bare(context, events).await;
    pairs::run(context, findings, ("ours", ours), ("bare pipeline", bare)).await
}

async fn flood_bare(context: &Context, events: Events) -> Outcome {
    let receiver = LoadReceiver::start(Clock::start());
    let bare = Bare::start(context, &receiver, events.webhooks, Claim::None).await;
    let load = Load::flood(bare.target(events.padding_bytes), context.flood_time());
    bare.measure(context, load, &receiver).await
}

pub(super) async fn flood_ours(context: &Context, events: Events, dispatchers: usize) -> Outcome {
    let receiver = LoadReceiver::start(Clock::start());
    let ours = Ours::start(
        context,
        &one_partner(&receiver, events.webhooks),
        dispatchers,
    )
    .await;
    let load = Load::flood(ours.target(events.padding_bytes), context.flood_time());
    let webhooks = first_webhooks(events.webhooks);
    ours.measure(context, load, &receiver, webhooks, 0).await
}

impl Events {
    pub(super) const FLOOD: Self = Self {
        webhooks: 1,
        padding_bytes: PADDING_BYTES,
    };
}

pub(super) fn one_partner(receiver: &LoadReceiver, webhooks: u32) -> Vec<Subscriber> {
    let urls = (0..webhooks).map(|webhook| receiver.url(Behaviour::Ok, webhook));
    let partner = subscribers::ONLY_PARTNER;
    urls.map(|url| Subscriber { partner, url }).collect()
}
