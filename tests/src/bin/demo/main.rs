//! `make demo`: shows a person that it works. Against a running stack it makes a partner and two webhooks, publishes one
//! event of each type, receives the deliveries itself, verifies every signature, and sees one of them fail and come
//! again. Exit code 0 only if all of that happened.
//!
//! Reads `VELLOCITY_API_URL`, `VELLOCITY_AMQP_URL` and `VELLOCITY_DATABASE_URL` (for `hookctl`, which it runs).

mod arrivals;
mod parts;
mod screen;
mod summary;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use parts::{Place, Published};
use screen::Screen;
use tests::{Amqp, Answer, Message, Receiver};

/// All of it must be over by then.
const DEADLINE: Duration = Duration::from_secs(60);

const HEALTHY: &str = "/healthy";
const FLAKY: &str = "/flaky";
const FLAKY_TYPE: &str = "content.generated";

/// Each event type of the catalogue, with data such as its product team would publish.
const EVENTS: [(&str, &str); 8] = [
    (
        "listing.created",
        r#"{"listing_id":123,"provider":"aws","status":"pending"}"#,
    ),
    (
        "listing.updated",
        r#"{"listing_id":123,"changes":["status","compliance_score"]}"#,
    ),
    (
        "listing.published",
        r#"{"listing_id":123,"published_at":"2026-02-26T12:00:00Z"}"#,
    ),
    (
        "listing.failed",
        r#"{"listing_id":124,"error":"Processing timeout"}"#,
    ),
    ("cosell.created", r#"{"opportunity_id":77,"partner":"aws"}"#),
    (
        "cosell.updated",
        r#"{"opportunity_id":77,"stage":"qualified"}"#,
    ),
    (
        "cosell.completed",
        r#"{"opportunity_id":77,"amount":12500.00}"#,
    ),
    (
        "content.generated",
        r#"{"content_id":9,"title":"Caf\u00e9 guide"}"#,
    ),
];

/// One for each event, one more of the flaky webhook's type, and its second attempt.
const REQUESTS_EXPECTED: usize = EVENTS.len() + 2;

#[tokio::main]
async fn main() -> ExitCode {
    let screen = Screen::new();
    match tokio::time::timeout(DEADLINE, show(&screen)).await {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(why)) => failed(&screen, &why),
        Err(_) => failed(&screen, &format!("it took longer than {DEADLINE:?}")),
    }
}

fn failed(screen: &Screen, why: &str) -> ExitCode {
    screen.bad(&format!("The demo failed: {why}"));
    ExitCode::FAILURE
}

async fn show(screen: &Screen) -> Result<(), String> {
    let place = Place::from_environment()?;
    let receiver = Receiver::start().await;
    receiver.next_at(FLAKY, [Answer::status(503).body("busy, come again")]);
    screen.line("Vellocity Webhooks: from a published event to a verified delivery");
    screen.line("");
    screen.pair("REST API", &place.api_url);
    screen.pair(
        "receiver",
        &format!("{} (inside this program)", receiver.url("")),
    );

    screen.title("1. A partner and its webhooks");
    let partner = parts::create_partner(screen).await?;
    let webhooks = parts::create_webhooks(screen, &place, &partner, &receiver).await?;

    screen.title("2. One event of each type, published to RabbitMQ");
    let published = publish_all(screen, &place, partner.id).await?;

    screen.title("3. What arrives at the receiver");
    let left = DEADLINE.saturating_sub(screen.elapsed());
    let seen = arrivals::watch(screen, &receiver, &webhooks, &published, left).await?;

    screen.title("4. What the API tells the partner afterwards");
    parts::show_health(screen, &place, &partner, &webhooks).await?;

    screen.title("5. Summary");
    summary::show(screen, &published, &seen);
    Ok(())
}

async fn publish_all(
    screen: &Screen,
    place: &Place,
    partner_id: i64,
) -> Result<Vec<Published>, String> {
    let amqp = Amqp::try_connect(&place.amqp_url)
        .await
        .map_err(|e| format!("RabbitMQ does not let us in: {e}"))?;
    let mut published = Vec::new();
    for (event_type, data) in EVENTS {
        let id = tests::stack::new_event_id();
        let timestamp = chrono::Utc::now().to_rfc3339();
        let message = Message::event_at(&id, event_type, partner_id, &timestamp, data);
        let at = Instant::now();
        match amqp.try_publish(&message).await {
            Ok(tests::amqp::Confirm::Confirmed) => {}
            other => return Err(format!("{event_type} was not confirmed: {other:?}")),
        }
        screen.line(&format!("  {event_type:<18} {id}  confirmed  {data}"));
        published.push(Published { id, event_type, at });
    }
    amqp.close().await;
    Ok(published)
}
