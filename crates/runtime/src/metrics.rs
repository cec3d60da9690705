//! The registry that a process's metrics go into and `/metrics` reads. Each crate registers its own; what every process
//! has (build, memory, CPU time, open files) is added here.

use std::collections::HashMap;

use prometheus::process_collector::ProcessCollector;
use prometheus::{IntGauge, Opts, Registry};

/// The version that all crates of this workspace share.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A registry whose every metric carries the label `service`, with `build_info{version}` and the `process_*` family
/// (CPU seconds, resident and virtual bytes, open files and their limit, start time, threads).
pub fn registry(service: &'static str) -> Result<Registry, prometheus::Error> {
    let labels = HashMap::from([("service".to_owned(), service.to_owned())]);
    let registry = Registry::new_custom(None, Some(labels))?;
    let build_info = IntGauge::with_opts(
        Opts::new("build_info", "Always 1; the version is in the label.")
            .const_label("version", VERSION),
    )?;
    build_info.set(1);
    registry.register(Box::new(build_info))?;
    registry.register(Box::new(ProcessCollector::for_self()))?;
    Ok(registry)
}

/// All metrics of a registry in Prometheus' text format.
pub fn render(registry: &Registry) -> Result<String, prometheus::Error> {
    prometheus::TextEncoder::new().encode_to_string(&registry.gather())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_registry_tells_the_build_and_the_process() {
        let text = render(&registry("dispatcher").unwrap()).unwrap();
        let build = text
            .lines()
            .find(|line| line.starts_with("build_info{"))
            .unwrap();
        assert!(build.ends_with("} 1"), "{build}");
        for label in ["service=\"dispatcher\"", &format!("version=\"{VERSION}\"")] {
            assert!(build.contains(label), "{build}");
        }
        for metric in [
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
            "process_open_fds",
        ] {
            assert!(
                text.contains(&format!("\n{metric}{{service=\"dispatcher\"}}")),
                "{metric}\n{text}"
            );
        }
    }

    #[test]
    fn a_metric_cannot_be_registered_twice() {
        let registry = registry("retry").unwrap();
        let gauge = || Box::new(IntGauge::new("backlog", "Backlog.").unwrap());
        registry.register(gauge()).unwrap();
        assert!(registry.register(gauge()).is_err());
    }
}
