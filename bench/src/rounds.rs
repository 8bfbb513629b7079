//! Paired rounds: in each, every peer once, in an order that rotates.

use std::time::Duration;

use serde::Serialize;

use crate::cell::{Bench, Cell, CellError};
use crate::load::{LoadError, Reactor};
use crate::peers::{Peer, World};
use crate::statistics::Spread;
use crate::workloads::{Beside, Workload};

/// Of what the slowest main peer can do; the same load for all.
pub(crate) const OFFERED_PART: f64 = 0.5;
/// Beside a flood it is less: what the flood leaves must be enough for it.
const OFFERED_PART_FLOOD: f64 = 0.2;
/// How long a calibration takes.
pub(crate) const CALIBRATION: Duration = Duration::from_millis(800);

/// One peer's figures under one workload.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The workload's name.
    pub workload: &'static str,
    /// The peer's name.
    pub peer: &'static str,
    /// One for each round.
    pub cells: Vec<Cell>,
    /// Why there is none, or why it cannot take part.
    pub dash: Option<String>,
    /// Whether the dash is a failure of the run.
    pub failed: bool,
}

impl Row {
    /// One figure in all rounds.
    #[must_use]
    pub fn series(&self, figure: impl Fn(&Cell) -> f64) -> Vec<f64> {
        self.cells.iter().map(figure).collect()
    }

    /// Median and spread of one figure.
    #[must_use]
    pub fn spread(&self, figure: impl Fn(&Cell) -> f64) -> Option<Spread> {
        Spread::of(self.series(figure))
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Rounds.
    pub rounds: usize,
    /// Of each phase.
    pub span: Duration,
}

/// The rows of one workload. `tell` gets a line for each step.
pub fn run(
    reactor: &mut Reactor,
    world: &World,
    workload: &Workload,
    peers: &[Peer],
    extent: Extent,
    tell: &mut dyn FnMut(&str),
) -> Vec<Row> {
    let mut rows: Vec<(Peer, Row)> = peers.iter().map(|peer| (*peer, row(workload.name, *peer))).collect();
    let mut bench = Bench { reactor, world, workload, span: CALIBRATION };
    let mut slowest = f64::INFINITY;
    for (peer, row) in rows.iter_mut().filter(|(peer, _)| takes_offered_load(*peer)) {
        match bench.calibrate(*peer) {
            Ok(rate) => slowest = slowest.min(rate),
            Err(error) => fail(row, *peer, &error, tell),
        }
    }
    let part = if workload.beside == Beside::Flood { OFFERED_PART_FLOOD } else { OFFERED_PART };
    let offered = slowest.is_finite().then_some((slowest * part).floor());
    tell(&format!("{}: {:.0} requests a second are offered", workload.name, offered.unwrap_or(0.0)));
    bench.span = extent.span;
    for round in 0..extent.rounds {
        let count = rows.len().max(1);
        for position in 0..rows.len() {
            let Some((peer, row)) = rows.get_mut((round + position) % count) else { continue };
            if row.failed {
                continue;
            }
            match bench.measure(*peer, offered.filter(|_| takes_offered_load(*peer))) {
                Ok(cell) => row.cells.push(cell),
                Err(error) => fail(row, *peer, &error, tell),
            }
        }
    }
    rows.into_iter().map(|(_, row)| row).chain(dashes(workload)).collect()
}

/// Measures what generator and upstream can do without a peer: requests a second on their one core.
///
/// # Errors
/// When no load can be made.
pub fn headroom(reactor: &mut Reactor, world: &World, workload: &Workload) -> Result<f64, LoadError> {
    let target = reactor.upstream()?;
    let lane = crate::load::Lane {
        target,
        protocol: crate::load::Protocol::Http1,
        tls: None,
        connections: 32,
        streams: 1,
        pacing: crate::load::Pacing::Closed,
        requests: workload.repeating(&target.to_string(), &world.tokens),
        expect: 200,
    };
    let reports = reactor.run(vec![lane], CALIBRATION, Vec::new())?;
    #[allow(clippy::cast_precision_loss)]
    let rate = reports.first().map_or(0.0, |report| report.answered as f64 / report.elapsed.as_secs_f64());
    Ok(rate)
}

/// Java is slower than the others by so much that the same load would overwhelm it.
fn takes_offered_load(peer: Peer) -> bool {
    peer != Peer::FhirGateway
}

/// A row without figures yet.
pub(crate) fn row(workload: &'static str, peer: Peer) -> Row {
    Row { workload, peer: peer.name(), cells: Vec::new(), dash: None, failed: false }
}

fn dashes(workload: &Workload) -> impl Iterator<Item = Row> {
    workload
        .dashes
        .iter()
        .map(|(peer, why)| Row { dash: Some((*why).to_owned()), ..row(workload.name, *peer) })
}

/// Notes that a row has no figures, and why.
pub(crate) fn fail(row: &mut Row, peer: Peer, error: &CellError, tell: &mut dyn FnMut(&str)) {
    tell(&format!("{} {}: FAILED: {error}", row.workload, peer.name()));
    row.cells.clear();
    row.dash = Some(format!("FAILED: {error}"));
    row.failed = true;
}
