//! What the demo makes before anything can arrive: a partner by `hookctl`, webhooks over REST.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value answers null for what it lacks"
)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::client::BASE_PATH;
use tests::{Client, Receiver, Response};

use crate::screen::Screen;
use crate::{EVENTS, FLAKY, FLAKY_TYPE, HEALTHY};

const PATH: &str = "/partners/webhooks";
/// What happened at a webhook is recorded within milliseconds after its answer.
const RECORD_DEADLINE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where the stack is.
pub struct Place {
    pub api_url: String,
    pub amqp_url: String,
}

pub struct Partner {
    pub id: i64,
    pub key: String,
}

pub struct Webhook {
    pub id: i64,
    pub secret: String,
}

pub struct Webhooks {
    pub healthy: Webhook,
    pub flaky: Webhook,
}

pub struct Published {
    pub id: String,
    pub event_type: &'static str,
    pub at: Instant,
}

impl Place {
    pub fn from_environment() -> Result<Self, String> {
        let variable = |name: &str| {
            std::env::var(name).map_err(|_| format!("{name} is not set (run this by `make demo`)"))
        };
        variable("VELLOCITY_DATABASE_URL")?;
        Ok(Self {
            api_url: variable("VELLOCITY_API_URL")?,
            amqp_url: variable("VELLOCITY_AMQP_URL")?,
        })
    }

    fn client(&self, partner: &Partner) -> Client {
        Client::new(&self.api_url, Some(&partner.key))
    }
}

impl Webhooks {
    pub fn secret_of(&self, path: &str) -> &str {
        if path == FLAKY {
            &self.flaky.secret
        } else {
            &self.healthy.secret
        }
    }
}

pub async fn create_partner(screen: &Screen) -> Result<Partner, String> {
    let words = [
        "partner",
        "create",
        "--name",
        "Demo partner",
        "--plan",
        "Accelerate",
        "--json",
    ];
    screen.faint("  $ hookctl partner create --name 'Demo partner' --plan Accelerate --json");
    let run = move || {
        Command::new("hookctl")
            .args(words)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
    };
    let output = tokio::task::spawn_blocking(run)
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| format!("hookctl can't be run: {e}"))?;
    if !output.status.success() {
        return Err(format!("hookctl ended with {}", output.status));
    }
    let told: Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("hookctl's answer is no JSON: {e}"))?;
    let (Some(id), Some(key)) = (told["partner_id"].as_i64(), told["api_key"].as_str()) else {
        return Err("hookctl told neither partner_id nor api_key".to_owned());
    };
    let shown: String = key.chars().take(12).collect();
    screen.line(&format!(
        "  partner {id} on the plan Accelerate, API key {shown}…"
    ));
    Ok(Partner {
        id,
        key: key.to_owned(),
    })
}

pub async fn create_webhooks(
    screen: &Screen,
    place: &Place,
    partner: &Partner,
    receiver: &Receiver,
) -> Result<Webhooks, String> {
    let client = place.client(partner);
    let all: Vec<_> = EVENTS.iter().map(|(event_type, _)| *event_type).collect();
    let healthy = json!({"url": receiver.url(HEALTHY), "events": all, "description": "all events"});
    let flaky = json!({
        "url": receiver.url(FLAKY),
        "events": [FLAKY_TYPE],
        "description": "fails at first",
    });
    Ok(Webhooks {
        healthy: create_webhook(screen, &client, &healthy).await?,
        flaky: create_webhook(screen, &client, &flaky).await?,
    })
}

async fn create_webhook(screen: &Screen, client: &Client, body: &Value) -> Result<Webhook, String> {
    screen.faint(&format!("  POST {BASE_PATH}{PATH} {body}"));
    let request = client.request(reqwest::Method::POST, PATH).json(body);
    let answer = answered(client, request, 201).await?;
    let (data, meta) = (&answer.body["data"], &answer.body["meta"]);
    let (Some(id), Some(secret)) = (data["id"].as_i64(), meta["secret"].as_str()) else {
        return Err(format!(
            "the answer has no id or no secret: {}",
            answer.text
        ));
    };
    let count = data["attributes"]["events"].as_array().map_or(0, Vec::len);
    let shown: String = secret.chars().take(6).collect();
    screen.line(&format!(
        "  201: webhook {id}, {count} event types, secret {shown}… ({} characters, shown once)",
        secret.len()
    ));
    Ok(Webhook {
        id,
        secret: secret.to_owned(),
    })
}

/// Waits until the last results are recorded, and shows them.
pub async fn show_health(
    screen: &Screen,
    place: &Place,
    partner: &Partner,
    webhooks: &Webhooks,
) -> Result<(), String> {
    let client = place.client(partner);
    for webhook in [&webhooks.healthy, &webhooks.flaky] {
        let path = format!("{PATH}/{}", webhook.id);
        let started = Instant::now();
        let attributes = loop {
            let request = client.request(reqwest::Method::GET, &path);
            let answer = answered(&client, request, 200).await?;
            let attributes = answer.body["data"]["attributes"].clone();
            let recorded =
                attributes["last_response_code"] == 200 && attributes["failure_count"] == 0;
            if recorded {
                break attributes;
            }
            if started.elapsed() > RECORD_DEADLINE {
                return Err(format!(
                    "GET {path} never told of the success: {}",
                    answer.text
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        screen.line(&format!(
            "  GET {BASE_PATH}{path}: last_response_code {}, failure_count {}, last_triggered_at {}",
            attributes["last_response_code"],
            attributes["failure_count"],
            attributes["last_triggered_at"].as_str().unwrap_or("-"),
        ));
    }
    Ok(())
}

async fn answered(
    client: &Client,
    request: reqwest::RequestBuilder,
    status: u16,
) -> Result<Response, String> {
    let answer = client
        .try_send(request)
        .await
        .map_err(|e| format!("the API does not answer: {e}"))?;
    if answer.status == status {
        Ok(answer)
    } else {
        Err(format!(
            "the API answered {}: {}",
            answer.status, answer.text
        ))
    }
}
