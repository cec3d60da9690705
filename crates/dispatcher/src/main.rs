//! The dispatcher's process: load the configuration, start telemetry, build, run.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use runtime::{Failure, Shutdown};
use tikv_jemallocator::Jemalloc;

/// A batch frees thousands of pieces at once, most of them on another thread than it was made on, and glibc's allocator takes
/// a fifth of the process's time to merge them. This one gives memory back on a thread of its own.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Takes events from RabbitMQ and delivers them to webhooks.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// A TOML file; the environment (`VELLOCITY__SECTION__KEY`) goes before it.
    #[arg(long, env = "VELLOCITY_CONFIG")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    runtime::exit::run(dispatcher::service::NAME, run(arguments))
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let config: dispatcher::Config = runtime::config::load(arguments.config.as_deref(), &[])?;
    let telemetry = runtime::telemetry::start(
        dispatcher::service::NAME,
        &runtime::instance::name(),
        &config.telemetry,
    )?;
    let shutdown = Shutdown::on_signals().map_err(|error| Failure::other(&error))?;
    let result = dispatcher::build(config).await?.run(shutdown).await;
    telemetry.shutdown();
    result
}
