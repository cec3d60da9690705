//! Somebody who uses the REST API all the time: creates a webhook, changes its URL, deletes it, every second anew. What
//! the API has confirmed must become effective: events reach the webhook, and after the change its new URL. A request
//! whose answer was lost is sent again with the same `Idempotency-Key`, to whichever instance answers.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::plan::Plan;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::fleet::Part;
use crate::stack::new_event_id;
use crate::{Amqp, Client, Message, Partner};

/// Changes are spread over so many partners, none of which has many webhooks at a time.
const PARTNERS: usize = 10;
const EVERY: Duration = Duration::from_secs(1);
/// More are not begun while so many wait for something that is away.
const AT_ONCE: usize = 20;
const TYPE: &str = "content.generated";
/// A request without an answer by then is sent again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A change that was confirmed and has no effect by then is lost.
const EFFECT_WITHIN: Duration = Duration::from_secs(90);
/// Changes take seconds where all is well, and one that has had no effect is given up by then.
const ENDED_WITHIN: Duration = Duration::from_secs(120);

/// Which paths have had a request.
#[derive(Default)]
pub struct Arrivals(Mutex<HashSet<String>>);

impl Arrivals {
    pub fn note(&self, path: &str) {
        let mut paths = self.0.lock().unwrap();
        if !paths.contains(path) {
            paths.insert(path.to_owned());
        }
    }

    fn has(&self, path: &str) -> bool {
        self.0.lock().unwrap().contains(path)
    }
}

/// What became of the changes.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Creations and changes that were answered with a success.
    pub confirmed: usize,
    /// Requests that had to be sent again.
    pub repeated: usize,
    /// For each that became effective, from the confirm to the first event that it let through.
    pub effect_ms: Vec<u64>,
    pub problems: Vec<String>,
}

pub struct Changes {
    stop: watch::Sender<bool>,
    gate: Gate,
    task: JoinSet<()>,
    tally: Arc<Mutex<Tally>>,
}

/// Changes pass it, each for as long as it takes; whoever wants quiet closes it.
type Gate = Arc<RwLock<()>>;

/// Everything that one change needs.
struct User {
    partners: Vec<Partner>,
    apis: Vec<Arc<Part>>,
    amqp_url: String,
    origin: String,
    arrivals: Arc<Arrivals>,
    tally: Arc<Mutex<Tally>>,
}

impl Changes {
    /// `receiver_origin` is where all requests are noted in `arrivals`.
    pub async fn start(
        store: &store::Store,
        apis: Vec<Arc<Part>>,
        amqp_url: &str,
        receiver_origin: &str,
        arrivals: Arc<Arrivals>,
    ) -> Self {
        let partners = (0..PARTNERS).map(|_| Partner::create(store, "", Plan::Enterprise));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let user = Arc::new(User {
            partners: join_all(partners).await,
            apis,
            amqp_url: amqp_url.to_owned(),
            origin: receiver_origin.to_owned(),
            arrivals,
            tally: tally.clone(),
        });
        let (stop, stopped) = watch::channel(false);
        let gate = Gate::default();
        let mut task = JoinSet::new();
        task.spawn(go_on(user, gate.clone(), stopped));
        Self {
            stop,
            gate,
            task,
            tally,
        }
    }

    /// Waits for those that are under way. While what is returned is held, none is begun, and so no event is published.
    ///
    /// # Errors
    /// When they take too long.
    pub async fn pause(&self) -> Result<OwnedRwLockWriteGuard<()>, String> {
        timeout(ENDED_WITHIN, self.gate.clone().write_owned())
            .await
            .map_err(|_| format!("changes are under way for more than {ENDED_WITHIN:?}"))
    }

    /// Begins no more, waits for those that are under way, and tells what became of all.
    ///
    /// # Panics
    /// When a change panicked.
    pub async fn finish(&mut self) -> Tally {
        self.stop.send_replace(true);
        while let Some(ended) = self.task.join_next().await {
            ended.expect("changes do not panic");
        }
        std::mem::take(&mut *self.tally.lock().unwrap())
    }
}

