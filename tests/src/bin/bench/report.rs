//! The table, and the same with every run as JSON.

use std::fmt;
use std::path::Path;

use crate::figures::median;
use crate::run::Outcome;
use crate::usage::CpuPerEvent;
use ::tests::machine::Machine;

/// What is to be reached.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// One line of the table.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Line {
    pub what: String,
    pub unit: &'static str,
    /// Ours and what it is held against, for each pair.
    pub pairs: Vec<(f64, f64)>,
    /// Ours, where there is nothing to hold it against.
    pub alone: Option<f64>,
    /// Of the ratio, or of the figure that stands alone.
    pub goal: Option<Goal>,
    pub note: String,
}

impl Line {
    /// A figure by itself.
    pub fn alone(what: &str, unit: &'static str, value: f64) -> Self {
        Self {
            what: what.to_owned(),
            unit,
            alone: Some(value),
            ..Self::default()
        }
    }

    pub fn with_goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn ours(&self) -> f64 {
        let pairs = self.pairs.iter().map(|(ours, _)| *ours).collect::<Vec<_>>();
        self.alone.unwrap_or_else(|| median(&pairs))
    }

    fn beside(&self) -> Option<f64> {
        let values: Vec<f64> = self.pairs.iter().map(|(_, beside)| *beside).collect();
        (!values.is_empty()).then(|| median(&values))
    }

    /// The median of the pairs' ratios.
    fn ratio(&self) -> Option<f64> {
        let ratios = self.pairs.iter().map(|(ours, beside)| ours / beside);
        let ratios: Vec<f64> = ratios.collect();
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    fn verdict(&self) -> &'static str {
        let value = self.ratio().unwrap_or_else(|| self.ours());
        match self.goal {
            None => "",
            Some(Goal::AtLeast(least)) if value >= least => "met",
            Some(Goal::AtMost(most)) if value <= most => "met",
            Some(_) => "missed",
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beside = self.beside().map_or_else(String::new, number);
        let ratio = self.ratio();
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let goal = match self.goal {
            None => String::new(),
            Some(Goal::AtLeast(least)) => format!(">= {least}"),
            Some(Goal::AtMost(most)) => format!("<= {most}"),
        };
        let (what, ours, unit) = (&self.what, number(self.ours()), self.unit);
        let (verdict, note) = (self.verdict(), &self.note);
        write!(
            f,
            "| {what:<48} | {ours:>8} {unit:<3} | {beside:>8} | {ratio:>5} | {goal:>7} | {verdict:<6} | {note} |"
        )
    }
}

fn number(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// One run of a scenario, with all its figures.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Run {
    pub what: String,
    pub outcome: Outcome,
}

/// What a scenario found out.
#[derive(Debug, Default, serde::Serialize)]
pub struct Findings {
    pub lines: Vec<Line>,
    pub runs: Vec<Run>,
}

impl Findings {
    /// Keeps a run, and tells of it at once.
    pub fn add_run(&mut self, what: &str, outcome: &Outcome) {
        let Outcome {
            tally,
            latency,
            per_second,
            ..
        } = outcome;
        eprintln!(
            "   {what}: {} events, {per_second:.0} deliveries/s, p50 {:.2} p90 {:.2} p99 {:.2} ms, CPU us/event {}",
            tally.events,
            latency.p50_ms,
            latency.p90_ms,
            latency.p99_ms,
            cpu(&outcome.cpu),
        );
        for fault in &outcome.faults {
            eprintln!("   NOT SOUND: {fault}");
        }
        self.runs.push(Run {
            what: what.to_owned(),
            outcome: outcome.clone(),
        });
    }

