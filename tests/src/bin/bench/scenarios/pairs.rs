//! Two runs beside each other, several times: what a pair has in common, such as the hour and its neighbours on the same
//! machine, is in both.

use super::Context;
use crate::figures::Latency;
use crate::report::{Findings, Goal, Line, cpu};
use crate::run::Outcome;

/// Ours and what it is held against.
pub struct Pairs(Vec<(Outcome, Outcome)>);

/// Runs both so many times, each of them first in turn.
pub async fn run(
    context: &Context,
    findings: &mut Findings,
    (ours_name, ours): (&str, impl AsyncFn() -> Outcome),
    (beside_name, beside): (&str, impl AsyncFn() -> Outcome),
) -> Pairs {
    let mut pairs = Vec::new();
    for number in 0..context.pairs {
        let mut of_ours = None;
        if number % 2 == 1 {
            let outcome = ours().await;
            findings.add_run(ours_name, &outcome);
            of_ours = Some(outcome);
        }
        let of_beside = beside().await;
        findings.add_run(beside_name, &of_beside);
        let of_ours = match of_ours {
            Some(outcome) => outcome,
            None => {
                let outcome = ours().await;
                findings.add_run(ours_name, &outcome);
                outcome
            }
        };
        pairs.push((of_ours, of_beside));
    }
    Pairs(pairs)
}

impl Pairs {
    /// A line of the table about one figure of both.
    pub fn line(
        &self,
        what: &str,
        unit: &'static str,
        goal: Option<Goal>,
        figure: impl Fn(&Outcome) -> f64,
    ) -> Line {
        let figures = |(ours, beside): &(Outcome, Outcome)| (figure(ours), figure(beside));
        Line {
            what: what.to_owned(),
            unit,
            pairs: self.0.iter().map(figures).collect(),
            goal,
            ..Line::default()
        }
    }

    /// What messages took that no service touched, where every run measured it.
    pub fn broker_alone(&self, share: &str, figure: impl Fn(Latency) -> f64) -> Line {
        let what = format!("the broker alone at that time, {share}");
        self.line(&what, "ms", None, |outcome| {
            figure(outcome.broker_alone.unwrap())
        })
    }

    /// What an event of the last pair cost.
    pub fn cpu(&self) -> String {
        let last = self.0.last();
        last.map_or_else(String::new, |(ours, beside)| {
            format!("{} / {}", cpu(&ours.cpu), cpu(&beside.cpu))
        })
    }

    /// The least of a figure on both sides.
    pub fn least(&self, figure: impl Fn(&Outcome) -> f64) -> f64 {
        let both = self.0.iter().flat_map(|(ours, beside)| [ours, beside]);
        both.map(figure).fold(f64::INFINITY, f64::min)
    }

    /// A figure of ours, of every pair.
    pub fn ours(&self, figure: impl Fn(&Outcome) -> f64) -> Vec<f64> {
        self.0.iter().map(|(ours, _)| figure(ours)).collect()
    }
}
