//! Partners whose receivers behave badly, and what `hookctl deliveries show` tells of a delivery to one of them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::id::DeliveryId;
use serde_json::Value;
use tests::database::Sql;
use tests::{Partner, Stack, eventually};

use super::hookctl_line::Hookctl;

const EVENT_TYPE: &str = "listing.updated";
/// What a failed attempt is followed by, unless a test says otherwise: long enough that nothing more happens while it
/// is looked at.
const RETRY_AFTER_S: f64 = 60.0;
/// The share of jitter that tests run with, and a little for rounding.
const JITTER: f64 = 0.11;
/// From an attempt's end to its record, on a busy machine.
const RECORDED_WITHIN_S: f64 = 20.0;

/// Times out soon enough for receivers that never come to an end.
pub const IMPATIENT: [(&str, &str); 2] = [
    ("dispatcher.deliver.timeout_ms", "2000"),
    ("dispatcher.deliver.connect_timeout_ms", "2000"),
];

pub struct Hell {
    stack: Stack,
    pub sql: Sql,
    hookctl: Hookctl,
}

/// One event on its way to one webhook.
#[derive(Clone, Debug)]
pub struct Delivery {
    partner: Partner,
    pub event_id: String,
    pub webhook_id: i64,
}

/// What the command tells, for programs and for people.
#[derive(Clone, Debug)]
pub struct Shown {
    pub document: Value,
    pub text: String,
}

impl Hell {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let schedule = format!("{RETRY_AFTER_S},{RETRY_AFTER_S}");
        let mut builder = Stack::builder()
            .set("retry_policy.schedule_s", &schedule)
            // Whether a connection is used again is for the test to say, and not for a busy machine.
            .set("dispatcher.deliver.pool_idle_timeout_ms", "60000");
        for (key, value) in settings {
            builder = builder.set(key, value);
        }
        let stack = builder.start().await;
        Self {
            sql: stack.database.sql().await,
            hookctl: Hookctl::of(&stack),
            stack,
        }
    }

    /// Makes a webhook of a new partner and publishes one event.
    pub async fn send(&self, url: &str) -> Delivery {
        let [delivery] = self.send_to_each([url]).await;
        delivery
    }

    /// Makes webhooks of a new partner and publishes one event for all of them. A new one, since it takes its time
    /// until a change of a partner's webhooks counts everywhere.
    pub async fn send_to_each<const N: usize>(&self, urls: [&str; N]) -> [Delivery; N] {
        let partner = self.stack.partner().await;
        let mut webhook_ids = [0; N];
        for (id, url) in webhook_ids.iter_mut().zip(urls) {
            *id = partner.create_webhook(url, &[EVENT_TYPE]).await.id;
        }
        let event_id = self.publish(&partner).await;
        webhook_ids.map(|webhook_id| Delivery {
            partner: partner.clone(),
            event_id: event_id.clone(),
            webhook_id,
        })
    }

    /// One more event for the same webhook.
    pub async fn send_again(&self, delivery: &Delivery) -> Delivery {
        Delivery {
            event_id: self.publish(&delivery.partner).await,
            ..delivery.clone()
        }
    }

    async fn publish(&self, partner: &Partner) -> String {
        self.stack.publish(partner, EVENT_TYPE, "{}").await
    }

    /// What is shown once an attempt has ended.
    pub async fn attempted(&self, delivery: &Delivery) -> Shown {
        let condition = "attempts >= 1 AND status <> 'in_flight'";
        self.shown_when(delivery, condition).await
    }

    pub async fn delivered(&self, delivery: &Delivery) -> Shown {
        self.shown_when(delivery, "status = 'delivered'").await
    }

    /// What is shown once the row satisfies a condition in SQL.
    pub async fn shown_when(&self, delivery: &Delivery, condition: &str) -> Shown {
        let query = format!(
            "SELECT id::text FROM deliveries WHERE event_id = $1 AND webhook_id = $2 AND {condition}"
        );
        let id: String = eventually(condition, async || {
            let (event, webhook) = (&delivery.event_id, &delivery.webhook_id);
            let rows = self.sql.rows(&query, &[event, webhook]).await;
            rows.first().map(|row| row.get(0))
        })
        .await;
        let id = DeliveryId(id.parse().unwrap()).to_string();
        let line = ["deliveries", "show", &id];
        let (ended, document) = tokio::join!(self.hookctl.run(&line), self.hookctl.json(&line));
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
        Shown {
            document,
            text: ended.stdout,
        }
    }

    /// The lines that `hookctl deliveries list` has for people, of one event.
    pub async fn listed(&self, delivery: &Delivery) -> String {
        let line = ["deliveries", "list", "--event", &delivery.event_id];
        let ended = self.hookctl.run(&line).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.stdout
    }

    pub async fn finish(self) {
        self.stack.finish().await;
    }
}

impl Shown {
    pub fn attempts(&self) -> &[Value] {
        self.document["attempts"].as_array().unwrap()
    }

