//! One peer under one workload in one round: started, measured, stopped.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::load::{Fresh, Hook, Lane, LoadError, Pacing, Protocol, Reactor, Requests, Schedule};
use crate::meshes;
use crate::peers::{Peer, StartError, Up, World};
use crate::phase;
use crate::workloads::{Ask, Beside, Workload};

/// Before anything counts: connections to the upstream, caches, branch predictors; and for Java its compiler.
pub(crate) const WARM_UP: Duration = Duration::from_millis(400);
const WARM_UP_JAVA: Duration = Duration::from_secs(5);
/// How long a run with a reload takes, and when in it the reload begins.
const RELOAD_SPAN: Duration = Duration::from_secs(6);
const RELOAD_AT: Duration = Duration::from_secs(1);
/// Connections that flood.
const FLOOD: usize = 16;

/// What was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cell {
    /// From the start of the process to its first right answer, milliseconds.
    pub ready_ms: f64,
    /// Resident memory then, bytes.
    pub rss_ready: u64,
    /// Resident memory under load, bytes.
    pub rss: u64,
    /// Proportional share of it, bytes.
    pub pss: u64,
    /// Requests a CPU-second of the process, closed loop; 0 where not measured.
    pub per_cpu_second: f64,
    /// Requests a second, closed loop.
    pub rate: f64,
    /// Latency at the offered load.
    pub open: Option<Latency>,
    /// The same beside the flood or the reload.
    pub beside: Option<Latency>,
}

/// Milliseconds from when a request was due to the end of its answer.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Latency {
    /// Requests a second that were offered.
    pub offered: f64,
    /// Half of the requests kept within this.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The longest one.
    pub longest: f64,
}

/// Why a row has no figures.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The peer does not start.
    #[error("does not start: {0}")]
    Start(#[from] StartError),
    /// No load can be made.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// `/proc`, files.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// What was measured is not what was meant.
    #[error("{0}")]
    Wrong(String),
}

/// A workload in progress for one peer.
pub struct Bench<'a> {
    /// The loop.
    pub reactor: &'a mut Reactor,
    /// The peers' world.
    pub world: &'a World,
    /// The workload.
    pub workload: &'a Workload,
    /// How long each phase takes.
    pub span: Duration,
}

