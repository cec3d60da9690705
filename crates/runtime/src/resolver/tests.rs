use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::*;

const TIMEOUT: Duration = Duration::from_millis(600);
const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const RCODE_SERVER_FAILURE: u8 = 2;
const RCODE_NO_SUCH_NAME: u8 = 3;

/// A name server on loopback that knows a few names, over UDP and TCP on one port.
struct NameServer {
    address: SocketAddr,
    /// How often each name was asked for, over either transport, A and AAAA together.
    asked: Arc<Mutex<HashMap<String, u32>>>,
    _tasks: JoinSet<()>,
}

impl NameServer {
    async fn start() -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let address = udp.local_addr().unwrap();
        let asked = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&asked)));
        tasks.spawn(serve_tcp(tcp, Arc::clone(&asked)));
        Self {
            address,
            asked,
            _tasks: tasks,
        }
    }

    fn resolver(&self) -> Resolver {
        Resolver::new(&[self.address], TIMEOUT).unwrap()
    }

    fn asked(&self, name: &str) -> u32 {
        self.asked.lock().unwrap().get(name).copied().unwrap_or(0)
    }
}

async fn serve_udp(socket: UdpSocket, asked: Arc<Mutex<HashMap<String, u32>>>) {
    let mut buffer = [0; 512];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
        if let Some(answer) = answer(&buffer[..length], false, &asked) {
            socket.send_to(&answer, peer).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener, asked: Arc<Mutex<HashMap<String, u32>>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve_connection(stream, Arc::clone(&asked)));
    }
}

/// Answers until the resolver closes the connection.
async fn serve_connection(mut stream: TcpStream, asked: Arc<Mutex<HashMap<String, u32>>>) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; length.into()];
        stream.read_exact(&mut question).await.unwrap();
        if let Some(answer) = answer(&question, true, &asked) {
            let mut framed = u16::try_from(answer.len()).unwrap().to_be_bytes().to_vec();
            framed.extend(answer);
            if stream.write_all(&framed).await.is_err() {
                return;
            }
        }
    }
}

/// The whole answer to one question, or nothing for a name that is never answered.
fn answer(question: &[u8], over_tcp: bool, asked: &Mutex<HashMap<String, u32>>) -> Option<Vec<u8>> {
    let (name, end) = name_at(question, 12);
    let kind = u16::from_be_bytes([question[end], question[end + 1]]);
    *asked.lock().unwrap().entry(name.clone()).or_default() += 1;
    let first = name.split('.').next().unwrap();
    let (rcode, truncated, addresses) = match (first, kind) {
        ("silent", _) | ("half", TYPE_AAAA) => return None,
        ("v4" | "half", TYPE_A) => (0, false, vec![V4]),
        ("both", TYPE_A) => (0, false, vec![V4, V4]),
        ("both", TYPE_AAAA) => (0, false, vec![V6]),
        ("long", TYPE_A) => (0, !over_tcp, if over_tcp { vec![V4] } else { vec![] }),
        ("v4" | "long" | "empty", _) => (0, false, vec![]),
        ("broken", _) => (RCODE_SERVER_FAILURE, false, vec![]),
        _ => (RCODE_NO_SUCH_NAME, false, vec![]),
    };
    let mut answer = question[..2].to_vec();
    answer.extend([0x84 | if truncated { 0x02 } else { 0 }, 0x80 | rcode]);
    answer.extend([0, 1, 0, u8::try_from(addresses.len()).unwrap(), 0, 0, 0, 0]);
    answer.extend(&question[12..end + 4]);
    for address in addresses {
        // A pointer to the question's name, the type, class IN, 300 s to live.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 1, 0x2c]);
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        answer.extend(u16::try_from(octets.len()).unwrap().to_be_bytes());
        answer.extend(octets);
    }
    Some(answer)
}

/// The name that begins at `at`, in lower case, and where it ends.
fn name_at(message: &[u8], mut at: usize) -> (String, usize) {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(message[at]);
        at += 1;
        if length == 0 {
            return (labels.join("."), at);
        }
        let label = String::from_utf8_lossy(&message[at..at + length]);
        labels.push(label.to_lowercase());
        at += length;
    }
}

