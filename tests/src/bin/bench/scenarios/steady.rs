//! At a pace that leaves time: how long an event takes, and how much of the broker it takes.

use tests::load::{Clock, LoadReceiver};

use super::floods::one_partner;
use super::{Context, WARM_UP, pairs};
use crate::bare::{Bare, Claim};
use crate::ours::Ours;
use crate::report::{Findings, Goal};
use crate::run::{Load, Outcome, PADDING_BYTES, first_webhooks};

/// So many events a second to one webhook, from the instant an event is due to its arrival.
pub async fn steady(context: &Context, per_second: u32, p50: f64, p99: f64) -> Findings {
    let mut findings = Findings::default();
    let ours = async || steady_ours(context, 1, per_second).await;
    let bare = async || steady_bare(context, 1, per_second, Claim::None).await;
    let names = ("ours", "bare pipeline");
    let pairs = pairs::run(context, &mut findings, (names.0, ours), (names.1, bare)).await;
    let what = |share| format!("{per_second} events/s, due to arrival, {share}");
    let goal = |most| Some(Goal::AtMost(most));
    let line = pairs.line(&what("p50"), "ms", goal(p50), |o| o.latency.p50_ms);
    findings.lines.push(line.with_note(pairs.cpu()));
    let line = pairs.line(&what("p99"), "ms", goal(p99), |o| o.latency.p99_ms);
    findings.lines.push(line);
    findings
}

/// What a simple claim of an event alone costs the bare pipeline, which the product can't do without.
pub async fn claim(context: &Context, per_second: u32) -> Findings {
    let mut findings = Findings::default();
    let with_claim = async || steady_bare(context, 1, per_second, Claim::Simple).await;
    let bare = async || steady_bare(context, 1, per_second, Claim::None).await;
    let names = ("with a claim", "bare pipeline");
    let (with_claim, bare) = ((names.0, with_claim), (names.1, bare));
    let pairs = pairs::run(context, &mut findings, with_claim, bare).await;
    let what = |share| format!("the bare pipeline with a claim, {per_second}/s, {share}");
    let line = pairs.line(&what("p50"), "ms", None, |o| o.latency.p50_ms);
    findings.lines.push(line.with_note(pairs.cpu()));
    let line = pairs.line(&what("p99"), "ms", None, |o| o.latency.p99_ms);
    findings.lines.push(line);
    findings
}

/// The broker's CPU at a pace near what both sides can keep. It hardly depends on how many events there are, and so the
/// cost of one in a flood says little: the faster side shares the same time among more.
pub async fn broker(context: &Context) -> Findings {
    let mut findings = Findings::default();
    for (webhooks, per_second) in [(1, 6_000), (10, 1_500)] {
        let ours = async || steady_ours(context, webhooks, per_second).await;
        let bare = async || steady_bare(context, webhooks, per_second, Claim::None).await;
        let names = ("ours", "bare pipeline");
        let pairs = pairs::run(context, &mut findings, (names.0, ours), (names.1, bare)).await;
        let what = format!("broker's CPU, {per_second} events/s to {webhooks}");
        let line = pairs.line(&what, "us", None, |o| o.cpu.broker_us);
        let least = pairs.least(|o| o.per_second) / f64::from(webhooks);
        let kept = format!("; at least {least:.0} events/s were kept");
        findings.lines.push(line.with_note(pairs.cpu() + &kept));
    }
    findings
}

async fn steady_bare(context: &Context, webhooks: u32, per_second: u32, claim: Claim) -> Outcome {
    let receiver = LoadReceiver::start(Clock::start());
    let bare = Bare::start(context, &receiver, webhooks, claim).await;
    let warm = Load::steady(bare.target(PADDING_BYTES), per_second, WARM_UP);
    let warm = bare.measure(context, warm, &receiver).await;
    let mut load = Load::steady(
        bare.target(PADDING_BYTES),
        per_second,
        context.steady_time(),
    );
    load.first = u32::try_from(warm.tally.events).unwrap();
    bare.measure(context, load, &receiver).await.after(warm)
}

async fn steady_ours(context: &Context, webhooks: u32, per_second: u32) -> Outcome {
    let receiver = LoadReceiver::start(Clock::start());
    let ours = Ours::start(context, &one_partner(&receiver, webhooks), 1).await;
    let warm = Load::steady(ours.target(PADDING_BYTES), per_second, WARM_UP);
    let warm = ours
        .measure(context, warm, &receiver, first_webhooks(webhooks), 0)
        .await;
    let mut load = Load::steady(
        ours.target(PADDING_BYTES),
        per_second,
        context.steady_time(),
    );
    load.first = u32::try_from(warm.tally.events).unwrap();
    let earlier = warm.tally.expected;
    ours.measure(context, load, &receiver, first_webhooks(webhooks), earlier)
        .await
        .after(warm)
}
