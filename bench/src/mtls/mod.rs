//! mTLS of the mesh beside Envoy doing the same: handshakes, requests, Bundles, and what certificates take.
//!
//! Both peers have one worker, the same certificates (ECDSA P-256, leaf under root), STRICT, one policy by
//! the client's principal, and set `x-forwarded-client-cert`; neither writes an access log. The client is
//! the load's own: it offers TLS 1.3 with X25519 and AES-128-GCM alone, so that both do the same cryptography,
//! and asserts of each handshake that it was of the kind that its row is about.
//!
//! Through HBONE both end the tunnels as the called side, and refuse another client before anything is
//! measured. For requests, Envoy leads the tunnel to a listener within itself, which judges them by the
//! principal that the outer one has noted; for bytes it judges the CONNECT, and leads straight on.
//!
//! | module | what |
//! |---|---|
//! | [`kit`] | certificates, and the client's TLS |
//! | [`hbone`] | Envoy's settings for HBONE |
//! | [`peers`] | both peers' settings, and their processes |
//! | [`measure`] | one peer in one round |
//! | [`report`] | table and goals |

pub mod hbone;
pub mod kit;
pub mod measure;
pub mod peers;
pub mod report;
#[cfg(test)]
mod tests;

use rustls::HandshakeKind;
use serde::Serialize;

use crate::cell::CellError;
use crate::load::Reactor;
use crate::peers::{Peer, World};
use crate::rounds::{self, CALIBRATION, Extent, OFFERED_PART, Row};
use kit::Kit;
use measure::{Bench, Memory};

/// One row for each peer.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Name, for `--only`.
    pub name: &'static str,
    /// What it is, for readers.
    pub says: &'static str,
    /// What is asked for.
    pub ask: Ask,
    /// How the client comes.
    pub way: Way,
    /// Connections at once; of HBONE one, with so many tunnels.
    pub connections: usize,
}

/// How clients come to a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In plaintext, to compare.
    Plain,
    /// As Istio's sidecars do: mTLS, and HTTP/1.1 in it.
    Sidecar,
    /// Through HBONE; what is inside is HTTP, judged request by request.
    Hbone,
    /// Through HBONE; what is inside are bytes, judged by who brings them.
    Raw,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ask {
    /// Connections with one small read each, whose handshake is of this kind.
    Handshakes(HandshakeKind),
    /// Small reads on kept connections; latency too.
    Reads,
    /// A Bundle of 1 MiB from the upstream.
    Download,
    /// One to the upstream.
    Upload,
}

/// All of it, in the order of the table.
pub const ALL: &[Work] = &[
    Work {
        name: "mtls-full",
        says: "full handshakes, each with a 1 kB read",
        ask: Ask::Handshakes(HandshakeKind::Full),
        way: Way::Sidecar,
        connections: 4,
    },
    Work {
        name: "mtls-resumed",
        says: "resumed handshakes, each with a 1 kB read",
        ask: Ask::Handshakes(HandshakeKind::Resumed),
        way: Way::Sidecar,
        connections: 4,
    },
    Work {
        name: "mtls-one",
        says: "1 kB reads, 1 connection",
        ask: Ask::Reads,
        way: Way::Sidecar,
        connections: 1,
    },
    Work {
        name: "mtls-many",
        says: "1 kB reads, 32 connections",
        ask: Ask::Reads,
        way: Way::Sidecar,
        connections: 32,
    },
    Work {
        name: "mtls-down",
        says: "1 MiB Bundles down, 8 connections",
        ask: Ask::Download,
        way: Way::Sidecar,
        connections: 8,
    },
    Work {
        name: "mtls-up",
        says: "1 MiB Bundles up, 8 connections",
        ask: Ask::Upload,
        way: Way::Sidecar,
        connections: 8,
    },
    Work {
        name: "hbone-one",
        says: "HBONE: 1 kB reads, 1 tunnel",
        ask: Ask::Reads,
        way: Way::Hbone,
        connections: 1,
    },
    Work {
        name: "hbone-many",
        says: "HBONE: 1 kB reads, 32 tunnels",
        ask: Ask::Reads,
        way: Way::Hbone,
        connections: 32,
    },
    Work {
        name: "hbone-down",
        says: "HBONE: 1 MiB raw down, 8 tunnels",
        ask: Ask::Download,
        way: Way::Raw,
        connections: 8,
    },
    Work {
        name: "hbone-up",
        says: "HBONE: 1 MiB raw up, 8 tunnels",
        ask: Ask::Upload,
        way: Way::Raw,
        connections: 8,
    },
];

