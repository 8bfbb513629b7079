//! The tables, as Markdown.

use std::fmt::Write as _;

use crate::cell::Cell;
use crate::peers::Peer;
use crate::rounds::Row;
use crate::statistics::Spread;
use crate::workloads::{Beside, Workload};

const MIB: f64 = 1024.0 * 1024.0;

/// The table of one workload.
#[must_use]
pub fn table(workload: &Workload, rows: &[Row]) -> String {
    let mut out = format!("### {}: {}\n\n", workload.name, workload.says);
    // Writing to a String cannot fail.
    let _ = match workload.beside {
        Beside::Flood | Beside::Reload => beside(&mut out, workload, rows),
        _ => plain(&mut out, rows),
    };
    for row in rows {
        if let Some(why) = &row.dash {
            let _ = writeln!(out, "| {} | – {} |", row.peer, why.replace('\n', " "));
        }
    }
    out
}

fn plain(out: &mut String, rows: &[Row]) -> std::fmt::Result {
    let offered =
        rows.iter().find_map(|row| row.cells.first()?.open.as_ref()).map_or(0.0, |open| open.offered);
    writeln!(
        out,
        "| peer | req/CPU-s | : envoy | : bare | req/s | p50 ms at {offered:.0}/s | p99 | p99.9 | RSS MiB | PSS | at start |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|---|---|")?;
    for row in rows.iter().filter(|row| !row.cells.is_empty()) {
        let cost = |cell: &Cell| cell.per_cpu_second;
        let ratio = |to: Peer| {
            let base = rows.iter().find(|row| row.peer == to.name());
            base.and_then(|base| Spread::of_ratios(&row.series(cost), &base.series(cost)))
        };
        let open = |figure: fn(&crate::cell::Latency) -> f64| {
            let values = row.cells.iter().filter_map(|cell| cell.open.as_ref()).map(figure);
            median(Spread::of(values), 2)
        };
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.peer,
            median(row.spread(cost), 0),
            spread(ratio(Peer::Envoy)),
            spread(ratio(Peer::Bare)),
            median(row.spread(|cell| cell.rate), 0),
            open(|open| open.p50),
            open(|open| open.p99),
            open(|open| open.p999),
            mebibytes(row, |cell| cell.rss),
            mebibytes(row, |cell| cell.pss),
            mebibytes(row, |cell| cell.rss_ready),
        )?;
    }
    Ok(())
}

/// Latency without and with what goes on beside.
fn beside(out: &mut String, workload: &Workload, rows: &[Row]) -> std::fmt::Result {
    let what = if workload.beside == Beside::Flood { "flood" } else { "reload" };
    writeln!(
        out,
        "| peer | offered req/s | p99 ms | p99 with {what} | ratio | longest ms | longest with {what} (worst) | RSS MiB | at start |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
    for row in rows.iter().filter(|row| !row.cells.is_empty()) {
        let quiet = |figure: fn(&crate::cell::Latency) -> f64| {
            row.series(|cell| cell.open.as_ref().map_or(0.0, figure))
        };
        let loud = |figure: fn(&crate::cell::Latency) -> f64| {
            row.series(|cell| cell.beside.as_ref().map_or(0.0, figure))
        };
        let worst = Spread::of(loud(|at| at.longest)).map_or(0.0, |spread| spread.greatest);
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} ({worst:.2}) | {} | {} |",
            row.peer,
            median(Spread::of(quiet(|at| at.offered)), 0),
            median(Spread::of(quiet(|at| at.p99)), 2),
            median(Spread::of(loud(|at| at.p99)), 2),
            spread(Spread::of_ratios(&loud(|at| at.p99), &quiet(|at| at.p99))),
            median(Spread::of(quiet(|at| at.longest)), 2),
            median(Spread::of(loud(|at| at.longest)), 2),
            mebibytes(row, |cell| cell.rss),
            mebibytes(row, |cell| cell.rss_ready),
        )?;
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn mebibytes(row: &Row, figure: impl Fn(&Cell) -> u64) -> String {
    median(row.spread(|cell| figure(cell) as f64 / MIB), 0)
}

/// The median, with so many digits.
#[must_use]
pub fn median(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| format!("{:.digits$}", spread.median))
}

/// Ours against Envoy and the bare proxy, one line for each workload: what a README has room for.
#[must_use]
pub fn summary(rows: &[Row]) -> String {
    let mut out = String::from(
        "### Summary\n\n| workload | req/CPU-s | : envoy | : bare | p99 ms | envoy's | RSS MiB | envoy's |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let p99 = |row: &Row| {
        median(Spread::of(row.cells.iter().filter_map(|cell| cell.open.as_ref()).map(|open| open.p99)), 2)
    };
    let rss = |row: &Row| mebibytes(row, |cell| cell.rss);
    let cost = |cell: &Cell| cell.per_cpu_second;
    let has_cost = |row: &&Row| row.cells.iter().any(|cell| cell.per_cpu_second > 0.0);
    for ours in rows.iter().filter(|row| row.peer == Peer::Fhirward.name()).filter(has_cost) {
        let of =
            |peer: Peer| rows.iter().find(|row| row.workload == ours.workload && row.peer == peer.name());
        let envoy = of(Peer::Envoy);
        let ratio = |base: Option<&Row>| {
            spread(base.and_then(|base| Spread::of_ratios(&ours.series(cost), &base.series(cost))))
        };
        let theirs = |figure: &dyn Fn(&Row) -> String| envoy.map_or_else(|| "–".to_owned(), figure);
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            ours.workload,
            median(ours.spread(cost), 0),
            ratio(envoy),
            ratio(of(Peer::Bare)),
            p99(ours),
            theirs(&p99),
            rss(ours),
            theirs(&rss),
        );
    }
    out
}

/// Median, least and greatest.
#[must_use]
pub fn spread(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "–".to_owned(),
        |spread| format!("{:.2} ({:.2}–{:.2})", spread.median, spread.least, spread.greatest),
    )
}
