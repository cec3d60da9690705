//! Who sent a request, as far as an address tells: what requests without a valid key are counted by.

use std::net::{IpAddr, Ipv6Addr};

use actix_web::http::header::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that the connection came from; or, where that is a trusted proxy, the last address in
/// `X-Forwarded-For` that is not one, since everything before it is the client's own claim.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    let lines: Vec<_> = headers.get_all(FORWARDED_FOR).collect();
    let hops = lines
        .iter()
        .rev()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.rsplit(','));
    for hop in hops {
        // What can't be read was written before any proxy of ours: the one that we reached is the client.
        let Some(address) = parse(hop.trim()) else {
            break;
        };
        client = address;
        if !is_trusted(address) {
            break;
        }
    }
    client
}

/// Some proxies add the port.
fn parse(hop: &str) -> Option<IpAddr> {
    let address: IpAddr = match hop.parse() {
        Ok(address) => address,
        Err(_) => hop.parse::<std::net::SocketAddr>().ok()?.ip(),
    };
    Some(address.to_canonical())
}

/// Under what name requests of an address are counted. One customer of a provider has a whole /64 of IPv6.
#[must_use]
pub fn subject(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("address:{v4}"),
        IpAddr::V6(v6) => {
            let network = Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64));
            format!("address:{network}/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn client(peer: &str, forwarded: &[&'static str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn without_a_trusted_proxy_the_header_is_not_believed() {
        assert_eq!(client("9.9.9.9", &["1.1.1.1"], &[]), "9.9.9.9");
        assert_eq!(client("9.9.9.9", &["1.1.1.1"], &["10.0.0.0/8"]), "9.9.9.9");
    }

    #[test]
    fn behind_proxies_the_last_address_that_is_not_one_of_them_counts() {
        let trusted = ["10.0.0.0/8"];
        for (lines, expected) in [
            (&["6.6.6.6, 1.1.1.1"][..], "1.1.1.1"),
            (&["6.6.6.6, 1.1.1.1, 10.2.2.2"], "1.1.1.1"),
            (&["6.6.6.6", "1.1.1.1 , 10.2.2.2"], "1.1.1.1"),
            (&["1.1.1.1:4711"], "1.1.1.1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["::ffff:1.1.1.1"], "1.1.1.1"),
            (&["1.1.1.1, nonsense"], "10.0.0.1"),
            (&["10.3.3.3"], "10.3.3.3"),
            (&[""], "10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", lines, &trusted), expected, "{lines:?}");
        }
        assert_eq!(client("::ffff:10.0.0.1", &["1.1.1.1"], &trusted), "1.1.1.1");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let name = |text: &str| subject(text.parse().unwrap());
        assert_eq!(name("1.2.3.4"), "address:1.2.3.4");
        assert_eq!(name("2001:db8:1:2:3::4"), name("2001:db8:1:2:ffff::"));
        assert_ne!(name("2001:db8:1:2::"), name("2001:db8:1:3::"));
    }
}