    fn faults(&self) -> impl Iterator<Item = (&str, &str)> {
        self.runs.iter().flat_map(|run| {
            let faults = run.outcome.faults.iter();
            faults.map(|fault| (run.what.as_str(), fault.as_str()))
        })
    }
}

/// Services or bare pipeline, broker, PostgreSQL, publisher and receiver.
pub fn cpu(cpu: &CpuPerEvent) -> String {
    format!(
        "{:.0}+{:.0}+{:.0}+{:.0}",
        cpu.services_us, cpu.broker_us, cpu.postgres_us, cpu.bench_us
    )
}

/// All of it.
#[derive(Debug, serde::Serialize)]
pub struct Report {
    machine: Machine,
    arguments: Vec<String>,
    scenarios: Vec<Scenario>,
}

#[derive(Debug, serde::Serialize)]
struct Scenario {
    name: &'static str,
    seconds: u64,
    #[serde(flatten)]
    findings: Findings,
}

impl Report {
    pub fn new(machine: Machine) -> Self {
        Self {
            machine,
            arguments: std::env::args().skip(1).collect(),
            scenarios: Vec::new(),
        }
    }

    pub fn add(&mut self, name: &'static str, seconds: u64, findings: Findings) {
        self.scenarios.push(Scenario {
            name,
            seconds,
            findings,
        });
    }

    /// Nothing was lost, sent twice or recorded wrongly.
    pub fn is_sound(&self) -> bool {
        let mut all = self.scenarios.iter().map(|scenario| &scenario.findings);
        all.all(|findings| findings.faults().next().is_none())
    }

    /// After each scenario, so that a run that is ended early has told what it found.
    pub fn write(&self, to: &Path) {
        std::fs::write(to, serde_json::to_string_pretty(self).unwrap()).unwrap();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            date,
            cores,
            cpu,
            memory_mib,
            commit,
            postgres,
            rabbitmq,
        } = &self.machine;
        writeln!(
            f,
            "{date}, commit {commit}: {cores} cores of {cpu}, {memory_mib} MiB, PostgreSQL {postgres}, RabbitMQ {rabbitmq}\n"
        )?;
        writeln!(
            f,
            "| {:<48} | {:>12} | {:>8} | {:>5} | {:>7} | {:<6} | CPU us/event: services + broker + PostgreSQL + bench, ours / beside |",
            "", "ours", "beside", "ratio", "goal", ""
        )?;
        writeln!(f, "| --- | ---: | ---: | ---: | ---: | --- | --- |")?;
        for scenario in &self.scenarios {
            for line in &scenario.findings.lines {
                writeln!(f, "{line}")?;
            }
        }
        for scenario in &self.scenarios {
            for (run, fault) in scenario.findings.faults() {
                writeln!(f, "NOT SOUND: {}, {run}: {fault}", scenario.name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_the_ratios_is_held_against_the_goal() {
        let line = Line {
            pairs: vec![(7.0, 10.0), (9.0, 10.0), (1.0, 10.0)],
            ..Line::default()
        };
        assert_eq!(line.verdict(), "");
        assert_eq!(line.clone().with_goal(Goal::AtLeast(0.7)).verdict(), "met");
        let strict = line.with_goal(Goal::AtLeast(0.71));
        assert_eq!(strict.verdict(), "missed");
        assert!(strict.to_string().contains("|  0.70 | >= 0.71 | missed"));
    }

    #[test]
    fn a_figure_alone_may_have_a_goal_too() {
        let line = Line::alone("memory", "MiB", 150.0).with_goal(Goal::AtMost(200.0));
        assert_eq!(line.verdict(), "met");
    }

    #[test]
    fn a_fault_of_any_run_makes_the_report_unsound_and_stands_below_the_table() {
        let mut report = Report::new(Machine::look());
        report.add("quiet", 1, Findings::default());
        assert!(report.is_sound());
        let mut findings = Findings::default();
        let mut outcome = Outcome::default();
        outcome.faults.push("one is missing".to_owned());
        findings.add_run("ours", &outcome);
        report.add("loud", 1, findings);
        assert!(!report.is_sound());
        let text = report.to_string();
        assert!(text.contains("NOT SOUND: loud, ours: one is missing"));
    }
}
