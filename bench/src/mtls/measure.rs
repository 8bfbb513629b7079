//! One peer in one round.

use std::sync::Arc;
use std::time::Duration;

use rustls::HandshakeKind;
use serde::Serialize;

use super::kit::{Kit, Workload};
use super::peers::{self, Up};
use super::{Ask, Way, Work};
use crate::cell::{Cell, CellError, WARM_UP};
use crate::load::{BUNDLE_BYTES, Lane, Pacing, Protocol, Reactor, Report, Requests, Schedule, Tls, upstream};
use crate::peers::{Peer, World};
use crate::phase;

/// Until what the last connections took has been given back.
const REST: Duration = Duration::from_millis(500);
const SEED: u64 = 6;
/// What tunnels lead to: the workloads' port.
const PORT: u16 = 8080;
/// What the load says of a tunnel that is refused.
const REFUSALS: [&str; 2] = ["CONNECT was answered with 401", "CONNECT was answered with 403"];

/// What a peer is measured by.
pub struct Bench<'a> {
    /// The loop.
    pub reactor: &'a mut Reactor,
    /// Where peers run.
    pub world: &'a World,
    /// Certificates.
    pub kit: &'a Kit,
}

/// Resident memory, in bytes, after one request to each workload whose connection has ended.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Memory {
    /// With one workload.
    pub one: u64,
    /// With all.
    pub all: u64,
    /// With all in plaintext: listeners and policies, without certificates.
    pub plaintext: u64,
}

impl Memory {
    /// What the others take, each with its listener, policy and certificate.
    #[must_use]
    pub fn workloads(&self) -> u64 {
        self.all.saturating_sub(self.one)
    }

    /// What mTLS takes of it.
    #[must_use]
    pub fn certificates(&self) -> u64 {
        self.all.saturating_sub(self.plaintext)
    }
}

impl Bench<'_> {
    /// As fast as it goes: requests a second.
    ///
    /// # Errors
    /// [`CellError`].
    pub fn calibrate(&mut self, peer: Peer, work: &Work, span: Duration) -> Result<f64, CellError> {
        Ok(self.cell(peer, work, None, span)?.rate)
    }

    /// The whole cell; `offered` requests a second for the latency, where it is to be measured.
    ///
    /// # Errors
    /// [`CellError`]: also when a single answer or handshake was not the expected one.
    pub fn cell(
        &mut self,
        peer: Peer,
        work: &Work,
        offered: Option<f64>,
        span: Duration,
    ) -> Result<Cell, CellError> {
        let kit = self.kit;
        let workload = kit.workloads().get(..1).unwrap_or_default();
        let mut up = peers::start(self.world, peer, kit, workload, work.way)?;
        let mut lane = lane(&up, kit, workload, work)?;
        phase::until_up(self.reactor, peer, &mut up.process, &once(&lane))?;
        if matches!(work.way, Way::Hbone | Way::Raw) {
            self.refused(&lane, workload)?;
        }
        phase::checked(self.reactor, vec![lane.clone()], WARM_UP, Vec::new())?;
        if let Ask::Handshakes(kind) = work.ask {
            // From here on there are sessions to resume.
            lane.tls = lane.tls.map(|tls| Arc::new(Tls { kind: Some(kind), ..(*tls).clone() }));
        }
        let mut cell = phase::closed(
            self.reactor,
            &up.process,
            std::slice::from_ref(&lane),
            span,
            phase::LONGEST_WINDOW,
        )?;
        if let Some(offered) = offered {
            lane.pacing = Pacing::Open(Arc::new(Schedule::poisson(offered, span, SEED)));
            cell.open = Some(phase::open(self.reactor, vec![lane], offered, span, Vec::new())?);
        }
        Ok(cell)
    }

    /// Somebody whom no policy names gets 403, be it to the request or, as ours does and Envoy where there
    /// are but bytes, 401 or 403 to the CONNECT; and the upstream hears nothing of it.
    fn refused(&mut self, lane: &Lane, workloads: &[Workload]) -> Result<(), CellError> {
        let workload = workloads.first().ok_or_else(|| CellError::Wrong("no workload".to_owned()))?;
        let tls = Some(Arc::new(self.kit.tunnels(workload, false)?));
        let served = self.reactor.served();
        let stranger = Lane { tls, expect: 403, ..once(lane) };
        let reports = self.reactor.run(vec![stranger], Duration::ZERO, Vec::new())?;
        let complaint = reports.first().and_then(Report::complaint);
        let answered = |said: &String| REFUSALS.iter().any(|refusal| said.contains(refusal));
        if self.reactor.served() != served || !complaint.as_ref().is_none_or(answered) {
            let told = complaint.unwrap_or_default();
            return Err(CellError::Wrong(format!("a stranger was not refused: {told}")));
        }
        Ok(())
    }

    /// What certificates take.
    ///
    /// # Errors
    /// [`CellError`].
    pub fn memory(&mut self, peer: Peer) -> Result<Memory, CellError> {
        let all = self.kit.workloads();
        Ok(Memory {
            one: self.resident(peer, all.get(..1).unwrap_or_default(), Way::Sidecar)?,
            all: self.resident(peer, all, Way::Sidecar)?,
            plaintext: self.resident(peer, all, Way::Plain)?,
        })
    }

    fn resident(&mut self, peer: Peer, workloads: &[Workload], way: Way) -> Result<u64, CellError> {
        let mut up = peers::start(self.world, peer, self.kit, workloads, way)?;
        for (workload, target) in workloads.iter().zip(&up.targets) {
            let client = || self.kit.client(workload, None).map(Arc::new);
            let tls = (way != Way::Plain).then(client).transpose()?;
            let lane = Lane {
                target: *target,
                protocol: Protocol::Http1,
                tls,
                connections: 1,
                streams: 1,
                pacing: Pacing::Once,
                requests: Requests::Same(read().into()),
                expect: 200,
            };
            phase::until_up(self.reactor, peer, &mut up.process, &lane)?;
        }
        self.reactor.serve_for(REST)?;
        Ok(up.process.memory()?.rss)
    }
}

