//! Which addresses and ports a webhook may reach. The same rules hold when a webhook is written and on each connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

/// Section `[network]` of the configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether webhook URLs may be plain `http`.
    pub allow_http: bool,
    /// Networks that may be reached although they are private, as CIDRs.
    pub allowed_networks: Vec<IpNet>,
    /// Ports of webhook URLs: numbers and ranges, separated by commas.
    pub ports: Ports,
    /// Name servers as `address:port`; none means those of the system.
    pub name_servers: Vec<SocketAddr>,
}

/// Ports, as `80,443,1024-65535`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self(vec![80..=80, 443..=443, 1024..=u16::MAX])
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a port nor a range of ports such as 1024-65535")]
pub struct InvalidPorts(String);

impl TryFrom<String> for Ports {
    type Error = InvalidPorts;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let range = |part: &str| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
            (0 < from && from <= to).then_some(from..=to)
        };
        text.split(',')
            .map(|part| range(part).ok_or_else(|| InvalidPorts(part.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FromStr for Ports {
    type Err = InvalidPorts;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

/// The rules, ready to ask.
#[derive(Clone, Debug)]
pub struct NetworkPolicy {
    pub allow_http: bool,
    pub ports: Ports,
    allowed_networks: Vec<IpNet>,
}

impl NetworkPolicy {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            allow_http: config.allow_http,
            ports: config.ports.clone(),
            allowed_networks: config.allowed_networks.clone(),
        }
    }

    /// Whether a connection to this very address is permitted.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = embedded_v4(address).map_or(address, IpAddr::V4);
        self.allowed_networks
            .iter()
            .any(|net| net.contains(&address))
            || is_public(address)
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64 and 6to4 all end at it.
fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => Some(v4(g, h)),
        (0, 0, 0, 0, 0, 0) if g != 0 => Some(v4(g, h)),
        (0x2002, ..) => Some(v4(b, c)),
        _ => None,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !RESERVED_V4.iter().any(|net| net.contains(&v4)),
        // Only 2000::/3 is handed out to the public internet; parts of it are not.
        IpAddr::V6(v6) => {
            v6.segments().first().is_some_and(|s| s & 0xe000 == 0x2000)
                && !RESERVED_V6.iter().any(|net| net.contains(&v6))
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

/// The special-purpose registry of IANA, and 192.88.99.0/24, which once was 6to4's.
const RESERVED_V4: [Ipv4Net; 18] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    // A public address by its numbers, but Azure's metadata and host agent.
    v4(168, 63, 129, 16, 32),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 31, 196, 0, 24),
    v4(192, 52, 193, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(192, 175, 48, 0, 24),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    // Multicast, the reserved class E and broadcast.
    v4(224, 0, 0, 0, 3),
];

const RESERVED_V6: [Ipv6Net; 5] = [
    v6(0x2001, 0, 23),
    v6(0x2001, 0xdb8, 32),
    v6(0x2620, 0x4f, 32),
    v6(0x3fff, 0, 20),
    v6(0x3ffe, 0, 16),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allowed: &[&str]) -> NetworkPolicy {
        NetworkPolicy::new(&Config {
            allowed_networks: allowed.iter().map(|net| net.parse().unwrap()).collect(),
            ..Config::default()
        })
    }

    #[test]
    fn nothing_private_is_permitted_in_any_form() {
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "100::1",
            "5f00::1",
        ];
        for address in private {
            assert!(!policy(&[]).permits(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_permitted() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "64:ff9b::808:808",
        ] {
            assert!(policy(&[]).permits(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn an_allowed_network_may_be_reached_in_any_form_and_no_other_is() {
        let policy = policy(&["127.0.0.0/8", "::1/128"]);
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(policy.permits(address.parse().unwrap()), "{address}");
        }
        assert!(!policy.permits("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn ports_are_numbers_and_ranges() {
        let ports = Ports::default();
        assert_eq!("80,443,1024-65535".parse(), Ok(ports.clone()));
        for (port, inside) in [
            (80, true),
            (443, true),
            (1024, true),
            (65535, true),
            (0, false),
            (22, false),
            (1023, false),
        ] {
            assert_eq!(ports.contains(port), inside, "{port}");
        }
        for bad in ["", "0", "x", "9-8", "1-", "70000"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad}");
        }
    }
}
