//! The proxy's side of capture: confined, it takes listeners and sockets inside the pods from the
//! agent and keeps serving whether the agent is there or not.
//!
//! - [`confine`]: another user than root, no capability, few system calls;
//! - `session`: the connection to the agent, made again whenever it is lost;
//! - `roll`: the enrolled pods; `recruit`: from descriptors to a pod that is served;
//! - `fleet`: the pods that are served, as the data plane sees them; `stock`: their sockets;
//! - `memory`: what the kernel remembers of connections; `dns`: queries;
//! - `standing`, `tally`: how it stands, for operators.

pub mod confine;
mod dns;
mod fleet;
mod memory;
mod recruit;
mod roll;
mod session;
mod standing;
mod stock;
mod tally;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc, time::Duration};

use abi::Counter;
use dataplane::capture::{Capture, HostTraffic};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::{
    dns::Forwarding,
    fleet::Fleet,
    recruit::Recruiter,
    roll::Roll,
    session::{Address, Session},
    stock::{Depot, Presence},
};
use crate::{
    agent::protocol::{MAX_PODS, SocketKind},
    settings::{CaptureSettings, HostSettings},
};
pub(crate) use fleet::name as kind_name;
pub(crate) use standing::{PodState, Standing};
pub(crate) use tally::{SocketTally, Tallies};

/// Longest wait for an answer of the agent, before it is taken for dead.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// How long a pod that was let go keeps its stocks and DNS sockets, for requests under way.
const LINGER: Duration = Duration::from_secs(5);
/// Changes that wait for the data plane.
const CHANGES: usize = 64;

/// What operators are told of capture.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    standing: watch::Receiver<Standing>,
    fleet: Arc<Fleet>,
}

/// Starts the session with the agent. The proxy serves what comes of it until `stop`, which another
/// proxy may bring about by taking over; `last` ends the session.
pub(crate) fn start(
    settings: &CaptureSettings,
    stop: CancellationToken,
    last: CancellationToken,
) -> (Capture, Report) {
    let started = milliseconds_since_boot();
    let address = Address {
        socket: settings.socket.clone(),
        user: 0,
        open: Arc::new(memory::open),
        started,
        answer_limit: ANSWER_LIMIT,
        linger: LINGER,
    };
    start_at(address, settings, stop, last)
}

fn start_at(
    address: Address,
    settings: &CaptureSettings,
    stop: CancellationToken,
    last: CancellationToken,
) -> (Capture, Report) {
    let (wish, wishes) = mpsc::channel(MAX_PODS * SocketKind::ALL.len());
    let (presence, agent) = watch::channel(Presence::AwaySince(Instant::now()));
    let (standing, told) = watch::channel(Standing::default());
    let (change, changes) = mpsc::channel(CHANGES);
    let depot = Depot::new(settings.stock.clone(), wish, agent);
    let fleet = Arc::new(Fleet::new(depot));
    let forwarding = Forwarding {
        fleet: Arc::clone(&fleet),
        all: Arc::new(Semaphore::new(settings.dns.queries as usize)),
        per_pod: settings.dns.queries_per_pod as usize,
        timeout: Duration::from_millis(settings.dns.timeout_ms),
    };
    let session = Session {
        address,
        fleet: Arc::clone(&fleet),
        recruiter: Recruiter::new(forwarding, &settings.pods),
        changes: change,
        wishes,
        presence,
        standing,
        roll: Roll::default(),
        stop,
        last,
    };
    tokio::spawn(session.run());
    let plumbing: Arc<Fleet> = Arc::clone(&fleet);
    let capture = Capture { plumbing, changes, settings: for_data_plane(settings), certificates: None };
    (capture, Report { standing: told, fleet })
}

fn for_data_plane(settings: &CaptureSettings) -> dataplane::capture::CaptureSettings {
    let host = match settings.host {
        HostSettings::Probes => HostTraffic::Probes,
        HostSettings::All => HostTraffic::All,
        HostSettings::None => HostTraffic::None,
    };
    dataplane::capture::CaptureSettings { host, detect_timeout_ms: settings.detect_timeout_ms }
}

/// The clock that the agent compares proxies by: of two, the later one takes over.
fn milliseconds_since_boot() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let whole = u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1000);
    whole.saturating_add(u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0))
}

impl Report {
    pub(crate) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Returns once another proxy has taken over; never where none does.
    pub(crate) async fn superseded(&self) {
        let mut standing = self.standing.clone();
        if standing.wait_for(|standing| standing.superseded).await.is_err() {
            // The session is over without that.
            std::future::pending().await
        }
    }

    pub(crate) fn tallies(&self) -> &Tallies {
        &self.fleet.tallies
    }

    /// What the BPF programs have counted; none until an agent was reached.
    pub(crate) fn kernel_counters(&self) -> Option<io::Result<Vec<(Counter, u64)>>> {
        self.fleet.recall.counters()
    }

    /// Sockets that wait for use, by kind.
    pub(crate) fn stocks(&self) -> [(SocketKind, usize); 6] {
        let members = self.fleet.members();
        SocketKind::ALL.map(|kind| (kind, members.values().map(|member| member.stock(kind).len()).sum()))
    }
}
