//! The name under which one running process writes heartbeats, leases and its view of a breaker. It reads the machine's
//! host name; whoever starts a process calls it once and passes the name on.

use std::fs;

use rand::Rng as _;

/// Host names are at most this long, and so is the part of the name that is taken from one.
const HOST_LEN_MAX: usize = 63;

/// `host-pid-suffix`, of `A-Z a-z 0-9 . -` and at most 90 characters. The random suffix keeps two containers apart that
/// share a host name and both run as pid 1, and a process from its predecessor.
pub fn name() -> String {
    let suffix: u32 = rand::rng().random();
    format!("{}-{}-{suffix:08x}", host(), std::process::id())
}

fn host() -> String {
    let read = fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| fs::read_to_string("/etc/hostname"))
        .unwrap_or_default();
    clean(&read)
}

fn clean(host: &str) -> String {
    let kept: String = host
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
        .take(HOST_LEN_MAX)
        .collect();
    if kept.is_empty() {
        "unnamed".to_owned()
    } else {
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_instances_in_one_process_have_different_names() {
        assert_ne!(name(), name());
    }

    #[test]
    fn the_name_holds_the_process_id_and_only_plain_characters() {
        let name = name();
        assert!(name.contains(&format!("-{}-", std::process::id())));
        assert!(
            name.chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
        );
        assert!(name.len() <= 90);
    }

    #[test]
    fn a_host_name_is_cut_down_to_what_is_safe() {
        assert_eq!(clean("web-1.example\n"), "web-1.example");
        assert_eq!(clean("a b\"c"), "abc");
        assert_eq!(clean("\n"), "unnamed");
        assert_eq!(clean(&"x".repeat(200)).len(), HOST_LEN_MAX);
    }
}
