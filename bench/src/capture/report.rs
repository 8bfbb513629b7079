//! Tables and goals.

use std::fmt::Write as _;

use super::measure::Cell;
use super::ways::{Led, Way};
use super::{Row, Section};
use crate::reach::{Goal, Wanted, goal};
use crate::report::spread;
use crate::statistics::Spread;

/// Most of what a captured request may cost, for what one by the proxy's address does.
const EXPLICIT: f64 = 1.1;
/// Most that the programs may take for a connect, microseconds.
const HOOKS: f64 = 2.0;

/// The table of all ways and that of the programs.
#[must_use]
pub fn table(section: &Section) -> String {
    let mut out = String::from("### capture: pods on one node\n\n");
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "| way | connects/s | p50 ms | p99 | CPU us | of it between | req/s | CPU us | of it between | \
         p50 ms at {:.0}/s | p99 | MiB/s | CPU us a MiB |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        section.offered.requests
    );
    for row in section.rows.iter().filter(|row| !row.cells.is_empty()) {
        let of = |figure: fn(&Cell) -> f64, digits: usize| {
            let spread = Spread::of(row.cells.iter().map(figure));
            spread.map_or_else(|| "–".to_owned(), |spread| format!("{:.digits$}", spread.median))
        };
        let cells = [
            of(|cell| cell.connects, 0),
            of(|cell| cell.connect_p50, 2),
            of(|cell| cell.connect_p99, 2),
            of(|cell| cell.connect_cpu, 0),
            of(|cell| cell.connect_between, 0),
            of(|cell| cell.rate, 0),
            of(|cell| cell.request_cpu, 1),
            of(|cell| cell.request_between, 1),
            of(|cell| cell.p50, 2),
            of(|cell| cell.p99, 2),
            of(|cell| cell.throughput, 0),
            of(|cell| cell.mebibyte_cpu, 0),
        ];
        let _ = writeln!(out, "| {} | {} |", row.way, cells.join(" | "));
    }
    for row in &section.rows {
        if let Some(why) = &row.failed {
            let _ = writeln!(out, "| {} | – {} |", row.way, why.replace('\n', " "));
        }
    }
    programs(&mut out, section);
    out
}

fn programs(out: &mut String, section: &Section) {
    let Some(hooks) = &section.hooks else { return };
    let _ = writeln!(out, "\n| program | runs a connection | ns a connection |\n|---|---|---|");
    for (name, program) in &hooks.programs {
        let _ = writeln!(out, "| {name} | {:.2} | {:.0} |", program.runs, program.nanoseconds);
    }
    let _ = writeln!(out, "| all, of {} connections | | {:.0} |", hooks.connects, hooks.nanoseconds());
}

/// Whether one is better when it is greater.
#[derive(Clone, Copy)]
enum Better {
    More,
    Less,
}

