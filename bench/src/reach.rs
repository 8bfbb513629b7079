//! What was set as the goal, beside what was measured.

use serde::Serialize;

use crate::cell::{Cell, Latency};
use crate::peers::Peer;
use crate::report;
use crate::rounds::Row;
use crate::statistics::Spread;

/// Longest stall of a request by a reload, in milliseconds.
const STALL_MS: f64 = 10.0;

/// One goal.
#[derive(Debug, Clone, Serialize)]
pub struct Goal {
    /// What is compared.
    pub says: &'static str,
    /// What it should be.
    pub wanted: String,
    /// What it was; nothing where it was not measured in this run.
    pub measured: Option<Spread>,
    /// Whether the median is there.
    pub reached: Option<bool>,
    /// Whether every round was: where only the median is, it is less than sure.
    pub in_every_round: Option<bool>,
}

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub enum Wanted {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
}

/// Every goal that has a figure here; the others say that they were not measured.
#[must_use]
pub fn goals(rows: &[Row]) -> Vec<Goal> {
    use Wanted::{AtLeast, AtMost};
    let cost = |cell: &Cell| cell.per_cpu_second;
    let p99 = |cell: &Cell| cell.open.as_ref().map_or(0.0, |open| open.p99);
    #[allow(clippy::cast_precision_loss)]
    let memory = |cell: &Cell| cell.rss as f64;
    let ours = |workload| Of(rows, workload, Peer::Fhirward);
    let envoy = |workload| Of(rows, workload, Peer::Envoy);
    let flood = ours("flood");
    let loud = |at: &Latency| at.p99;
    vec![
        goal(
            "requests per CPU-second, repeating tokens, against Envoy",
            AtLeast(3.0),
            ours("read").to(&envoy("read"), cost),
        ),
        goal(
            "requests per CPU-second, fresh tokens, against Envoy",
            AtLeast(2.0),
            ours("fresh").to(&envoy("fresh"), cost),
        ),
        goal(
            "p99 at equal load, repeating tokens, against Envoy",
            AtMost(1.0),
            ours("read").to(&envoy("read"), p99),
        ),
        goal(
            "p99 at equal load, fresh tokens, against Envoy",
            AtMost(1.0),
            ours("fresh").to(&envoy("fresh"), p99),
        ),
        goal(
            "resident memory under load, against Envoy",
            AtMost(1.0 / 3.0),
            ours("read").to(&envoy("read"), memory),
        ),
        goal(
            "requests per CPU-second, repeating tokens, against bare hyper",
            AtLeast(0.8),
            ours("read").to(&Of(rows, "read", Peer::Bare), cost),
        ),
        goal(
            "CPU of a whole request, 10,000 policies against 1 (the decision alone: `cargo bench -p bench`)",
            AtMost(1.3),
            ours("read").to(&ours("policies"), cost),
        ),
        goal(
            "longest latency during a reload of 10,000 policies, ms (worst round in brackets)",
            AtMost(STALL_MS),
            ours("reload").beside(|at| at.longest),
        ),
        goal(
            "requests per CPU-second, against fhir-gateway",
            AtLeast(30.0),
            ours("read").to(&Of(rows, "read", Peer::FhirGateway), cost),
        ),
        goal("p99 beside a flood of bad signatures, against none", AtMost(1.5), flood.beside_to_quiet(loud)),
    ]
}

/// The goals as lines.
#[must_use]
pub fn lines(goals: &[Goal]) -> String {
    let mut out = String::from("### Reach\n\n| figure | wanted | measured | |\n|---|---|---|---|\n");
    for goal in goals {
        let verdict = match goal.reached {
            Some(true) if goal.in_every_round == Some(true) => "reached",
            Some(true) => "reached by the median, not in every round",
            Some(false) => "NOT REACHED",
            None => "not measured in this run",
        };
        out +=
            &format!("| {} | {} | {} | {verdict} |\n", goal.says, goal.wanted, report::spread(goal.measured));
    }
    out
}

/// A goal beside its figure.
#[must_use]
pub fn goal(says: &'static str, wanted: Wanted, measured: Option<Spread>) -> Goal {
    let (text, verdict) = match wanted {
        Wanted::AtLeast(least) => (
            format!("at least {least:.1}"),
            measured.map(|found| (found.median >= least, found.least >= least)),
        ),
        Wanted::AtMost(most) => (
            format!("at most {most:.2}"),
            measured.map(|found| (found.median <= most, found.greatest <= most)),
        ),
    };
    let (reached, in_every_round) = verdict.unzip();
    Goal { says, wanted: text, measured, reached, in_every_round }
}

/// A peer's row under a workload.
struct Of<'a>(&'a [Row], &'static str, Peer);

impl Of<'_> {
    fn row(&self) -> Option<&Row> {
        let named = |row: &&Row| row.workload == self.1 && row.peer == self.2.name() && !row.cells.is_empty();
        self.0.iter().find(named)
    }

    fn to(&self, base: &Self, figure: impl Fn(&Cell) -> f64 + Copy) -> Option<Spread> {
        Spread::of_ratios(&self.row()?.series(figure), &base.row()?.series(figure))
    }

    fn beside(&self, figure: fn(&Latency) -> f64) -> Option<Spread> {
        Spread::of(self.row()?.cells.iter().filter_map(|cell| cell.beside.as_ref()).map(figure))
    }

    fn beside_to_quiet(&self, figure: fn(&Latency) -> f64) -> Option<Spread> {
        let row = self.row()?;
        let of = |at: Option<&Latency>| at.map_or(0.0, figure);
        Spread::of_ratios(
            &row.series(|cell| of(cell.beside.as_ref())),
            &row.series(|cell| of(cell.open.as_ref())),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_reached_by_the_median_and_surely_by_every_round() {
        let spread = |least, median, greatest| Some(Spread { least, median, greatest });
        let verdict = |wanted, found| {
            let goal = goal("x", wanted, found);
            (goal.reached, goal.in_every_round)
        };
        assert_eq!(verdict(Wanted::AtLeast(3.0), spread(3.0, 3.5, 4.0)), (Some(true), Some(true)));
        assert_eq!(verdict(Wanted::AtLeast(3.0), spread(2.9, 3.5, 4.0)), (Some(true), Some(false)));
        assert_eq!(verdict(Wanted::AtMost(3.0), spread(1.0, 3.5, 4.0)), (Some(false), Some(false)));
        assert_eq!(verdict(Wanted::AtMost(1.0), None), (None, None));
        assert!(lines(&goals(&[])).lines().skip(4).all(|line| line.contains("not measured")));
    }
}
