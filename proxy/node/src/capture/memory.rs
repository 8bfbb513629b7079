//! What the kernel remembers of the pods' connections and queries: maps that the agent handed over.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use abi::Counter;
use arc_swap::ArcSwapOption;
use loader::proxy::{Counters, DnsOrigins, Origins};

use crate::agent::protocol::MapDescriptors;

/// Answers from the maps. There are others than the kernel's in tests alone.
pub(super) trait Memory: fmt::Debug + Send + Sync {
    /// Where the connection accepted from `peer` wanted to go; asked once, and forgotten.
    fn original(&self, netns: u64, peer: SocketAddr) -> Option<SocketAddr>;
    /// Which server the query from `peer` was meant for, that came to DNS socket number `server`.
    fn dns_server(&self, netns: u64, peer: SocketAddr, server: u32) -> Option<SocketAddr>;
    /// What the programs have counted.
    fn counters(&self) -> io::Result<Vec<(Counter, u64)>>;
}

/// How descriptors become a memory.
pub(super) type OpenMemory = Arc<dyn Fn(MapDescriptors) -> io::Result<Arc<dyn Memory>> + Send + Sync>;

/// The newest memory; none until an agent was reached.
#[derive(Debug, Default)]
pub(super) struct Recall(ArcSwapOption<Arc<dyn Memory>>);

impl Recall {
    pub(super) fn set(&self, memory: Arc<dyn Memory>) {
        self.0.store(Some(Arc::new(memory)));
    }

    pub(super) fn original(&self, netns: u64, peer: SocketAddr) -> Option<SocketAddr> {
        self.0.load().as_ref()?.original(netns, peer)
    }

    pub(super) fn dns_server(&self, netns: u64, peer: SocketAddr, server: u32) -> Option<SocketAddr> {
        self.0.load().as_ref()?.dns_server(netns, peer, server)
    }

    pub(super) fn counters(&self) -> Option<io::Result<Vec<(Counter, u64)>>> {
        Some(self.0.load().as_ref()?.counters())
    }
}

/// The kernel's maps.
#[derive(Debug)]
struct Maps {
    origins: Origins,
    dns: DnsOrigins,
    counters: Counters,
}

/// The maps behind descriptors, which are what they should be.
///
/// # Errors
/// A descriptor of something else.
pub(super) fn open(maps: MapDescriptors) -> io::Result<Arc<dyn Memory>> {
    Ok(Arc::new(Maps {
        origins: Origins::from_fd(maps.origins)?,
        dns: DnsOrigins::from_fd(maps.dns_origins)?,
        counters: Counters::from_fd(maps.counters)?,
    }))
}

impl Memory for Maps {
    fn original(&self, netns: u64, peer: SocketAddr) -> Option<SocketAddr> {
        Some(self.origins.take(netns, peer)?.address.socket_addr())
    }

    fn dns_server(&self, netns: u64, peer: SocketAddr, server: u32) -> Option<SocketAddr> {
        self.dns.server(netns, peer, server)
    }

    fn counters(&self) -> io::Result<Vec<(Counter, u64)>> {
        self.counters.read()
    }
}
