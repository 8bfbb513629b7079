//! Capture beside doing without: what it costs that the kernel leads a pod's traffic to the proxy, and
//! what the same costs with iptables in place of eBPF.
//!
//! Pods are network namespaces. Clients, servers and the load are `capture-load`, one process in each
//! pod, on the first core; proxies and the agent are on the last.
//!
//! | module | what |
//! |---|---|
//! | [`ways`] | the rows: who calls whom, and what is between them |
//! | [`world`] | the pods, and the processes in them and beside them |
//! | [`measure`] | one way in one round |
//! | [`hooks`] | what the programs themselves take, by the kernel's own statistics |
//! | [`redirect`] | the same proxy behind iptables REDIRECT |
//! | [`report`] | tables and goals |

pub mod hooks;
pub mod measure;
pub mod redirect;
pub mod report;
pub mod ways;
pub mod world;

use serde::Serialize;

use crate::rounds::Extent;
use crate::tokens::Tokens;
use hooks::Hooks;
use measure::{Cell, Offered};
use ways::Way;
use world::{Files, World, WorldError};

/// Of what the slowest way can do; the same load for all.
const OFFERED_PART: f64 = 0.4;

/// All figures.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// One for each way.
    pub rows: Vec<Row>,
    /// What the programs take.
    pub hooks: Option<Hooks>,
    /// Requests a second that the latencies are measured at.
    pub offered: Offered,
}

/// One way's figures.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub way: &'static str,
    /// One for each round.
    pub cells: Vec<Cell>,
    /// Why there are none.
    pub failed: Option<String>,
}

/// Measures every way. `tell` gets a line for each step.
///
/// # Errors
/// When pods, processes or the capture itself cannot be had; a way that fails is a row without figures.
pub fn run(
    files: &Files,
    tokens: &Tokens,
    extent: Extent,
    tell: &mut dyn FnMut(&str),
) -> Result<Section, WorldError> {
    tell("capture: pods are made, agent and proxies started");
    let mut world = World::open(files, tokens)?;
    let mut rows: Vec<(Way, Row)> = Way::ALL.iter().map(|way| (*way, row(*way))).collect();
    let mut slowest = Offered { requests: f64::INFINITY };
    for (way, row) in &mut rows {
        match measure::calibrate(&mut world, *way) {
            Ok(rate) => slowest.requests = slowest.requests.min(rate),
            Err(error) => fail(row, &error, tell),
        }
    }
    let offered = Offered { requests: (slowest.requests * OFFERED_PART).floor() };
    tell(&format!("capture: {:.0} requests a second are offered", offered.requests));
    for round in 0..extent.rounds {
        let count = rows.len().max(1);
        for position in 0..rows.len() {
            let Some((way, row)) = rows.get_mut((round + position) % count) else { continue };
            if row.failed.is_some() {
                continue;
            }
            match measure::cell(&mut world, *way, offered, extent.span) {
                Ok(cell) => row.cells.push(cell),
                Err(error) => fail(row, &error, tell),
            }
        }
    }
    let hooks = hooks::measure(&mut world, extent.span);
    if let Err(error) = &hooks {
        tell(&format!("capture: the programs' own time could not be had: {error}"));
    }
    Ok(Section { rows: rows.into_iter().map(|(_, row)| row).collect(), hooks: hooks.ok(), offered })
}

fn row(way: Way) -> Row {
    Row { way: way.name(), cells: Vec::new(), failed: None }
}

fn fail(row: &mut Row, error: &WorldError, tell: &mut dyn FnMut(&str)) {
    tell(&format!("capture: {}: FAILED: {error}", row.way));
    row.cells.clear();
    row.failed = Some(error.to_string());
}
