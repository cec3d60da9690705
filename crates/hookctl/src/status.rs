//! How things stand: queue depths, what waits the longest, which services are alive. What can't be reached is part of
//! the answer; the rest is told all the same.

use std::time::Duration;

use broker::topology::{self, QueueDepth};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use store::service_instance::{self, ServiceInstance};
use store::{dead_letter, delivery};
use tokio::net::TcpStream;
use url::Url;

use crate::answer::{Answer, Table, or_dash};
use crate::arguments::Status;
use crate::environment::Environment;
use crate::error::{Error, exit};
use crate::shown;

/// Services write a sign of life every few seconds.
const ALIVE_WITHIN: Duration = Duration::from_secs(30);
const API_LIMIT: Duration = Duration::from_secs(3);

/// What Postgres knows.
struct Rows {
    oldest: Option<DateTime<Utc>>,
    services: Vec<ServiceInstance>,
    rejected: u64,
    dead: u64,
}

pub async fn run(command: Status, environment: &Environment) -> Result<Answer, Error> {
    // A line that makes no sense is a mistake, and not a broker that is away.
    let queues = tell(queues(command.shards, environment).await)?;
    let rows = tell(rows(environment).await)?;
    let api = api(environment.api_url.as_deref()).await;
    let is_whole = queues.is_ok() && rows.is_ok() && api != Some(false);
    let answer = Answer::new(document(&queues, &rows, api), text(&queues, &rows, api));
    Ok(answer.with_exit_code(if is_whole {
        exit::OK
    } else {
        exit::UNAVAILABLE
    }))
}

/// Separates what is away from what went wrong otherwise.
fn tell<T>(result: Result<T, Error>) -> Result<Result<T, String>, Error> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.exit_code() == exit::UNAVAILABLE => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

async fn queues(shards: u16, environment: &Environment) -> Result<Vec<QueueDepth>, Error> {
    let rabbitmq = environment.rabbitmq(shards).await?;
    let depths = topology::depths(&rabbitmq.link).await;
    rabbitmq.close().await;
    Ok(depths?)
}

async fn rows(environment: &Environment) -> Result<Rows, Error> {
    let mut conn = environment.postgres().await?;
    Ok(Rows {
        oldest: delivery::oldest_waiting(&mut conn).await?,
        services: service_instance::alive(&mut conn, ALIVE_WITHIN).await?,
        rejected: dead_letter::count(&mut conn, dead_letter::Line::Rejected).await?,
        dead: dead_letter::count(&mut conn, dead_letter::Line::Dead).await?,
    })
}

/// Whether something listens where the API should; `None` where nobody said where that is.
async fn api(url: Option<&str>) -> Option<bool> {
    let url = Url::parse(url?).ok()?;
    let place = (url.host_str()?.to_owned(), url.port_or_known_default()?);
    let connected = tokio::time::timeout(API_LIMIT, TcpStream::connect(place)).await;
    Some(matches!(connected, Ok(Ok(_))))
}

type Told<T> = Result<T, String>;

fn document(queues: &Told<Vec<QueueDepth>>, rows: &Told<Rows>, api: Option<bool>) -> Value {
    let mut document = json!({"api_reachable": api});
    let mut put = |name: &str, value: Value| {
        if let Some(object) = document.as_object_mut() {
            object.insert(name.to_owned(), value);
        }
    };
    match queues {
        Ok(queues) => put("queues", Value::Array(queues.iter().map(queue).collect())),
        Err(why) => put("rabbitmq_error", json!(why)),
    }
    match rows {
        Ok(rows) => {
            put("oldest_waiting_at", json!(rows.oldest.map(shown::ms)));
            put("oldest_waiting_s", json!(rows.oldest.map(age_s)));
            put(
                "services",
                Value::Array(rows.services.iter().map(service).collect()),
            );
            put("rejected", json!(rows.rejected));
            put("dead", json!(rows.dead));
        }
        Err(why) => put("postgres_error", json!(why)),
    }
    document
}

/// Never negative, should the clocks differ.
fn age_s(time: DateTime<Utc>) -> f64 {
    ((Utc::now() - time).num_milliseconds().max(0) as f64) / 1000.0
}

fn queue(depth: &QueueDepth) -> Value {
    json!({"name": depth.name, "ready": depth.ready, "consumers": depth.consumers})
}

fn service(instance: &ServiceInstance) -> Value {
    json!({
        "service": instance.service,
        "instance": instance.instance,
        "version": instance.version,
        "ready": instance.ready,
        "detail": instance.detail,
        "started_at": shown::ms(instance.started_at),
        "heartbeat_at": shown::ms(instance.heartbeat_at),
    })
}

fn text(queues: &Told<Vec<QueueDepth>>, rows: &Told<Rows>, api: Option<bool>) -> String {
    let mut text = String::new();
    match queues {
        Ok(queues) => {
            let mut table = Table::new(["queue", "ready", "consumers"]);
            for depth in queues {
                let ready = depth
                    .ready
                    .map_or_else(|| "missing".to_owned(), |n| n.to_string());
                table.row([depth.name.clone(), ready, depth.consumers.to_string()]);
            }
            text.push_str(&table.render_or("no queues"));
        }
        Err(why) => text.push_str(&format!("RabbitMQ: {why}\n")),
    }
    text.push('\n');
    match rows {
        Ok(rows) => text.push_str(&rows_text(rows)),
        Err(why) => text.push_str(&format!("Postgres: {why}\n")),
    }
    if api == Some(false) {
        text.push_str("\nThe management API can't be reached.\n");
    }
    text
}

fn rows_text(rows: &Rows) -> String {
    let mut table = Table::new([
        "service", "instance", "version", "ready", "started", "detail",
    ]);
    for instance in &rows.services {
        table.row([
            instance.service.clone(),
            instance.instance.clone(),
            instance.version.clone(),
            if instance.ready { "yes" } else { "no" }.to_owned(),
            shown::ms(instance.started_at),
            or_dash(Some(instance.detail.as_str()).filter(|detail| !detail.is_empty())),
        ]);
    }
    let oldest = match rows.oldest {
        Some(oldest) => format!("{:.1} s overdue", age_s(oldest)),
        None => "nothing is overdue".to_owned(),
    };
    format!(
        "{}\noldest waiting: {oldest}\nrejected events: {}, dead messages: {}\n",
        table.render_or("no service is alive"),
        rows.rejected,
        rows.dead
    )
}
