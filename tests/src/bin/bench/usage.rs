//! What the processes of a run cost: CPU time from `/proc`, which other load on the machine hardly changes, and memory.

use std::path::Path;

/// Clock ticks a second, as Linux shows them to programs on every machine we run on.
const TICKS_PER_S: f64 = 100.0;

/// CPU seconds of each part so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    services_s: f64,
    broker_s: f64,
    postgres_s: f64,
    bench_s: f64,
}

/// CPU microseconds of each part for each event.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct CpuPerEvent {
    /// The three services together, or the bare pipeline.
    pub services_us: f64,
    pub broker_us: f64,
    pub postgres_us: f64,
    /// Publisher and receiver.
    pub bench_us: f64,
}

impl Cpu {
    /// Of the processes with these ids, and of the servers whose files lie under `folder`.
    #[must_use]
    pub fn now(services: &[u32], folder: &Path) -> Self {
        let all: Vec<Process> = processes().collect();
        let postmaster = all.iter().find(|p| p.is_server("postgres", folder));
        // Those that ended are counted by the one that waited for them.
        let postgres_s = postmaster.map_or(0.0, |postmaster| {
            let backends = all.iter().filter(|p| p.parent == postmaster.id);
            postmaster.cpu_s
                + postmaster.ended_children_s
                + backends.map(|backend| backend.cpu_s).sum::<f64>()
        });
        let sum = |which: &dyn Fn(&Process) -> bool| -> f64 {
            all.iter().filter(|p| which(p)).map(|p| p.cpu_s).sum()
        };
        Self {
            services_s: sum(&|p| services.contains(&p.id)),
            broker_s: sum(&|p| p.is_server("beam.smp", folder)),
            postgres_s,
            bench_s: sum(&|p| p.id == std::process::id()),
        }
    }

    /// What was used since `before`, for each of so many events.
    #[must_use]
    pub fn since(self, before: Self, events: usize) -> CpuPerEvent {
        let each = |now: f64, then: f64| (now - then) * 1e6 / events.max(1) as f64;
        CpuPerEvent {
            services_us: each(self.services_s, before.services_s),
            broker_us: each(self.broker_s, before.broker_s),
            postgres_us: each(self.postgres_s, before.postgres_s),
            bench_us: each(self.bench_s, before.bench_s),
        }
    }
}

/// Resident memory of a process in MiB.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Memory {
    pub now_mib: f64,
    pub most_mib: f64,
}

impl Memory {
    /// Nothing where there is no such process.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let mib = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
            kib.unwrap_or(0.0) / 1024.0
        };
        Self {
            now_mib: mib("VmRSS:"),
            most_mib: mib("VmHWM:"),
        }
    }

    /// Of the broker whose files lie under `folder`.
    #[must_use]
    pub fn of_broker(folder: &Path) -> Self {
        broker(folder).map_or_else(Self::default, |process| Self::of(process.id))
    }

    /// From now on the most memory of the broker is what it takes from now on.
    pub fn forget_most_of_broker(folder: &Path) {
        /// As proc(5) says it: the peak becomes what is resident now.
        const RESET_PEAK: &str = "5";
        let process = broker(folder).unwrap();
        std::fs::write(format!("/proc/{}/clear_refs", process.id), RESET_PEAK).unwrap();
    }
}

struct Process {
    id: u32,
    parent: u32,
    command: String,
    cpu_s: f64,
    ended_children_s: f64,
}

impl Process {
    /// `None` when it is gone.
    fn of(id: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let command = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
        // The name in brackets may hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |place: usize| fields.get(place).and_then(|text| text.parse::<f64>().ok());
        Some(Self {
            id,
            parent: fields.get(1)?.parse().ok()?,
            command: String::from_utf8_lossy(&command).replace('\0', " "),
            cpu_s: (ticks(11)? + ticks(12)?) / TICKS_PER_S,
            ended_children_s: (ticks(13)? + ticks(14)?) / TICKS_PER_S,
        })
    }

    fn is_server(&self, program: &str, folder: &Path) -> bool {
        let first = self.command.split(' ').next().unwrap_or_default();
        first.ends_with(program) && self.command.contains(&*folder.to_string_lossy())
    }
}

fn broker(folder: &Path) -> Option<Process> {
    processes().find(|process| process.is_server("beam.smp", folder))
}

fn processes() -> impl Iterator<Item = Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Process::of(entry.file_name().to_str()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_has_a_parent() {
        let pid = std::process::id();
        let memory = Memory::of(pid);
        assert!(memory.now_mib > 1.0 && memory.most_mib >= memory.now_mib);
        let this = Process::of(pid).unwrap();
        assert_eq!(this.parent, std::os::unix::process::parent_id());
    }

    #[test]
    fn cpu_is_told_for_each_event() {
        let before = Cpu::default();
        let now = Cpu {
            services_s: 1.0,
            broker_s: 0.5,
            ..before
        };
        let each = now.since(before, 10_000);
        assert!((each.services_us - 100.0).abs() < 1e-9);
        assert!((each.broker_us - 50.0).abs() < 1e-9);
    }
}