/// Every goal.
#[must_use]
pub fn goals(section: &Section) -> Vec<Goal> {
    use Better::{Less, More};
    type Figure = (&'static str, &'static str, Better, fn(&Cell) -> f64);
    let figures: [Figure; 7] = [
        (
            "raw TCP: connects a second, against iptables",
            "policy: connects a second, against iptables",
            More,
            |cell| cell.connects,
        ),
        (
            "raw TCP: requests a second, against iptables",
            "policy: requests a second, against iptables",
            More,
            |cell| cell.rate,
        ),
        (
            "raw TCP: p50 at equal load, against iptables",
            "policy: p50 at equal load, against iptables",
            Less,
            |cell| cell.p50,
        ),
        (
            "raw TCP: p99 at equal load, against iptables",
            "policy: p99 at equal load, against iptables",
            Less,
            |cell| cell.p99,
        ),
        (
            "raw TCP: 1 MiB throughput, against iptables",
            "policy: 1 MiB throughput, against iptables",
            More,
            |cell| cell.throughput,
        ),
        (
            "raw TCP: CPU of a connect, against iptables",
            "policy: CPU of a connect, against iptables",
            Less,
            |cell| cell.connect_cpu,
        ),
        (
            "raw TCP: CPU of a request, against iptables",
            "policy: CPU of a request, against iptables",
            Less,
            |cell| cell.request_cpu,
        ),
    ];
    let wanted = |better| match better {
        More => Wanted::AtLeast(1.0),
        Less => Wanted::AtMost(1.0),
    };
    let mut goals = Vec::new();
    for (tcp, policy, better, figure) in figures {
        let ratio = |way: fn(Led) -> Way| ratio(section, way(Led::Bpf), way(Led::Redirect), figure);
        goals.push(goal(tcp, wanted(better), ratio(Way::Tcp)));
        goals.push(goal(policy, wanted(better), ratio(Way::Policy)));
    }
    let explicit = |figure| ratio(section, Way::Policy(Led::Bpf), Way::Explicit, figure);
    goals.push(goal(
        "captured keep-alive request, CPU of all processes, against the explicit proxy's",
        Wanted::AtMost(EXPLICIT),
        explicit(|cell| cell.request_cpu),
    ));
    goals.push(goal(
        "captured keep-alive request, p50 at equal load, against the explicit proxy's",
        Wanted::AtMost(EXPLICIT),
        explicit(|cell| cell.p50),
    ));
    let hooks = section.hooks.as_ref().and_then(|hooks| Spread::of([hooks.of_connecting() / 1e3]));
    goals.push(goal("the programs' time for a connect, us", Wanted::AtMost(HOOKS), hooks));
    goals
}

fn ratio(section: &Section, above: Way, below: Way, figure: fn(&Cell) -> f64) -> Option<Spread> {
    let row = |way: Way| section.rows.iter().find(|row| row.way == way.name());
    let series = |row: &Row| row.cells.iter().map(figure).collect::<Vec<f64>>();
    Spread::of_ratios(&series(row(above)?), &series(row(below)?))
}

/// What acceleration gains, as one line.
#[must_use]
pub fn acceleration(section: &Section) -> String {
    let gain = |figure| ratio(section, Way::Tcp(Led::Accelerated), Way::Tcp(Led::Bpf), figure);
    format!(
        "Acceleration, raw TCP, with it : without: requests a second {}, p50 {}, 1 MiB throughput {}, CPU of a \
         request {}, connects a second {}.\n",
        spread(gain(|cell| cell.rate)),
        spread(gain(|cell| cell.p50)),
        spread(gain(|cell| cell.throughput)),
        spread(gain(|cell| cell.request_cpu)),
        spread(gain(|cell| cell.connects)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::measure::Offered;

    fn section(rows: &[(Way, f64)]) -> Section {
        let row = |(way, connects): &(Way, f64)| Row {
            way: way.name(),
            cells: vec![Cell { connects: *connects, ..Cell::default() }],
            failed: None,
        };
        Section { rows: rows.iter().map(row).collect(), hooks: None, offered: Offered { requests: 1.0 } }
    }

    #[test]
    fn captured_is_held_against_iptables_of_the_same_kind() {
        let rows =
            [(Way::Tcp(Led::Bpf), 30.0), (Way::Tcp(Led::Redirect), 20.0), (Way::Policy(Led::Bpf), 10.0)];
        let goals = goals(&section(&rows));
        let of = |says: &str| goals.iter().find(|goal| goal.says == says).and_then(|goal| goal.reached);
        assert_eq!(of("raw TCP: connects a second, against iptables"), Some(true));
        assert_eq!(of("policy: connects a second, against iptables"), None, "not measured");
    }

    #[test]
    fn every_way_has_a_name_of_its_own() {
        let mut names: Vec<_> = Way::ALL.iter().map(|way| way.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Way::ALL.len());
    }

    #[test]
    fn a_way_without_figures_is_told_with_its_reason() {
        let mut section = section(&[(Way::Direct, 1.0)]);
        section.rows.push(Row { way: "lost", cells: Vec::new(), failed: Some("no\npods".to_owned()) });
        let text = table(&section);
        assert!(text.contains("| direct | 1 |") && text.contains("| lost | – no pods |"), "{text}");
    }
}
