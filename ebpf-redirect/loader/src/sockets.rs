//! Sockets made inside a pod's network namespace. They carry the cgroup of the process that makes
//! them: the agent's, so that the pod's hooks do not see them and the guard lets them out.

use std::{io, os::fd::AsFd};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6; never v4-mapped (`IPV6_V6ONLY`).
    V6,
}

/// What a socket is for. All are non-blocking and closed on exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SocketKind {
    /// TCP, listening on the loopback address and an ephemeral port; `inbound` steers to it.
    Listener(Family),
    /// TCP, unconnected: from the pod outwards.
    Egress(Family),
    /// TCP, unconnected: into the pod, by `lo`, with [`abi::MARK_INBOUND`].
    Ingress {
        /// Of the pod's address.
        family: Family,
        /// Whether it may be bound to an address that is not the pod's: the client's.
        transparent: bool,
    },
    /// UDP, bound to the loopback address and an ephemeral port: the pod's queries come here.
    Dns(Family),
    /// UDP, unbound: queries from the pod to its DNS servers.
    DnsEgress(Family),
}

/// The port a socket is bound to, such as that of a [`SocketKind::Dns`] one.
pub fn local_port(socket: &impl AsFd) -> io::Result<u16> {
    let address = socket2::SockRef::from(socket).local_addr()?;
    address
        .as_socket()
        .map(|address| address.port())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an internet socket"))
}
