//! What a benchmark or a chaos run ran on, and which build it was.

use std::process::Command;

/// Date, hardware and versions.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Machine {
    pub date: String,
    pub cores: usize,
    pub cpu: String,
    pub memory_mib: u64,
    pub commit: String,
    pub postgres: String,
    pub rabbitmq: String,
}

impl Machine {
    #[must_use]
    pub fn look() -> Self {
        let memory_kib = value_of("/proc/meminfo", "MemTotal");
        let memory_kib = memory_kib.trim_end_matches(" kB").parse().unwrap_or(0_u64);
        Self {
            date: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: value_of("/proc/cpuinfo", "model name"),
            memory_mib: memory_kib / 1024,
            commit: said_by("git", &["describe", "--always", "--dirty"]),
            postgres: package_version("postgresql-[0-9]*"),
            rabbitmq: package_version("rabbitmq-server"),
        }
    }
}

/// The value of the first line `name : value`.
fn value_of(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

fn package_version(package: &str) -> String {
    said_by("dpkg-query", &["-W", "-f", "${Version}", package])
}

/// What a program says, or nothing where there is none.
fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}
