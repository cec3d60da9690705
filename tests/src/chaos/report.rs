//! What came of a run: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::account::{Account, Line, Strike};
use super::changes::Tally;
use super::clock::Ms;
use super::{Length, Options};
use crate::machine::Machine;

/// Further problems are only counted.
const PROBLEMS_TOLD: usize = 20;

pub struct Report {
    pub machine: Machine,
    pub options: Options,
    pub account: Account,
    pub tally: Tally,
    pub strikes: Vec<Strike>,
    /// Everything that is wrong; nothing may be.
    pub problems: Vec<String>,
    pub took: Duration,
}

impl Report {
    /// Nothing was lost, nothing came twice that no fault explains, and everything agrees.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.problems.is_empty() && self.account.total().lost() == 0
    }

    #[must_use]
    pub fn table(&self) -> String {
        let mut table = format!(
            "{:<17} {:>5} {:>9} {:>9} {:>9} {:>5} {:>6} {:>9}   {:<14}\n",
            "fault",
            "times",
            "confirmed",
            "expected",
            "delivered",
            "lost",
            "twice",
            "in flight",
            "recovery p50/max"
        );
        table.push_str(&line("(before)", &self.account.before));
        for (fault, of) in &self.account.lines {
            table.push_str(&line(fault.name(), of));
        }
        table.push_str(&line("all", &self.account.total()));
        table.push('\n');
        self.tell_records(&mut table).expect("a string takes all");
        table
    }

    fn tell_records(&self, text: &mut String) -> std::fmt::Result {
        let records = &self.account.records;
        writeln!(
            text,
            "records: {} deliveries with {} attempts, and {} requests seen; {} differ, {} of them without a fault",
            records.rows,
            records.attempts,
            records.requests,
            records.differing,
            records.unexplained
        )?;
        let (p50, max) = percentiles(&self.tally.effect_ms);
        writeln!(
            text,
            "REST API: {} changes confirmed, {} effective, {p50} ms p50 and {max} ms at most after the confirm; \
             {} requests sent again",
            self.tally.confirmed,
            self.tally.effect_ms.len(),
            self.tally.repeated
        )?;
        let Machine { date, commit, .. } = &self.machine;
        writeln!(
            text,
            "{date}, commit {commit}, seed {}, {} events/s, {} faults in {} s: {}",
            self.options.seed,
            self.options.events_per_second,
            self.strikes.len(),
            self.took.as_secs(),
            if self.passed() { "passed" } else { "FAILED" }
        )?;
        for problem in self.problems.iter().take(PROBLEMS_TOLD) {
            writeln!(text, "  {problem}")?;
        }
        match self.problems.len().saturating_sub(PROBLEMS_TOLD) {
            0 => Ok(()),
            more => writeln!(text, "  and {more} more problems"),
        }
    }

    #[must_use]
    pub fn json(&self) -> Value {
        let lines: serde_json::Map<_, _> = self
            .account
            .lines
            .iter()
            .map(|(fault, of)| (fault.name().to_owned(), line_json(of)))
            .collect();
        let records = &self.account.records;
        let strikes = self.strikes.iter().map(|strike| {
            json!({
                "fault": strike.fault.name(),
                "what": strike.what,
                "began_ms": strike.began,
                "struck_ms": strike.struck,
                "ended_ms": strike.ended,
                "recovered": strike.recovered,
            })
        });
        json!({
            "passed": self.passed(),
            "machine": self.machine,
            "seed": self.options.seed,
            "length": match self.options.length { Length::Whole => "whole", Length::Short => "short" },
            "only": self.options.only.iter().map(|fault| fault.name()).collect::<Vec<_>>(),
            "events_per_second": self.options.events_per_second,
            "took_s": self.took.as_secs(),
            "before": line_json(&self.account.before),
            "faults": lines,
            "all": line_json(&self.account.total()),
            "records": {
                "deliveries": records.rows,
                "attempts": records.attempts,
                "requests": records.requests,
                "differing": records.differing,
                "unexplained": records.unexplained,
            },
            "changes": {
                "confirmed": self.tally.confirmed,
                "effective": self.tally.effect_ms.len(),
                "sent_again": self.tally.repeated,
                "effect_p50_ms": percentiles(&self.tally.effect_ms).0,
                "effect_max_ms": percentiles(&self.tally.effect_ms).1,
            },
            "strikes": strikes.collect::<Vec<_>>(),
            "problems": self.problems,
        })
    }
}

fn line(name: &str, of: &Line) -> String {
    let recovery = match of.recovery_ms() {
        Some((p50, max)) => format!("{:>5.1} / {:.1} s", seconds(p50), seconds(max)),
        None => "-".to_owned(),
    };
    format!(
        "{name:<17} {:>5} {:>9} {:>9} {:>9} {:>5} {:>6} {:>9}   {recovery}\n",
        of.times,
        of.confirmed,
        of.expected,
        of.delivered,
        of.lost(),
        of.twice,
        of.in_flight
    )
}

fn line_json(of: &Line) -> Value {
    json!({
        "times": of.times,
        "confirmed": of.confirmed,
        "expected": of.expected,
        "delivered": of.delivered,
        "lost": of.lost(),
        "twice": of.twice,
        "in_flight": of.in_flight,
        "recovery_ms": of.recovery,
    })
}

fn seconds(ms: Ms) -> f64 {
    f64::from(ms) / 1_000.0
}

/// The median and the largest.
fn percentiles(values: &[u64]) -> (u64, u64) {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let middle = sorted.get(sorted.len().saturating_sub(1) / 2);
    (
        middle.copied().unwrap_or(0),
        sorted.last().copied().unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::Fault;

    fn report(problems: &[&str], delivered: usize) -> Report {
        let mut account = Account::default();
        let line = Line {
            times: 2,
            confirmed: 100,
            expected: 300,
            delivered,
            twice: 4,
            in_flight: 7,
            recovery: vec![1_500, 2_500, 9_000],
        };
        account.lines.insert(Fault::KillDispatcher, line);
        Report {
            machine: Machine::look(),
            options: Options {
                length: Length::Short,
                seed: 7,
                only: Vec::new(),
                events_per_second: 500,
                progress: |_| (),
            },
            account,
            tally: Tally::default(),
            strikes: Vec::new(),
            problems: problems.iter().map(ToString::to_string).collect(),
            took: Duration::from_secs(61),
        }
    }

    #[test]
    fn the_table_tells_each_fault_and_all_together() {
        let table = report(&[], 300).table();
        let row = "     2       100       300       300     0      4         7     2.5 / 9.0 s";
        assert!(
            table.contains(&format!("kill-dispatcher  {row}")),
            "{table}"
        );
        assert!(
            table.contains(&format!("all              {row}")),
            "{table}"
        );
        assert!(
            table.contains("seed 7, 500 events/s, 0 faults in 61 s: passed"),
            "{table}"
        );
    }

    #[test]
    fn whatever_is_lost_or_wrong_fails_the_run() {
        assert!(report(&[], 300).passed());
        assert!(!report(&[], 299).passed());
        let wrong = report(&["a delivery has no row"], 300);
        assert!(!wrong.passed());
        assert!(wrong.table().ends_with("FAILED\n  a delivery has no row\n"));
        assert_eq!(wrong.json()["passed"], false);
        assert_eq!(
            wrong.json()["faults"]["kill-dispatcher"]["recovery_ms"][1],
            2_500
        );
    }

    #[test]
    fn of_many_problems_the_first_are_told() {
        let table = report(&["x"; 25], 300).table();
        assert!(table.ends_with("  x\n  and 5 more problems\n"), "{table}");
    }
}
