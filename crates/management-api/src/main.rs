//! The binary: arguments, configuration, telemetry, build, run.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use management_api::{Config, LISTS, SERVICE, build_as, migrate};
use runtime::{Failure, Shutdown, config, exit, instance, telemetry};

/// The REST gateway by which partners keep their webhooks.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// TOML file with the configuration; environment variables VELLOCITY__SECTION__KEY go over it.
    #[arg(long, global = true, env = "VELLOCITY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the database up to date and make the partitions of the next days; then end.
    Migrate,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    exit::run(SERVICE, async {
        let config: Config = config::load(arguments.config.as_deref(), LISTS)?;
        match arguments.command {
            None => serve(config).await,
            Some(Command::Migrate) => say(&migrate::run(&config.postgres, wait).await?),
        }
    })
}

async fn serve(config: Config) -> Result<(), Failure> {
    config.validate()?;
    let instance = instance::name();
    let telemetry = telemetry::start(SERVICE, &instance, &config.telemetry)?;
    let shutdown = Shutdown::on_signals()
        .map_err(|error| Failure::other(&error).context("cannot listen for signals"))?;
    let served = match build_as(config, instance).await {
        Ok(service) => service.run(shutdown).await,
        Err(failure) => Err(failure),
    };
    telemetry.shutdown();
    served
}

fn say(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| Failure::other(&error))
}

/// A closed stderr is no reason to stop.
fn wait(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}