/// The name of the row about memory.
pub const MEMORY: &str = "mtls-memory";

/// All figures.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// Those with load.
    pub rows: Vec<Row>,
    /// Memory.
    pub memory: Vec<MemoryRow>,
}

/// One peer's memory.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryRow {
    /// The peer's name.
    pub peer: &'static str,
    /// How many workloads there were.
    pub workloads: usize,
    /// One for each round.
    pub cells: Vec<Memory>,
    /// Why there are none.
    pub failed: Option<String>,
}

impl Section {
    /// Whether a row that was asked for has no figures.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.rows.iter().any(|row| row.failed) || self.memory.iter().any(|row| row.failed.is_some())
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Rounds and phases.
    pub extent: Extent,
    /// How many workloads' certificates are kept in memory.
    pub workloads: usize,
}

/// Measures those of the rows that are `wanted` by their names. `tell` gets a line for each step.
///
/// # Errors
/// When certificates cannot be made; a peer that fails is a row without figures.
pub fn run(
    reactor: &mut Reactor,
    world: &World,
    peers: &[Peer],
    scale: Scale,
    wanted: &dyn Fn(&str) -> bool,
    tell: &mut dyn FnMut(&str),
) -> Result<Section, CellError> {
    tell("mtls: certificates are made");
    let kit = Kit::new(&world.runs, scale.workloads)?;
    let mut bench = Bench { reactor, world, kit: &kit };
    let mut rows = Vec::new();
    for work in ALL.iter().filter(|work| wanted(work.name)) {
        rows.extend(load(&mut bench, work, peers, scale.extent, tell));
    }
    let memory = if wanted(MEMORY) { memory(&mut bench, peers, scale, tell) } else { Vec::new() };
    Ok(Section { rows, memory })
}

fn load(
    bench: &mut Bench<'_>,
    work: &Work,
    peers: &[Peer],
    extent: Extent,
    tell: &mut dyn FnMut(&str),
) -> Vec<Row> {
    let mut rows: Vec<(Peer, Row)> =
        peers.iter().map(|peer| (*peer, rounds::row(work.name, *peer))).collect();
    let mut slowest = f64::INFINITY;
    for (peer, row) in rows.iter_mut().filter(|_| work.ask == Ask::Reads) {
        match bench.calibrate(*peer, work, CALIBRATION) {
            Ok(rate) => slowest = slowest.min(rate),
            Err(error) => rounds::fail(row, *peer, &error, tell),
        }
    }
    let offered = slowest.is_finite().then_some((slowest * OFFERED_PART).floor());
    match offered {
        Some(rate) => tell(&format!("{}: {rate:.0} requests a second are offered", work.name)),
        None => tell(work.name),
    }
    for round in 0..extent.rounds {
        let count = rows.len().max(1);
        for position in 0..rows.len() {
            let Some((peer, row)) = rows.get_mut((round + position) % count) else { continue };
            if row.failed {
                continue;
            }
            match bench.cell(*peer, work, offered, extent.span) {
                Ok(cell) => row.cells.push(cell),
                Err(error) => rounds::fail(row, *peer, &error, tell),
            }
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

fn memory(bench: &mut Bench<'_>, peers: &[Peer], scale: Scale, tell: &mut dyn FnMut(&str)) -> Vec<MemoryRow> {
    tell(&format!("{MEMORY}: {} workloads", scale.workloads));
    let row = |peer: &Peer| {
        let (peer, workloads) = (peer.name(), scale.workloads);
        MemoryRow { peer, workloads, cells: Vec::new(), failed: None }
    };
    let mut rows: Vec<(Peer, MemoryRow)> = peers.iter().map(|peer| (*peer, row(peer))).collect();
    for _ in 0..scale.extent.rounds {
        for (peer, row) in rows.iter_mut().filter(|(_, row)| row.failed.is_none()) {
            match bench.memory(*peer) {
                Ok(cell) => row.cells.push(cell),
                Err(error) => {
                    tell(&format!("{MEMORY} {}: FAILED: {error}", peer.name()));
                    row.cells.clear();
                    row.failed = Some(error.to_string());
                }
            }
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}
