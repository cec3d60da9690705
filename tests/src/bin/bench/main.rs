//! `make bench`: how fast, how fair, and whether anything is lost, beside what this machine can do at all.
//!
//! Runs the services as processes of their own, with their default configuration, on a PostgreSQL and a RabbitMQ that
//! `deploy/local/bench.sh` started, and the bare pipeline in the same run. Prints a table, and writes it as JSON.
//! Exit code 1 when an event was lost, sent twice or recorded wrongly; a figure that misses its goal is only shown.
//!
//! `TEST_PROGRAMS=DIR` measures the services of another build; `VELLOCITY__SECTION__KEY` reaches them, for trials.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of the benchmark: whatever fails ends it"
)]

mod bare;
mod broker_alone;
mod figures;
mod ours;
mod report;
mod run;
mod scenarios;
mod settle;
mod subscribers;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use ::tests::machine::Machine;
use report::Report;
use scenarios::{Context, SCENARIOS, Scenario};

/// Measures the delivery engine beside the bare pipeline.
#[derive(Parser)]
struct Arguments {
    /// One pair of each of the most telling scenarios, shortened: under three minutes.
    #[arg(long)]
    short: bool,
    /// Only the scenario of this name, or where there is none all those whose names contain this.
    #[arg(long)]
    only: Option<String>,
    /// Pairs of each scenario; their median counts.
    #[arg(long, default_value_t = 3)]
    pairs: usize,
    /// Where the report goes.
    #[arg(long, env = "BENCH_REPORT")]
    report: PathBuf,
    /// The folder of the servers, by which their processes are recognised.
    #[arg(long, env = "BENCH_FOLDER")]
    folder: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let context = Context {
        short: arguments.short,
        pairs: if arguments.short { 1 } else { arguments.pairs },
        folder: arguments.folder,
    };
    let wanted = wanted(arguments.only.as_deref(), context.short);
    if wanted.is_empty() {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        eprintln!("no such scenario; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let mut report = Report::new(Machine::look());
    for scenario in wanted {
        eprintln!("-- {}", scenario.name);
        let began = Instant::now();
        let findings = (scenario.run)(&context).await;
        report.add(scenario.name, began.elapsed().as_secs(), findings);
        report.write(&arguments.report);
    }
    println!("{report}");
    if report.is_sound() {
        ExitCode::SUCCESS
    } else {
        eprintln!("something was lost, sent twice or recorded wrongly: see the table");
        ExitCode::FAILURE
    }
}

/// Those of the name, or where none has it those whose names contain it; all of a whole or a short run without one.
fn wanted(only: Option<&str>, short: bool) -> Vec<&'static Scenario> {
    let is_wanted = |scenario: &&Scenario| match only {
        Some(word) if SCENARIOS.iter().any(|known| known.name == word) => scenario.name == word,
        Some(part) => scenario.name.contains(part),
        None => scenario.in_short || !short,
    };
    SCENARIOS.iter().filter(is_wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(only: Option<&str>, short: bool) -> Vec<&'static str> {
        let wanted = wanted(only, short);
        wanted.iter().map(|scenario| scenario.name).collect()
    }

    #[test]
    fn a_whole_name_is_that_scenario_and_a_part_all_that_have_it() {
        assert_eq!(names(Some("flood-1"), false), ["flood-1"]);
        assert_eq!(names(Some("steady"), true), ["steady-100", "steady-1000"]);
        assert!(names(Some("flod"), false).is_empty());
    }

    #[test]
    fn a_short_run_is_a_part_of_the_whole() {
        let whole = names(None, false);
        let short = names(None, true);
        assert!(short.len() < whole.len());
        assert!(short.iter().all(|name| whole.contains(name)));
    }
}