    pub fn last_attempt(&self) -> &Value {
        self.attempts().last().expect("an attempt")
    }

    /// One of the last attempt's times, in milliseconds.
    pub fn ms(&self, name: &str) -> Option<f64> {
        let times = &self.last_attempt()["times_ms"];
        assert!(times.get(name).is_some(), "{times}");
        times[name].as_f64()
    }

    /// The times of the last attempt's steps, as far as there were any.
    pub fn steps(&self) -> Vec<&'static str> {
        let steps = ["dns", "connect", "tls", "first_byte"];
        steps.into_iter().filter(|s| self.ms(s).is_some()).collect()
    }

    pub fn time(&self, name: &str) -> DateTime<Utc> {
        time(&self.document[name])
    }

    /// When the last attempt had its result, to a millisecond.
    pub fn ended_at(&self) -> DateTime<Utc> {
        let took = Duration::from_secs_f64(self.ms("total").unwrap() / 1000.0);
        time(&self.last_attempt()["started_at"]) + took
    }

    /// Seconds from the end of the last attempt to the next.
    pub fn wait_s(&self) -> f64 {
        (self.time("next_attempt_at") - self.ended_at()).as_seconds_f64()
    }

    /// The only attempt failed like this, and the schedule's own wait follows.
    #[track_caller]
    pub fn assert_failed(&self, code: Option<u16>, kind: &str, sentence: &str) {
        self.assert_failed_for_now(code, kind, sentence);
        self.assert_next_is_scheduled();
    }

    /// The only attempt failed like this, and there will be another.
    #[track_caller]
    pub fn assert_failed_for_now(&self, code: Option<u16>, kind: &str, sentence: &str) {
        let document = &self.document;
        assert_eq!(document["status"], "pending", "{document:#}");
        assert_eq!(document["finished_at"], Value::Null, "{document:#}");
        self.assert_result(code, kind, sentence);
    }

    /// The only attempt failed like this, whatever follows.
    #[track_caller]
    pub fn assert_result(&self, code: Option<u16>, kind: &str, sentence: &str) {
        let document = &self.document;
        assert_eq!(document["attempt_count"], 1, "{document:#}");
        assert_eq!(self.attempts().len(), 1, "{document:#}");
        for told in [document, self.last_attempt()] {
            assert_eq!(told["error"], sentence, "{document:#}");
            assert_eq!(told["error_kind"], kind, "{document:#}");
            assert_eq!(told["response_code"], Value::from(code), "{document:#}");
        }
        assert!(
            self.text.contains(&format!(": {sentence}\n")),
            "{}",
            self.text
        );
        self.assert_harmless();
    }

    /// No more than the schedule's jitter away from its own wait.
    #[track_caller]
    pub fn assert_next_is_scheduled(&self) {
        let earliest = RETRY_AFTER_S * (1.0 - JITTER);
        let latest = RETRY_AFTER_S * (1.0 + JITTER) + RECORDED_WITHIN_S;
        let wait_s = self.wait_s();
        assert!((earliest..latest).contains(&wait_s), "{wait_s} s");
        assert!(self.text.contains("next attempt  "), "{}", self.text);
    }

    /// The receiver's wish is the next attempt's time: not earlier, and not later than a record takes.
    #[track_caller]
    pub fn assert_next_is_after(&self, asked_s: f64) {
        let wait_s = self.wait_s();
        let expected = asked_s - 0.01..asked_s + RECORDED_WITHIN_S;
        assert!(expected.contains(&wait_s), "{wait_s} s");
    }

    /// The only attempt succeeded.
    #[track_caller]
    pub fn assert_delivered(&self, code: u16) {
        let document = &self.document;
        assert_eq!(document["status"], "delivered", "{document:#}");
        assert_eq!(document["attempt_count"], 1, "{document:#}");
        assert_eq!(document["next_attempt_at"], Value::Null, "{document:#}");
        assert!(document["finished_at"].is_string(), "{document:#}");
        assert_eq!(self.attempts().len(), 1, "{document:#}");
        for told in [document, self.last_attempt()] {
            assert_eq!(told["response_code"], code, "{document:#}");
            assert_eq!(told["error"], Value::Null, "{document:#}");
            assert_eq!(told["error_kind"], Value::Null, "{document:#}");
        }
        assert!(
            self.text.contains(&format!(": answered {code}\n")),
            "{}",
            self.text
        );
        self.assert_harmless();
    }

    /// Nothing that a receiver sent steers the terminal, or hides text from whoever reads it.
    #[track_caller]
    fn assert_harmless(&self) {
        let harmful = |c: &char| {
            c.is_control() && !matches!(c, '\n' | '\t')
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        };
        let found: Vec<_> = self.text.chars().filter(harmful).collect();
        assert!(found.is_empty(), "{found:?} in {}", self.text);
    }
}

fn time(value: &Value) -> DateTime<Utc> {
    let text = value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no time"));
    text.parse().unwrap()
}
