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
mod subscribers;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use report::Report;
use scenarios::{Context, SCENARIOS};
use tests::machine::Machine;

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
    let is_name = |word: &str| SCENARIOS.iter().any(|(name, ..)| *name == word);
    let mut report = Report::new(Machine::look());
    for (name, in_short, scenario) in SCENARIOS {
        let wanted = match &arguments.only {
            Some(word) if is_name(word) => name == word,
            Some(part) => name.contains(part.as_str()),
            None => *in_short || !context.short,
        };
        if wanted {
            eprintln!("-- {name}");
            let began = Instant::now();
            let findings = scenario(&context).await;
            report.add(name, began.elapsed().as_secs(), findings);
            report.write(&arguments.report);
        }
    }
    println!("{report}");
    if report.is_sound() {
        ExitCode::SUCCESS
    } else {
        eprintln!("something was lost, sent twice or recorded wrongly: see the table");
        ExitCode::FAILURE
    }
}
