//! Free ports for processes that must be told theirs in advance.

use std::net::{Ipv4Addr, TcpListener};

use rand::Rng as _;

/// Below the range from which clients' connections get theirs.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
const TRIES: usize = 1000;

/// A port of the loopback address that nobody listens on at this moment. Whoever binds it must be ready for a taken one.
#[must_use]
pub fn free() -> u16 {
    let mut random = rand::rng();
    (0..TRIES)
        .map(|_| random.random_range(RANGE))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}
