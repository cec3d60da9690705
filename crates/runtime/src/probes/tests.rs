use prometheus::IntCounter;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::*;

struct Running {
    address: SocketAddr,
    readiness: Readiness,
    registry: Registry,
    shutdown: Shutdown,
    tasks: JoinSet<io::Result<()>>,
}

async fn start() -> Running {
    let (readiness, registry, shutdown) = (Readiness::new(), Registry::new(), Shutdown::new());
    let probes = bind(&Config::local(0), readiness.clone(), registry.clone())
        .await
        .unwrap();
    let address = probes.local_addr();
    let mut tasks = JoinSet::new();
    tasks.spawn(probes.run(shutdown.clone()));
    Running {
        address,
        readiness,
        registry,
        shutdown,
        tasks,
    }
}

/// Status and body of one request.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_waits_is_alive_and_not_ready() {
    let running = start().await;
    running.readiness.check("postgres").ok();
    running
        .readiness
        .check("rabbitmq")
        .failing("connecting: refused");

    assert_eq!(get(running.address, "/live").await.0, 200);
    let (status, body) = get(running.address, "/ready").await;
    assert_eq!(status, 503);
    assert_eq!(
        body,
        r#"{"ready":false,"checks":{"postgres":"ok","rabbitmq":"connecting: refused"}}"#
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_process_answers_until_it_is_told_to_end() {
    let mut running = start().await;
    running.readiness.check("postgres").ok();
    assert_eq!(get(running.address, "/ready").await.0, 200);

    running.readiness.stopping();
    let (status, body) = get(running.address, "/ready").await;
    assert_eq!(status, 503);
    assert_eq!(
        body,
        r#"{"ready":false,"stopping":true,"checks":{"postgres":"ok"}}"#
    );
    assert_eq!(get(running.address, "/live").await.0, 200);

    running.shutdown.begin();
    running.tasks.join_next().await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_those_of_the_registry() {
    let running = start().await;
    let counter = IntCounter::new("events_consumed_total", "Events.").unwrap();
    running
        .registry
        .register(Box::new(counter.clone()))
        .unwrap();
    counter.inc_by(3);
    let (status, body) = get(running.address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("\nevents_consumed_total 3\n"), "{body}");
    assert_eq!(get(running.address, "/").await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_an_error_that_names_it() {
    let running = start().await;
    let config = Config {
        address: running.address,
    };
    let error = bind(&config, Readiness::new(), Registry::new())
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains(&running.address.to_string()));
}

#[test]
fn a_main_runtime_that_shows_nothing_for_too_long_is_stuck() {
    let pulse = Pulse::new();
    let start = pulse.start;
    assert!(pulse.is_alive(start + STALL_MAX));
    assert!(!pulse.is_alive(start + STALL_MAX + BEAT));
    pulse.beat(start + STALL_MAX);
    assert!(pulse.is_alive(start + STALL_MAX + BEAT));
}