#[tokio::test]
async fn a_name_with_addresses_of_both_families_gives_all_of_them_once() {
    let server = NameServer::start().await;
    let found = server.resolver().lookup("both.test").await.unwrap();
    assert_eq!(found, [V4, V6]);
}

#[tokio::test]
async fn one_family_is_enough() {
    let server = NameServer::start().await;
    assert_eq!(server.resolver().lookup("v4.test").await.unwrap(), [V4]);
}

#[tokio::test]
async fn a_family_that_is_never_answered_does_not_hold_up_the_other() {
    let server = NameServer::start().await;
    let resolver = Resolver::new(&[server.address], Duration::from_secs(60)).unwrap();
    let lookup = tokio::time::timeout(Duration::from_secs(10), resolver.lookup("half.test"));
    assert_eq!(lookup.await.unwrap().unwrap(), [V4]);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_into_a_datagram_is_fetched_over_tcp() {
    let server = NameServer::start().await;
    assert_eq!(server.resolver().lookup("long.test").await.unwrap(), [V4]);
}

#[tokio::test]
async fn a_second_lookup_is_answered_from_the_cache() {
    let server = NameServer::start().await;
    let resolver = server.resolver();
    resolver.lookup("both.test").await.unwrap();
    let asked = server.asked("both.test");
    resolver.clone().lookup("both.test").await.unwrap();
    assert_eq!((asked, server.asked("both.test")), (2, 2));
}

#[tokio::test]
async fn a_burst_of_cold_names_is_answered() {
    let server = NameServer::start().await;
    // Questions over TCP share few places in the library, and wait for one; a busy machine is no failure either.
    let resolver = Resolver::new(&[server.address], Duration::from_secs(10)).unwrap();
    let mut lookups = JoinSet::new();
    for n in 0..150 {
        for kind in ["v4", "long"] {
            let resolver = resolver.clone();
            lookups.spawn(async move { resolver.lookup(&format!("{kind}.{n}.test")).await });
        }
    }
    for found in lookups.join_all().await {
        assert_eq!(found.unwrap(), [V4]);
    }
}

#[tokio::test]
async fn a_name_without_addresses_is_not_found() {
    let server = NameServer::start().await;
    let resolver = server.resolver();
    for host in ["missing.test", "empty.test", "..", ""] {
        let error = resolver.lookup(host).await.unwrap_err();
        assert!(
            matches!(error, ResolveError::NotFound { .. }),
            "{host}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_name_server_that_fails_or_is_silent_is_told_apart() {
    let server = NameServer::start().await;
    let resolver = server.resolver();
    let broken = resolver.lookup("broken.test").await.unwrap_err();
    assert!(matches!(broken, ResolveError::Failed { .. }), "{broken:?}");
    let silent = resolver.lookup("silent.test").await.unwrap_err();
    assert!(matches!(silent, ResolveError::Timeout { .. }), "{silent:?}");
}

#[tokio::test]
async fn no_search_domain_is_tried() {
    let server = NameServer::start().await;
    server.resolver().lookup("missing").await.unwrap_err();
    let asked = server.asked.lock().unwrap();
    assert_eq!(asked.keys().collect::<Vec<_>>(), ["missing"]);
}

#[tokio::test]
async fn a_literal_address_is_its_own_answer() {
    let server = NameServer::start().await;
    let resolver = server.resolver();
    for literal in [V4, V6] {
        assert_eq!(
            resolver.lookup(&literal.to_string()).await.unwrap(),
            [literal]
        );
    }
}

#[tokio::test]
async fn the_systems_configuration_knows_the_machine_itself() {
    let resolver = Resolver::new(&[], TIMEOUT).unwrap();
    let found = resolver.lookup("localhost").await.unwrap();
    assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty());
}

#[test]
fn a_name_that_is_half_unknown_is_not_called_missing() {
    let missing = || Err(not_found("x"));
    let late = || {
        Err(ResolveError::Timeout {
            host: "x".to_owned(),
            timeout_ms: 1,
        })
    };
    for result in [either(missing(), late()), either(late(), missing())] {
        assert!(matches!(result, Err(ResolveError::Timeout { .. })));
    }
    assert!(matches!(
        either(missing(), missing()),
        Err(ResolveError::NotFound { .. })
    ));
}
