//! Sockets made inside a pod's network namespace. They carry the cgroup of the process that makes
//! them: the agent's, so that the pod's hooks do not see them and the guard lets them out.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
};

use socket2::{Domain, Socket, Type};

/// The most sockets made by one call.
pub(crate) const MOST: usize = 64;
/// Connections waiting to be accepted; the namespace's `net.core.somaxconn` bounds it too.
const BACKLOG: i32 = 4096;

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
    /// TCP, unconnected: into the pod, by `lo`, with [`abi::MARK_INBOUND`]. It may be bound to any
    /// address, such as the client's: the proxy has to bind it, unbound it finds no way.
    Ingress(Family),
    /// UDP, bound to the loopback address and an ephemeral port: the pod's queries come here.
    Dns(Family),
    /// UDP, unbound: queries from the pod to its DNS servers.
    DnsEgress(Family),
}

impl SocketKind {
    fn family(self) -> Family {
        match self {
            Self::Listener(family)
            | Self::Egress(family)
            | Self::Ingress(family)
            | Self::Dns(family)
            | Self::DnsEgress(family) => family,
        }
    }

    /// Makes one in the calling thread's network namespace.
    pub(crate) fn make(self) -> io::Result<OwnedFd> {
        let domain = match self.family() {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let datagrams = matches!(self, Self::Dns(_) | Self::DnsEgress(_));
        let kind = if datagrams { Type::DGRAM } else { Type::STREAM };
        // Socket::new sets close-on-exec.
        let socket = Socket::new(domain, kind, None)?;
        socket.set_nonblocking(true)?;
        if self.family() == Family::V6 {
            socket.set_only_v6(true)?;
        }
        match self {
            Self::Listener(family) => {
                // What is accepted has the application's port, and inherits this: a server that is
                // started again takes its port while connections to it are open, as without us.
                socket.set_reuse_address(true)?;
                socket.bind(&loopback(family).into())?;
                socket.listen(BACKLOG)?;
            }
            Self::Dns(family) => socket.bind(&loopback(family).into())?,
            Self::Ingress(family) => inwards(&socket, family)?,
            Self::Egress(_) | Self::DnsEgress(_) => {}
        }
        Ok(socket.into())
    }
}

/// Bound to `lo`: sk_lookup sees the device and lets the connection through, and the answers come back
/// by it. The mark makes the server's socket answer by the table of marked packets.
fn inwards(socket: &Socket, family: Family) -> io::Result<()> {
    socket.set_mark(abi::MARK_INBOUND)?;
    socket.bind_device(Some(b"lo"))?;
    // The proxy picks the port itself, and another one when the pair is taken.
    socket.set_reuse_address(true)?;
    match family {
        Family::V4 => socket.set_ip_transparent_v4(true),
        Family::V6 => socket.set_ip_transparent_v6(true),
    }
}

fn loopback(family: Family) -> SocketAddr {
    match family {
        Family::V4 => (Ipv4Addr::LOCALHOST, 0).into(),
        Family::V6 => (Ipv6Addr::LOCALHOST, 0).into(),
    }
}

/// The port a socket is bound to, such as that of a [`SocketKind::Dns`] one.
pub fn local_port(socket: &impl AsFd) -> io::Result<u16> {
    let address = socket2::SockRef::from(socket).local_addr()?;
    address
        .as_socket()
        .map(|address| address.port())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an internet socket"))
}
