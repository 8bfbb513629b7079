//! Table and goals.

use std::fmt::Write as _;

use super::measure::Memory;
use super::{ALL, Section, Work};
use crate::cell::Cell;
use crate::peers::Peer;
use crate::reach::{Goal, Wanted, goal};
use crate::report::{median, spread};
use crate::rounds::Row;
use crate::statistics::Spread;

const MIB: f64 = 1024.0 * 1024.0;

/// The tables: load, then memory.
#[must_use]
pub fn table(section: &Section) -> String {
    let mut out = String::from(
        "### mtls: mTLS of the mesh, beside Envoy\n\n| what | per CPU-s | envoy's | : envoy | per second | envoy's | offered/s | p99 ms | envoy's | \
         RSS MiB | envoy's |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let measured = |work: &&Work| section.rows.iter().any(|row| row.workload == work.name);
    for work in ALL.iter().filter(measured) {
        let [ours, envoy] = [Peer::Fhirward, Peer::Envoy].map(|peer| row(section, work.name, peer));
        line(&mut out, work, ours, envoy);
    }
    for row in section.rows.iter().filter(|row| row.failed) {
        let why = row.dash.as_deref().unwrap_or_default().replace('\n', " ");
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {} {} | – {why} |", row.workload, row.peer);
    }
    memory(&mut out, section);
    out
}

fn line(out: &mut String, work: &Work, ours: Option<&Row>, envoy: Option<&Row>) {
    let of = |row: Option<&Row>, figure: fn(&Cell) -> f64, digits| {
        median(row.and_then(|row| row.spread(figure)), digits)
    };
    let open = |row: Option<&Row>, figure: fn(&crate::cell::Latency) -> f64, digits| {
        let cells = row.into_iter().flat_map(|row| &row.cells);
        median(Spread::of(cells.filter_map(|cell| cell.open.as_ref()).map(figure)), digits)
    };
    #[allow(clippy::cast_precision_loss)]
    let rss: fn(&Cell) -> f64 = |cell| cell.rss as f64 / MIB;
    let cells = [
        work.says.to_owned(),
        of(ours, |cell| cell.per_cpu_second, 0),
        of(envoy, |cell| cell.per_cpu_second, 0),
        spread(ratio(ours, envoy, |cell| cell.per_cpu_second)),
        of(ours, |cell| cell.rate, 0),
        of(envoy, |cell| cell.rate, 0),
        open(ours, |open| open.offered, 0),
        open(ours, |open| open.p99, 2),
        open(envoy, |open| open.p99, 2),
        of(ours, rss, 0),
        of(envoy, rss, 0),
    ];
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn memory(out: &mut String, section: &Section) {
    let Some(first) = section.memory.first() else { return };
    let _ = writeln!(
        out,
        "\n| RSS MiB | 1 workload | {0} | {0} in plaintext | {0} less 1 | of it mTLS | mTLS of a workload, KiB |\n|---|---|---|---|---|---|---|",
        first.workloads
    );
    for row in &section.memory {
        if let Some(why) = &row.failed {
            let _ = writeln!(out, "| {} | – {} |", row.peer, why.replace('\n', " "));
            continue;
        }
        #[allow(clippy::cast_precision_loss)]
        let of = |figure: fn(&Memory) -> u64, unit: f64, digits| {
            median(Spread::of(row.cells.iter().map(|cell| figure(cell) as f64 / unit)), digits)
        };
        #[allow(clippy::cast_precision_loss)]
        let each = 1024.0 * row.workloads.max(1) as f64;
        let cells = [
            row.peer.to_owned(),
            of(|memory| memory.one, MIB, 1),
            of(|memory| memory.all, MIB, 1),
            of(|memory| memory.plaintext, MIB, 1),
            of(Memory::workloads, MIB, 1),
            of(Memory::certificates, MIB, 1),
            of(Memory::certificates, each, 1),
        ];
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
}

/// Every goal.
#[must_use]
pub fn goals(section: &Section) -> Vec<Goal> {
    use Wanted::{AtLeast, AtMost};
    let p99: fn(&Cell) -> f64 = |cell| cell.open.as_ref().map_or(0.0, |open| open.p99);
    let cost: fn(&Cell) -> f64 = |cell| cell.per_cpu_second;
    let of = |name: &str, figure: fn(&Cell) -> f64| {
        ratio(row(section, name, Peer::Fhirward), row(section, name, Peer::Envoy), figure)
    };
    vec![
        goal("mTLS: full handshakes per CPU-second, against Envoy", AtLeast(1.0), of("mtls-full", cost)),
        goal(
            "mTLS: resumed handshakes per CPU-second, against Envoy",
            AtLeast(1.0),
            of("mtls-resumed", cost),
        ),
        goal(
            "mTLS: requests per CPU-second, 1 connection, against Envoy",
            AtLeast(1.5),
            of("mtls-one", cost),
        ),
        goal(
            "mTLS: requests per CPU-second, 32 connections, against Envoy",
            AtLeast(1.5),
            of("mtls-many", cost),
        ),
        goal("mTLS: p99 at equal load, 1 connection, against Envoy", AtMost(1.0), of("mtls-one", p99)),
        goal("mTLS: p99 at equal load, 32 connections, against Envoy", AtMost(1.0), of("mtls-many", p99)),
        goal("mTLS: 1 MiB down per CPU-second, against Envoy", AtLeast(1.0), of("mtls-down", cost)),
        goal("mTLS: 1 MiB up per CPU-second, against Envoy", AtLeast(1.0), of("mtls-up", cost)),
        goal("HBONE: requests per CPU-second, 1 tunnel, against Envoy", AtLeast(1.0), of("hbone-one", cost)),
        goal(
            "HBONE: requests per CPU-second, 32 tunnels, against Envoy",
            AtLeast(1.0),
            of("hbone-many", cost),
        ),
        goal("HBONE: p99 at equal load, 1 tunnel, against Envoy", AtMost(1.0), of("hbone-one", p99)),
        goal("HBONE: p99 at equal load, 32 tunnels, against Envoy", AtMost(1.0), of("hbone-many", p99)),
        goal("HBONE: 1 MiB raw down per CPU-second, against Envoy", AtLeast(1.0), of("hbone-down", cost)),
        goal("HBONE: 1 MiB raw up per CPU-second, against Envoy", AtLeast(1.0), of("hbone-up", cost)),
        goal(
            "mTLS: memory of 1,000 workloads less that of 1, against Envoy",
            AtMost(1.0),
            kept(section, Memory::workloads),
        ),
        goal(
            "mTLS: of it what mTLS takes (less 1,000 in plaintext), against Envoy",
            AtMost(1.0),
            kept(section, Memory::certificates),
        ),
    ]
}

fn row<'a>(section: &'a Section, name: &str, peer: Peer) -> Option<&'a Row> {
    let named = |row: &&Row| row.workload == name && row.peer == peer.name() && !row.cells.is_empty();
    section.rows.iter().find(named)
}

fn ratio(ours: Option<&Row>, envoy: Option<&Row>, figure: fn(&Cell) -> f64) -> Option<Spread> {
    Spread::of_ratios(&ours?.series(figure), &envoy?.series(figure))
}

fn kept(section: &Section, figure: fn(&Memory) -> u64) -> Option<Spread> {
    #[allow(clippy::cast_precision_loss)]
    let series = |peer: Peer| {
        let row = section.memory.iter().find(|row| row.peer == peer.name())?;
        Some(row.cells.iter().map(|cell| figure(cell) as f64).collect::<Vec<_>>())
    };
    Spread::of_ratios(&series(Peer::Fhirward)?, &series(Peer::Envoy)?)
}