async fn go_on(user: Arc<User>, gate: Gate, mut stopped: watch::Receiver<bool>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut running = JoinSet::new();
    for number in 0.. {
        let passing = async {
            ticks.tick().await;
            gate.clone().read_owned().await
        };
        let pass = tokio::select! {
            pass = passing => pass,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        while running.try_join_next().is_some() {}
        if running.len() < AT_ONCE {
            let user = user.clone();
            running.spawn(async move {
                user.change(number).await;
                drop(pass);
            });
        }
    }
    while running.join_next().await.is_some() {}
}

impl User {
    async fn change(&self, number: usize) {
        if let Err(problem) = self.try_change(number).await {
            let mut tally = self.tally.lock().unwrap();
            tally.problems.push(format!("change {number}: {problem}"));
        }
    }

    async fn try_change(&self, number: usize) -> Result<(), String> {
        let partner = &self.partners[number % self.partners.len()];
        let (first, second) = (
            format!("/change/{number}/first"),
            format!("/change/{number}/second"),
        );
        let body = json!({"url": format!("{}{first}", self.origin), "events": [TYPE]});
        let created = self
            .until_confirmed(partner, Method::POST, Partner::WEBHOOKS, &body, &[201])
            .await?;
        let id = created["data"]["id"].as_i64().ok_or("no id")?;
        self.until_effective(partner, &first).await?;

        let path = Partner::webhook_path(id);
        let body = json!({"url": format!("{}{second}", self.origin)});
        self.until_confirmed(partner, Method::PATCH, &path, &body, &[200])
            .await?;
        self.until_effective(partner, &second).await?;

        // Deleted by a request whose answer was lost, it is not found any more.
        self.until_confirmed(partner, Method::DELETE, &path, &Value::Null, &[204, 404])
            .await?;
        Ok(())
    }

    /// Sends a request until it is answered as expected.
    async fn until_confirmed(
        &self,
        partner: &Partner,
        method: Method,
        path: &str,
        body: &Value,
        expected: &[u16],
    ) -> Result<Value, String> {
        let key = new_event_id();
        let started = Instant::now();
        let mut last = String::new();
        for round in 0.. {
            let api = &self.apis[round % self.apis.len()];
            let client = Client::new(&api.api_origin(), Some(&partner.key));
            let mut request = client
                .request(method.clone(), path)
                .header("Idempotency-Key", &key);
            if !body.is_null() {
                request = request.json(body);
            }
            last = match timeout(ANSWER_WITHIN, client.try_send(request)).await {
                Ok(Ok(answer)) if expected.contains(&answer.status) => {
                    self.tally.lock().unwrap().confirmed += usize::from(!body.is_null());
                    return Ok(answer.body);
                }
                // What is not the system's trouble would not go away.
                Ok(Ok(answer)) if answer.status < 500 && !matches!(answer.status, 409 | 429) => {
                    return Err(format!(
                        "{method} {path}: {} {}",
                        answer.status, answer.text
                    ));
                }
                Ok(Ok(answer)) => format!("{} {}", answer.status, answer.text),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if started.elapsed() > EFFECT_WITHIN {
                break;
            }
            self.tally.lock().unwrap().repeated += 1;
            sleep(AGAIN_AFTER).await;
        }
        Err(format!("{method} {path} was never confirmed: {last}"))
    }

    /// Publishes events until one arrives there.
    async fn until_effective(&self, partner: &Partner, path: &str) -> Result<(), String> {
        let started = Instant::now();
        let mut amqp = None;
        while started.elapsed() < EFFECT_WITHIN {
            if amqp.is_none() {
                let connected = timeout(ANSWER_WITHIN, Amqp::try_connect(&self.amqp_url)).await;
                amqp = connected.ok().and_then(Result::ok);
            }
            if let Some(connected) = &amqp {
                let event = Message::event(&new_event_id(), TYPE, partner.id, "{}");
                let sent = timeout(ANSWER_WITHIN, connected.try_publish(&event)).await;
                if !matches!(sent, Ok(Ok(_))) {
                    amqp = None;
                }
            }
            let arrived = async {
                while !self.arrivals.has(path) {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            if timeout(AGAIN_AFTER, arrived).await.is_ok() {
                let took = u64::try_from(started.elapsed().as_millis()).expect("not that long");
                self.tally.lock().unwrap().effect_ms.push(took);
                if let Some(amqp) = amqp {
                    let _closed = timeout(ANSWER_WITHIN, amqp.close()).await;
                }
                return Ok(());
            }
        }
        Err(format!(
            "confirmed, and no event arrived at {path} within {EFFECT_WITHIN:?}"
        ))
    }
}