impl Bench<'_> {
    /// Starts the peer and drives it as fast as it goes for `span`: requests a second.
    ///
    /// # Errors
    /// [`CellError`].
    pub fn calibrate(&mut self, peer: Peer) -> Result<f64, CellError> {
        let up = self.up(peer)?.0;
        self.warm_up(peer, &up)?;
        Ok(self.closed(peer, &up)?.rate)
    }

    /// The whole cell; `offered` requests a second for the latency, where it is to be measured.
    ///
    /// # Errors
    /// [`CellError`]: also when a single answer was not the expected one.
    pub fn measure(&mut self, peer: Peer, offered: Option<f64>) -> Result<Cell, CellError> {
        let (up, ready) = self.up(peer)?;
        let at_start = up.process.memory()?;
        self.warm_up(peer, &up)?;
        let mut cell = match self.workload.beside {
            Beside::Flood | Beside::Reload => Cell::default(),
            _ => self.closed(peer, &up)?,
        };
        cell.ready_ms = ready.as_secs_f64() * 1e3;
        cell.rss_ready = at_start.rss;
        if let Some(offered) = offered {
            let span = if self.workload.beside == Beside::Reload { RELOAD_SPAN } else { self.span };
            cell.open = Some(self.open(peer, &up, offered, span, Vec::new(), Vec::new())?);
            cell.beside = match self.workload.beside {
                Beside::Flood => Some(self.flooded(peer, &up, offered)?),
                Beside::Reload => Some(self.reloaded(peer, &up, offered)?),
                _ => None,
            };
        }
        if cell.rss == 0 {
            let memory = up.process.memory()?;
            (cell.rss, cell.pss) = (memory.rss, memory.pss);
        }
        Ok(cell)
    }

    /// Starts the peer and asks until it answers as it should.
    fn up(&mut self, peer: Peer) -> Result<(Up, Duration), CellError> {
        let started = Instant::now();
        let mut up = self.world.start(peer, self.workload.purpose())?;
        let lane = self.lane(up.target, Pacing::Once, self.repeating(&up), 1, 1);
        phase::until_up(self.reactor, peer, &mut up.process, &lane)?;
        Ok((up, started.elapsed()))
    }

    fn warm_up(&mut self, peer: Peer, up: &Up) -> Result<(), CellError> {
        let (connections, streams) = self.width(peer);
        let lane = self.lane(up.target, Pacing::Closed, self.repeating(up), connections, streams);
        let span = if peer == Peer::FhirGateway { WARM_UP_JAVA } else { WARM_UP };
        phase::checked(self.reactor, vec![lane], span, Vec::new()).map(drop)
    }

    /// As fast as it goes, with what it costs.
    fn closed(&mut self, peer: Peer, up: &Up) -> Result<Cell, CellError> {
        let (connections, streams) = self.width(peer);
        let requests = self.requests(peer, up, true);
        let mut lanes = vec![self.lane(up.target, Pacing::Closed, requests, connections, streams)];
        if let Beside::Idle(count) = self.workload.beside {
            lanes.push(self.lane(up.target, Pacing::Once, self.repeating(up), count, 1));
        }
        // Fresh tokens would not be fresh any more.
        let longest = if self.workload.fresh { self.span } else { phase::LONGEST_WINDOW };
        phase::closed(self.reactor, &up.process, &lanes, self.span, longest)
    }

    /// Latency at the offered load, beside whatever else there is.
    fn open(
        &mut self,
        peer: Peer,
        up: &Up,
        offered: f64,
        span: Duration,
        mut beside: Vec<Lane>,
        hooks: Vec<Hook<'_>>,
    ) -> Result<Latency, CellError> {
        let (connections, streams) = match (self.workload.protocol, self.workload.ask) {
            (Protocol::Http2, _) => (8, 32),
            (_, Ask::Download | Ask::Upload) => (16, 1),
            (_, _) => (64, 1),
        };
        let schedule = Arc::new(Schedule::poisson(offered, span, 4));
        if self.workload.fresh && schedule.len() > self.tokens(false).len() {
            return Err(CellError::Wrong("more arrivals than fresh tokens: fewer seconds".to_owned()));
        }
        let requests = self.requests(peer, up, false);
        let lane = self.lane(up.target, Pacing::Open(schedule), requests, connections, streams);
        beside.insert(0, lane);
        phase::open(self.reactor, beside, offered, span, hooks)
    }

    fn flooded(&mut self, peer: Peer, up: &Up, offered: f64) -> Result<Latency, CellError> {
        let other = up.other.ok_or_else(|| CellError::Wrong("no other workload".to_owned()))?;
        let tokens = &self.world.tokens.bad;
        let flood = Requests::Fresh(Fresh {
            before: self.workload.before_token(&other.to_string()),
            tokens: Arc::clone(tokens),
            next: 0,
            end: tokens.len(),
            again: true,
        });
        let mut lane = self.lane(other, Pacing::Closed, flood, FLOOD, 1);
        lane.expect = 401;
        self.open(peer, up, offered, self.span, vec![lane], Vec::new())
    }

    /// The manifests are put in place anew while the load runs; it is an error when nobody reads them.
    fn reloaded(&mut self, peer: Peer, up: &Up, offered: f64) -> Result<Latency, CellError> {
        let (Some(file), Some(admin)) = (&up.manifests, up.admin) else {
            return Err(CellError::Wrong("nothing to reload".to_owned()));
        };
        let provider = &self.world.tokens.provider;
        let text = meshes::manifests(&provider.issuer(), &provider.jwks, self.workload.policies, 1);
        // Not beside the manifests: their folder is watched.
        let aside = self.world.runs.join("next-mesh.yaml");
        fs::write(&aside, text)?;
        let before = snapshot(admin)?;
        let swap: Hook<'_> = (RELOAD_AT, Box::new(|_| drop(fs::rename(&aside, file))));
        let latency = self.open(peer, up, offered, RELOAD_SPAN, Vec::new(), vec![swap])?;
        if snapshot(admin)? == before {
            return Err(CellError::Wrong("the manifests were not read while the load ran".to_owned()));
        }
        Ok(latency)
    }

    fn width(&self, peer: Peer) -> (usize, usize) {
        match (self.workload.protocol, self.workload.ask) {
            _ if peer == Peer::FhirGateway => (8, 1),
            (Protocol::Http2, _) => (4, 8),
            (_, Ask::Download | Ask::Upload) => (8, 1),
            (_, _) => (32, 1),
        }
    }

    fn repeating(&self, up: &Up) -> Requests {
        self.workload.repeating(&up.target.to_string(), &self.world.tokens)
    }

    /// Two thirds of the fresh tokens are for the closed loop, the others for the open one; the first one
    /// of all has warmed up.
    fn tokens(&self, closed: bool) -> std::ops::Range<usize> {
        let all = self.world.tokens.of(self.workload.algorithm).len();
        if closed { 1..all / 3 * 2 } else { all / 3 * 2..all }
    }

    fn requests(&self, peer: Peer, up: &Up, closed: bool) -> Requests {
        if !self.workload.fresh {
            return self.repeating(up);
        }
        Requests::Fresh(Fresh {
            before: self.workload.before_token(&up.target.to_string()),
            tokens: Arc::clone(self.world.tokens.of(self.workload.algorithm)),
            next: self.tokens(closed).start,
            end: self.tokens(closed).end,
            // Who does not look at tokens may see them again, and is too fast for them to last.
            again: peer == Peer::Bare,
        })
    }

    fn lane(
        &self,
        target: SocketAddr,
        pacing: Pacing,
        requests: Requests,
        connections: usize,
        streams: usize,
    ) -> Lane {
        let protocol = self.workload.protocol;
        let expect = self.workload.status();
        Lane { target, protocol, tls: None, connections, streams, pacing, requests, expect }
    }
}

/// Which snapshot the proxy judges by, as its `/readyz` tells.
fn snapshot(admin: SocketAddr) -> Result<String, CellError> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(
        format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let body: serde_json::Value =
        serde_json::from_str(body).map_err(|error| CellError::Wrong(format!("/readyz: {error}")))?;
    match &body["snapshot"] {
        serde_json::Value::Null => Err(CellError::Wrong("/readyz names no snapshot".to_owned())),
        version => Ok(version.to_string()),
    }
}
