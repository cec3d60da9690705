//! `make chaos`: breaks every part of the product under load and prints what was lost: see `tests::chaos`. Progress goes to
//! standard error, the table to standard output, everything together into `.run/chaos.json`. Exit code 0 only when
//! nothing was lost and nothing arrived twice that no fault explains.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use rand::Rng as _;
use tests::chaos::{self, Fault, Length, Options, Report};

#[derive(Parser)]
#[command(
    name = "chaos",
    about = "Breaks every part of the product under load, and counts what is lost"
)]
struct Arguments {
    /// Each fault once, in under three minutes
    #[arg(long)]
    short: bool,
    /// Only this fault; may be given several times
    #[arg(long, value_name = "FAULT")]
    only: Vec<Fault>,
    /// Decides order, moments and processes; by chance where it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// Events that are published each second
    #[arg(long, value_name = "EVENTS", default_value_t = 500)]
    rate: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        length: if arguments.short {
            Length::Short
        } else {
            Length::Whole
        },
        seed: arguments
            .seed
            .unwrap_or_else(|| rand::rng().random_range(0..1_000_000)),
        only: arguments.only,
        events_per_second: arguments.rate,
        progress: |line| eprintln!("[{}] {line}", chrono::Local::now().format("%H:%M:%S")),
    };
    let run = tests::servers::repository().join(".run");
    let report = chaos::run(options, &run.join("chaos")).await;
    let json = run.join("chaos.json");
    if let Err(error) = tell(&report, &json) {
        eprintln!("cannot tell what came of it: {error}");
        return ExitCode::FAILURE;
    }
    if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn tell(report: &Report, json: &std::path::Path) -> std::io::Result<()> {
    std::fs::write(json, format!("{:#}\n", report.json()))?;
    std::io::stdout().write_all(report.table().as_bytes())
}