fn once(lane: &Lane) -> Lane {
    Lane { connections: 1, streams: 1, pacing: Pacing::Once, ..lane.clone() }
}

fn lane(up: &Up, kit: &Kit, workloads: &[Workload], work: &Work) -> Result<Lane, CellError> {
    let place = workloads.first().zip(up.targets.first());
    let (workload, target) = place.ok_or_else(|| CellError::Wrong("no workload".to_owned()))?;
    let kind: Option<HandshakeKind> = match work.ask {
        Ask::Handshakes(kind) => Some(kind),
        _ => None,
    };
    let request = match work.ask {
        Ask::Upload => upload(),
        Ask::Download => head("GET", "/fhir/Bundle/b1", "\r\n"),
        Ask::Handshakes(_) | Ask::Reads => read(),
    };
    let (protocol, tls, connections, streams) = match work.way {
        Way::Plain => (Protocol::Http1, None, work.connections, 1),
        Way::Sidecar => (Protocol::Http1, Some(kit.client(workload, kind)?), work.connections, 1),
        Way::Hbone | Way::Raw => {
            (Protocol::Hbone(PORT), Some(kit.tunnels(workload, true)?), 1, work.connections)
        }
    };
    Ok(Lane {
        target: *target,
        protocol,
        tls: tls.map(Arc::new),
        connections,
        streams,
        pacing: Pacing::Closed,
        requests: Requests::Same(request.into()),
        expect: if work.ask == Ask::Upload { 201 } else { 200 },
    })
}

fn read() -> Vec<u8> {
    head("GET", "/fhir/Patient/p1", "\r\n")
}

fn upload() -> Vec<u8> {
    let body = upstream::bundle(BUNDLE_BYTES);
    let length = body.len();
    let rest = format!("content-type: application/fhir+json\r\ncontent-length: {length}\r\n\r\n{body}");
    head("POST", "/fhir/Bundle", &rest)
}

fn head(method: &str, path: &str, rest: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: fhir-server\r\naccept: application/fhir+json\r\nuser-agent: bench\r\n{rest}")
        .into_bytes()
}
