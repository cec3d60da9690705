//! Free ports for processes that must be told theirs in advance.

use std::net::{Ipv4Addr, TcpListener};

use rand::Rng as _;

/// Below the range from which clients' connections get theirs.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
/// For servers that keep their port while they are away: nobody else who starts something takes one of these.
const KEPT: std::ops::Range<u16> = 12_000..20_000;
const TRIES: usize = 1000;

/// A port of the loopback address that nobody listens on at this moment. Whoever binds it must be ready for a taken one.
#[must_use]
pub fn free() -> u16 {
    free_in(RANGE)
}

/// One for a server that will be killed and started again on it.
#[must_use]
pub fn to_keep() -> u16 {
    free_in(KEPT)
}

fn free_in(range: std::ops::Range<u16>) -> u16 {
    let mut random = rand::rng();
    (0..TRIES)
        .map(|_| random.random_range(range.clone()))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}
