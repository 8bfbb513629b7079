//! What the proxy's side of capture counts, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Sockets of one kind, taken from stocks.
#[derive(Debug, Default)]
pub(crate) struct SocketTally {
    /// One was there.
    pub(crate) ready: Tally,
    /// One had to be waited for.
    pub(crate) waited: Tally,
    /// There was none, and none came in time: the connection was refused.
    pub(crate) refused: Tally,
}

/// Connections of the pods, whose destination the kernel knows.
#[derive(Debug, Default)]
pub(crate) struct OriginalTally {
    pub(crate) found: Tally,
    /// Not known: the connection was closed.
    pub(crate) missing: Tally,
}

/// DNS queries, by how they ended.
#[derive(Debug, Default)]
pub(crate) struct DnsTally {
    pub(crate) answered: Tally,
    pub(crate) timeout: Tally,
    /// Too many under way.
    pub(crate) too_many: Tally,
    /// The kernel does not know for which server it was meant.
    pub(crate) no_server: Tally,
    /// No socket inside the pod to send it from.
    pub(crate) no_socket: Tally,
    /// The network said no.
    pub(crate) failed: Tally,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    /// In the order of `SocketKind::ALL`.
    pub(crate) sockets: [SocketTally; 6],
    pub(crate) original: OriginalTally,
    pub(crate) dns: DnsTally,
    /// Times that the agent was reached.
    pub(crate) agent_connects: Tally,
    /// Times that it said no.
    pub(crate) agent_refusals: Tally,
}
