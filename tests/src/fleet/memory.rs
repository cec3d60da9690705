//! Memory that processes hold, as the kernel counts it.

use std::collections::HashMap;
use std::fs;

/// Resident memory of one process (`VmRSS`); nothing where there is no such process.
#[must_use]
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kibibytes: u64 = field(&status, "VmRSS:")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// The same of a process and all that descend from it, such as PostgreSQL's backends; pages that they share count once
/// for each (`VmRSS` minus what is shared memory, plus that once for the largest).
#[must_use]
pub fn resident_bytes_of_tree(root: u32) -> u64 {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut total, mut shared_max, mut open) = (0, 0, vec![root]);
    while let Some(pid) = open.pop() {
        open.extend(children.remove(&pid).unwrap_or_default());
        let Some((own, shared)) = own_and_shared(pid) else {
            continue;
        };
        total += own;
        shared_max = shared_max.max(shared);
    }
    total + shared_max
}

fn own_and_shared(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kibibytes = |name| field(&status, name)?.parse::<u64>().ok();
    let own = kibibytes("RssAnon:")?;
    let shared = kibibytes("RssFile:")? + kibibytes("RssShmem:")?;
    Some((own * 1024, shared * 1024))
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field(&status, "PPid:")?.parse().ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_memory_and_a_process_that_is_not_there_holds_none() {
        let own = resident_bytes(std::process::id()).unwrap();
        assert!(own > 1 << 20, "{own}");
        assert_eq!(resident_bytes(u32::MAX), None);
    }

    #[test]
    fn a_tree_holds_about_what_its_processes_hold() {
        let this = std::process::id();
        let tree = resident_bytes_of_tree(this);
        assert!(tree > resident_bytes(this).unwrap() / 2, "{tree}");
    }
}
