//! One TCP connection to the first of several addresses that takes it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long an address has for itself before the next one is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried. Names with more are answered in another order next time.
const ADDRESSES_MAX: usize = 8;

/// Tries the addresses in turn, the families alternating, and drops the slower connects.
///
/// # Errors
/// The last refusal, when every address refused.
pub(super) async fn connect(
    addresses: &[IpAddr],
    port: u16,
) -> Result<(TcpStream, SocketAddr), (io::Error, SocketAddr)> {
    let mut waiting: VecDeque<_> = alternating(addresses)
        .into_iter()
        .map(|address| SocketAddr::new(address, port))
        .collect();
    let mut last = None;
    let mut under_way = FuturesUnordered::new();
    let mut next_start = Instant::now();
    loop {
        if Instant::now() >= next_start
            && let Some(address) = waiting.pop_front()
        {
            under_way.push(one(address));
            next_start = Instant::now() + HEAD_START;
        }
        let result = tokio::select! {
            Some(result) = under_way.next() => result,
            () = tokio::time::sleep_until(next_start), if !waiting.is_empty() => continue,
            else => break,
        };
        match result {
            Ok(connected) => return Ok(connected),
            Err(refused) => {
                last = Some(refused);
                next_start = Instant::now();
            }
        }
    }
    Err(last.unwrap_or_else(|| {
        (
            io::ErrorKind::AddrNotAvailable.into(),
            SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port),
        )
    }))
}

async fn one(address: SocketAddr) -> Result<(TcpStream, SocketAddr), (io::Error, SocketAddr)> {
    match TcpStream::connect(address).await {
        // Without it a small request would wait for the acknowledgement of the one before.
        Ok(stream) => match stream.set_nodelay(true) {
            Ok(()) => Ok((stream, address)),
            Err(error) => Err((error, address)),
        },
        Err(error) => Err((error, address)),
    }
}

/// Keeps the order within each family, and begins with the family of the first.
fn alternating(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let Some(first) = addresses.first() else {
        return Vec::new();
    };
    let (mut own, mut other): (VecDeque<IpAddr>, VecDeque<IpAddr>) = addresses
        .iter()
        .partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut order = Vec::with_capacity(addresses.len().min(ADDRESSES_MAX));
    while order.len() < ADDRESSES_MAX && !(own.is_empty() && other.is_empty()) {
        order.extend(own.pop_front());
        order.extend(other.pop_front());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_and_the_number_of_tries_is_bounded() {
        let parse = |list: &[&str]| -> Vec<IpAddr> {
            list.iter()
                .map(|address| address.parse().unwrap())
                .collect()
        };
        let listed = parse(&["1.0.0.1", "1.0.0.2", "1.0.0.3", "2600::1", "2600::2"]);
        let expected = parse(&["1.0.0.1", "2600::1", "1.0.0.2", "2600::2", "1.0.0.3"]);
        assert_eq!(alternating(&listed), expected);
        assert_eq!(alternating(&[]), Vec::<IpAddr>::new());
        let many: Vec<IpAddr> = (0..100).map(|i| IpAddr::from([1, 1, 1, i])).collect();
        assert_eq!(alternating(&many), many[..ADDRESSES_MAX]);
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_its_turn_to_the_next_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = [[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 1]].map(IpAddr::from);
        let begun = Instant::now();
        let (_stream, remote) = connect(&addresses, port).await.unwrap();
        assert_eq!(remote, listener.local_addr().unwrap());
        // Two head starts would have passed otherwise.
        assert!(begun.elapsed() < 2 * HEAD_START);
    }

    #[tokio::test]
    async fn the_last_refusal_is_told_when_all_refuse() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let addresses = [[127, 0, 0, 2], [127, 0, 0, 3]].map(IpAddr::from);
        let (error, remote) = connect(&addresses, port).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(remote.ip(), addresses[1]);
    }
}
