//! The proxy's part: lookups in maps whose file descriptors the agent handed over. Needs no
//! privilege: since kernel 5.19 whoever holds a map may use it, whatever
//! `kernel.unprivileged_bpf_disabled` says. The system calls are `bpf` and nothing else.

use std::{io, net::SocketAddr, os::fd::OwnedFd};

use abi::{Counter, Origin};

/// `ORIGINS`: where redirected connections wanted to go.
#[derive(Debug)]
pub struct Origins(OwnedFd);

impl Origins {
    /// Makes sure that it is the map it should be.
    pub fn from_fd(map: OwnedFd) -> io::Result<Self> {
        Err(unbuilt(Self(map)))
    }

    /// Where the connection accepted from `peer` in the namespace with this cookie wanted to go; taken
    /// out of the map. None: unknown, the connection must be closed.
    pub fn take(&self, netns: u64, peer: SocketAddr) -> Option<Origin> {
        let _ = (netns, peer);
        None
    }
}

/// `DNS_ORIGINS`: which server a query was meant for.
#[derive(Debug)]
pub struct DnsOrigins(OwnedFd);

impl DnsOrigins {
    /// Makes sure that it is the map it should be.
    pub fn from_fd(map: OwnedFd) -> io::Result<Self> {
        Err(unbuilt(Self(map)))
    }

    /// The server that the query from `peer` was meant for, which came to the pod's DNS socket number
    /// `server` (0 to 3) of the peer's family. None: unknown, the query must be dropped.
    pub fn server(&self, netns: u64, peer: SocketAddr, server: u32) -> Option<SocketAddr> {
        let _ = (netns, peer, server);
        None
    }
}

/// `COUNTERS`: what the programs have counted.
#[derive(Debug)]
pub struct Counters(OwnedFd);

impl Counters {
    /// Makes sure that it is the map it should be.
    pub fn from_fd(map: OwnedFd) -> io::Result<Self> {
        Err(unbuilt(Self(map)))
    }

    /// All counters, summed over the CPUs.
    pub fn read(&self) -> io::Result<Vec<(Counter, u64)>> {
        Err(unbuilt(self))
    }
}

fn unbuilt<T>(_: T) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "not built yet")
}
