//! What every process of Vellocity needs and none is about: configuration, telemetry, a way to end, probes, metrics,
//! back-off, a DNS resolver and a name. It knows none of our other crates; the services call it from their `main`.
//!
//! ```text
//! exit::run -> config::load -> telemetry::start -> the service's build and run -> Telemetry::shutdown
//! ```

pub mod backoff;
pub mod config;
pub mod exit;
pub mod fail_points;
pub mod instance;
pub mod metrics;
pub mod probes;
pub mod resolver;
pub mod shutdown;
pub mod telemetry;

pub use backoff::Backoff;
pub use exit::Failure;
pub use resolver::Resolver;
pub use shutdown::Shutdown;
