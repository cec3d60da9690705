//! The process `retry`: load the configuration, start telemetry, build, run.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use retry::{Config, SERVICE, Settings};
use runtime::{Failure, Shutdown, config, exit, instance, telemetry};

/// Retries of deliveries: delay buckets, sweeps, dead letters, partitions.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// TOML file with the configuration; environment variables VELLOCITY__SECTION__KEY go over it.
    #[arg(long, env = "VELLOCITY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    exit::run(SERVICE, run(arguments))
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let config: Config = config::load(arguments.config.as_deref(), &[])?;
    Settings::new(&config)?;
    let instance = instance::name();
    let telemetry = telemetry::start(SERVICE, &instance, &config.telemetry)?;
    let shutdown = Shutdown::on_signals()
        .map_err(|error| Failure::other(&error).context("cannot listen for signals"))?;
    let ended = match retry::build_as(config, instance).await {
        Ok(service) => service.run(shutdown).await,
        Err(failure) => Err(failure),
    };
    telemetry.shutdown();
    ended
}
