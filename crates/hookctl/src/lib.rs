//! `hookctl`: the command line for product teams, who publish events and want to know what became of them, and for
//! operators, who make partners and look after what was rejected.
//!
//! It reads and writes Postgres by the same functions as the services, and publishes to RabbitMQ as a product team
//! does. Each command makes one [`answer::Answer`].

pub mod answer;
pub mod arguments;
mod dead_letters;
mod deliveries;
mod duration;
mod environment;
mod error;
mod event_types;
mod key;
mod partner;
mod publish;
mod shown;
mod status;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use serde_json::json;

use answer::Answer;
use arguments::{Cli, Command};
use environment::Environment;
pub use error::{Error, exit};

/// Runs the command on a line, its first word the program's name.
pub fn main(line: impl Iterator<Item = OsString>) -> ExitCode {
    let line: Vec<_> = line.collect();
    match Cli::try_parse_from(&line) {
        Ok(cli) => ExitCode::from(run(cli)),
        Err(error) => {
            let json = line.iter().any(|word| word == "--json");
            ExitCode::from(explain(&error, json))
        }
    }
}

fn run(cli: Cli) -> u8 {
    runtime::exit::install_crypto_provider();
    let json = cli.places.json;
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Failed(error.to_string()))
        .and_then(|runtime| {
            let environment = Environment::new(cli.places);
            runtime.block_on(carry_out(cli.command, &environment))
        });
    answer::write(json, ended)
}

async fn carry_out(command: Command, environment: &Environment) -> Result<Answer, Error> {
    match command {
        Command::Partner(command) => partner::run(command, environment).await,
        Command::Key(command) => key::run(command, environment).await,
        Command::Publish(command) => publish::run(command, environment).await,
        Command::Deliveries(command) => deliveries::run(command, environment).await,
        Command::EventTypes(command) => event_types::run(command, environment).await,
        Command::Rejected(command) => {
            dead_letters::run(broker::Line::Rejected, command, environment).await
        }
        Command::Dead(command) => dead_letters::run(broker::Line::Dead, command, environment).await,
        Command::Status(command) => status::run(command, environment).await,
    }
}

/// What clap has to say: help and versions go to stdout, mistakes to stderr. With `--json` all text goes to stderr.
fn explain(error: &clap::Error, json: bool) -> u8 {
    let asked = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    if json {
        let text = error.render().to_string();
        let document = if asked {
            json!({"help": text})
        } else {
            json!({"error": {"code": "usage", "message": text.trim_end()}})
        };
        answer::stdout(&format!("{document}\n"));
        answer::stderr(&text);
    } else {
        // A closed terminal is nothing to complain about.
        let _ = error.print();
    }
    if asked { exit::OK } else { exit::USAGE }
}
