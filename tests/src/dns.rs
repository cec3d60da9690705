//! A name server on the loopback address, whose table a test may change between two questions (DNS rebinding).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Longest question that is read.
const PACKET_BYTES_MAX: usize = 1500;
const HEADER_BYTES: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// Answers over UDP. Stops when dropped.
pub struct NameServer {
    address: SocketAddr,
    table: Arc<Mutex<Table>>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Table {
    addresses: HashMap<String, Vec<IpAddr>>,
    questions: HashMap<String, usize>,
    silent: bool,
}

impl NameServer {
    /// Knows no name yet.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let table = Arc::new(Mutex::new(Table::default()));
        let mut server = JoinSet::new();
        server.spawn(serve(socket, table.clone()));
        Self {
            address,
            table,
            _server: server,
        }
    }

    /// For the setting `network.name_servers`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the name has these addresses, IPv4 or IPv6; an empty list is a name without any. Answers live 0 s.
    pub fn set(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let mut table = self.table.lock().unwrap();
        table.addresses.insert(name.to_ascii_lowercase(), addresses);
    }

    /// From now on there is no such name.
    pub fn remove(&self, name: &str) {
        let mut table = self.table.lock().unwrap();
        table.addresses.remove(&name.to_ascii_lowercase());
    }

    /// While silent, it answers nothing.
    pub fn set_silent(&self, silent: bool) {
        self.table.lock().unwrap().silent = silent;
    }

    /// How often it was asked for the name, whatever the type.
    #[must_use]
    pub fn questions(&self, name: &str) -> usize {
        let table = self.table.lock().unwrap();
        table
            .questions
            .get(&name.to_ascii_lowercase())
            .copied()
            .unwrap_or(0)
    }
}

async fn serve(socket: UdpSocket, table: Arc<Mutex<Table>>) {
    let mut packet = [0; PACKET_BYTES_MAX];
    loop {
        // An error is one of an earlier answer, to somebody who has left.
        let Ok((length, peer)) = socket.recv_from(&mut packet).await else {
            continue;
        };
        let reply = packet.get(..length).and_then(|query| answer(query, &table));
        if let Some(reply) = reply {
            let _sent = socket.send_to(&reply, peer).await;
        }
    }
}

/// The reply to a query of one question; nothing to a malformed one, or while silent.
fn answer(query: &[u8], table: &Mutex<Table>) -> Option<Vec<u8>> {
    let (name, kind, question_end) = question(query)?;
    let mut table = table.lock().unwrap();
    *table.questions.entry(name.clone()).or_default() += 1;
    if table.silent {
        return None;
    }
    let known = table.addresses.get(&name);
    let matching: Vec<Vec<u8>> = known
        .into_iter()
        .flatten()
        .filter_map(|address| match (address, kind) {
            (IpAddr::V4(v4), TYPE_A) => Some(v4.octets().to_vec()),
            (IpAddr::V6(v6), TYPE_AAAA) => Some(v6.octets().to_vec()),
            _ => None,
        })
        .collect();
    let response_code: u8 = if known.is_some() { 0 } else { 3 };

    let mut reply = query.get(..2)?.to_vec();
    // A response, recursion wanted and available; one question, the answers, and nothing else.
    reply.extend([
        0x81,
        0x80 | response_code,
        0,
        1,
        0,
        u8::try_from(matching.len()).ok()?,
    ]);
    reply.extend([0, 0, 0, 0]);
    reply.extend(query.get(HEADER_BYTES..question_end)?);
    for data in matching {
        // The name is a pointer to the question's; class IN; living 0 s.
        reply.extend([0xc0, HEADER_BYTES as u8]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 0, 0, u8::try_from(data.len()).ok()?]);
        reply.extend(data);
    }
    Some(reply)
}

/// The name in lower case, the type, and where the question ends.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = HEADER_BYTES;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::Resolver;

    use super::*;

    #[tokio::test]
    async fn a_name_has_the_addresses_of_the_moment() {
        let server = NameServer::start().await;
        let resolver = Resolver::new(&[server.address()], Duration::from_secs(5)).unwrap();
        server.set("hook.example", &["203.0.113.9", "2001:db8::9"]);
        let found = resolver.lookup("hook.example").await.unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        server.set("hook.example", &["127.0.0.1"]);
        let found = resolver.lookup("HOOK.example").await.unwrap();
        assert_eq!(found, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(server.questions("hook.example") >= 2);
        assert!(resolver.lookup("nowhere.example").await.is_err());
    }
}
