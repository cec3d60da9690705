//! A name server for tests: answers questions for IPv4 addresses, and has none of IPv6.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

pub(super) struct NameServer {
    pub(super) address: SocketAddr,
    _server: JoinSet<()>,
}

impl NameServer {
    /// Of each name it tells the addresses; no other name exists.
    pub(super) async fn start(names: &[(&str, &[[u8; 4]])]) -> Self {
        let names: HashMap<String, Vec<Ipv4Addr>> = names
            .iter()
            .map(|(name, addresses)| {
                let addresses = addresses.iter().copied().map(Ipv4Addr::from).collect();
                ((*name).to_owned(), addresses)
            })
            .collect();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut packet = [0; 512];
            loop {
                let (length, peer) = socket.recv_from(&mut packet).await.unwrap();
                let answer = answer(&packet[..length], &names);
                socket.send_to(&answer, peer).await.unwrap();
            }
        });
        Self {
            address,
            _server: server,
        }
    }
}

fn answer(query: &[u8], names: &HashMap<String, Vec<Ipv4Addr>>) -> Vec<u8> {
    const HEADER_BYTES: usize = 12;
    let mut end = HEADER_BYTES;
    let mut labels = Vec::new();
    while query[end] != 0 {
        let label = &query[end + 1..=end + usize::from(query[end])];
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        end += 1 + label.len();
    }
    let is_a = query[end + 1..end + 3] == [0, 1];
    let known = names.get(&labels.join("."));
    let addresses = known.filter(|_| is_a).map_or(&[][..], Vec::as_slice);
    let response_code = if known.is_some() { 0 } else { 3 };

    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80 | response_code, 0, 1, 0, addresses.len() as u8]);
    answer.extend([0, 0, 0, 0]);
    answer.extend(&query[HEADER_BYTES..end + 5]);
    for address in addresses {
        // The question's name, A, IN, living 60 s, 4 bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}
