//! Who made a database or a virtual host. The name of each carries its process, so that a later run knows what a crashed
//! one left behind.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

static MADE: AtomicU32 = AtomicU32::new(0);

/// A name that nobody else makes: `PREFIX_PID_STARTED_NUMBER`.
#[must_use]
pub fn new_name(prefix: &str) -> String {
    let pid = std::process::id();
    let started = started(pid).expect("/proc tells when this process started");
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}_{pid}_{started}_{number}")
}

/// Whether this is a name of [`new_name`] with that prefix whose process is gone.
#[must_use]
pub fn is_orphan(prefix: &str, name: &str) -> bool {
    let Some(rest) = name.strip_prefix(prefix).and_then(|r| r.strip_prefix('_')) else {
        return false;
    };
    let mut numbers = rest.split('_').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(then)), Some(Ok(_)), None) = (
        numbers.next(),
        numbers.next(),
        numbers.next(),
        numbers.next(),
    ) else {
        return false;
    };
    u32::try_from(pid).is_ok_and(|pid| started(pid) != Some(then))
}

/// When a process started, in the kernel's ticks since boot; nothing if there is none. A pid alone comes back.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_living_process_made_is_no_orphan() {
        let name = new_name("test");
        assert!(!is_orphan("test", &name));
        assert_ne!(name, new_name("test"));
    }

    #[test]
    fn what_a_process_of_another_start_made_is_an_orphan() {
        let pid = std::process::id();
        assert!(is_orphan("test", &format!("test_{pid}_1_0")));
        assert!(is_orphan("test", "test_4194305_1_0"));
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in [
            "test",
            "test_",
            "test_1_2",
            "test_1_2_3_4",
            "other_1_2_3",
            "test_a_b_c",
            "vellocity",
        ] {
            assert!(!is_orphan("test", name), "{name}");
        }
    }
}
