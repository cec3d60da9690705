//! Shows each request as it arrives, verifies it, and knows when all have come.

use std::time::{Duration, Instant};

use tests::receiver::Request;
use tests::{Receiver, signature};

use crate::parts::{Published, Webhooks};
use crate::screen::Screen;
use crate::{FLAKY, HEALTHY, REQUESTS_EXPECTED};

/// A request that was verified.
pub struct Seen {
    pub event_id: String,
    pub path: String,
    /// Since its event was published.
    pub after: Duration,
    /// From 1, for this webhook and event.
    pub attempt: usize,
    pub answered: u16,
}

/// Returns when every event has arrived at the healthy webhook and the flaky one has had its second attempt.
///
/// # Errors
/// When a signature is wrong, something arrives that nobody published, or not all of it comes in time.
pub async fn watch(
    screen: &Screen,
    receiver: &Receiver,
    webhooks: &Webhooks,
    published: &[Published],
    deadline: Duration,
) -> Result<Vec<Seen>, String> {
    let (started, mut seen) = (Instant::now(), Vec::new());
    while !is_complete(&seen, published) {
        let left = deadline.saturating_sub(started.elapsed());
        let requests = receiver
            .wait_until_within(left, |requests| requests.len() > seen.len())
            .await
            .ok_or_else(|| missing(&seen))?;
        for request in requests.iter().skip(seen.len()) {
            let arrival = check(request, webhooks, published, &seen)?;
            show(screen, request, &arrival, &seen);
            seen.push(arrival);
        }
    }
    Ok(seen)
}

fn check(
    request: &Request,
    webhooks: &Webhooks,
    published: &[Published],
    seen: &[Seen],
) -> Result<Seen, String> {
    let id = request.header("X-Vellocity-Delivery").unwrap_or_default();
    let event = published
        .iter()
        .find(|event| event.id == id)
        .ok_or_else(|| format!("a delivery of {id:?} arrived, which was not published"))?;
    signature::verify(request, webhooks.secret_of(&request.path))
        .map_err(|why| format!("{} at {}: {why}", event.id, request.path))?;
    let earlier = seen
        .iter()
        .filter(|s| s.event_id == id && s.path == request.path);
    let attempt = earlier.count() + 1;
    Ok(Seen {
        event_id: id.to_owned(),
        path: request.path.clone(),
        after: request.arrived.saturating_duration_since(event.at),
        attempt,
        answered: if request.path == FLAKY && attempt == 1 {
            503
        } else {
            200
        },
    })
}

fn show(screen: &Screen, request: &Request, arrival: &Seen, seen: &[Seen]) {
    screen.line(&format!("  {} {} HTTP/1.1", request.method, request.path));
    for (name, value) in &request.headers {
        screen.faint(&format!("    {name}: {value}"));
    }
    screen.line(&format!("    {}", String::from_utf8_lossy(&request.body)));
    screen.good(&format!(
        "    signature verified (X-Vellocity-Signature and webhook-signature), {} ms after the event was published",
        arrival.after.as_millis()
    ));
    if arrival.answered != 200 {
        screen.warning(&format!(
            "    answered {}: this receiver fails at first",
            arrival.answered
        ));
    } else if arrival.attempt > 1 {
        let first = seen
            .iter()
            .find(|s| s.event_id == arrival.event_id && s.path == arrival.path);
        let waited = first.map_or(Duration::ZERO, |s| arrival.after.saturating_sub(s.after));
        screen.good(&format!(
            "    answered 200: retried {:.1} s after the failure, with the same id and a fresh signature",
            waited.as_secs_f64()
        ));
    } else {
        screen.line("    answered 200");
    }
    screen.line("");
}

fn is_complete(seen: &[Seen], published: &[Published]) -> bool {
    let healthy = published.iter().all(|event| {
        seen.iter()
            .any(|s| s.path == HEALTHY && s.event_id == event.id)
    });
    healthy
        && seen
            .iter()
            .any(|s| s.path == FLAKY && s.attempt > 1 && s.answered == 200)
}

fn missing(seen: &[Seen]) -> String {
    format!(
        "only {} of {REQUESTS_EXPECTED} requests arrived in time",
        seen.len()
    )
}
