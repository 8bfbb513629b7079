//! sock_diag(7): the sockets of the calling thread's namespace, and their end.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rustix::net::netlink::SOCK_DIAG;

use super::{
    DUMP, Socket,
    message::{Body, attributes, read_u64},
};
use crate::Family;

const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;

/// `struct inet_diag_msg`.
const FIXED: usize = 72;
/// Where `struct inet_diag_sockid` lies in it, and how long it is.
const ID: std::ops::Range<usize> = 4..52;
/// `INET_DIAG_CGROUP_ID`, kernel 5.8.
const CGROUP: u16 = 21;

/// TCP states (net/tcp_states.h) of connections with two ends; the others have nothing to end:
/// TIME_WAIT has no socket left, LISTEN and CLOSE no other end.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Of how many sockets one call keeps a list.
const MAX_SOCKETS: usize = 1 << 20;

/// A socket with two ends.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    id: [u8; 48],
    family: u8,
    protocol: u8,
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) remote_port: u16,
    /// Of the process that made it; none: half open, the kernel's alone.
    pub(crate) cgroup: Option<u64>,
}

/// Which sockets to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, protocol: u8, id: &[u8; 48]) -> Body {
    let mut fixed = vec![family, protocol, 0, 0];
    fixed.extend_from_slice(&CONNECTED.to_ne_bytes());
    fixed.extend_from_slice(id);
    Body::new(&fixed)
}

/// All sockets of both families with two ends.
pub(crate) fn connected(transport: Transport) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut socket = Socket::open(Some(SOCK_DIAG))?;
    for family in [Family::V4, Family::V6] {
        let number = if family == Family::V4 { libc::AF_INET } else { libc::AF_INET6 };
        let family = u8::try_from(number).map_err(io::Error::other)?;
        let question = request(family, transport.number(), &[0; 48]);
        let result = socket.ask(BY_FAMILY, DUMP, &question, &mut |_, body| {
            if found.len() >= MAX_SOCKETS {
                return Err(io::Error::other("more sockets than can be looked through"));
            }
            found.extend(parse(body, transport.number()));
            Ok(())
        });
        match result {
            // A kernel without IPv6 or without udp_diag has no such sockets to end.
            Err(error)
                if family_is_missing(&error) && (number == libc::AF_INET6 || transport == Transport::Udp) => {
            }
            other => other?,
        }
    }
    Ok(found)
}

fn family_is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

fn parse(body: &[u8], protocol: u8) -> Option<Found> {
    let family = *body.first()?;
    let id: [u8; 48] = *body.get(ID)?.first_chunk()?;
    let [_, _, port_high, port_low, ..] = id;
    let is_v6 = i32::from(family) == libc::AF_INET6;
    let cgroup = attributes(body, FIXED).find(|(kind, _)| *kind == CGROUP);
    Some(Found {
        id,
        family,
        protocol,
        local: address(id.get(4..20)?, is_v6)?,
        remote: address(id.get(20..36)?, is_v6)?,
        remote_port: u16::from_be_bytes([port_high, port_low]),
        cgroup: cgroup.and_then(|(_, value)| read_u64(value, 0)),
    })
}

fn address(bytes: &[u8], is_v6: bool) -> Option<IpAddr> {
    let ip = if is_v6 {
        IpAddr::from(Ipv6Addr::from(*bytes.first_chunk::<16>()?)).to_canonical()
    } else {
        IpAddr::from(Ipv4Addr::from(*bytes.first_chunk::<4>()?))
    };
    Some(ip)
}

/// Ends sockets of the calling thread's namespace; both ends get a reset or an error. Returns how many:
/// those that ended by themselves in the meantime do not count.
pub(crate) fn destroy(sockets: &[Found]) -> io::Result<u32> {
    let mut socket = Socket::open(Some(SOCK_DIAG))?;
    let mut ended = 0;
    for found in sockets {
        match socket.order(DESTROY, 0, &request(found.family, found.protocol, &found.id)) {
            Ok(()) => ended += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}

/// Whether the kernel can end sockets (`CONFIG_INET_DIAG_DESTROY`): asks for the end of one that cannot be.
pub(crate) fn can_destroy() -> io::Result<bool> {
    let mut id = [0; 48];
    if let Some(ports) = id.get_mut(..4) {
        ports.copy_from_slice(&[0, 1, 0, 1]);
    }
    if let Some(loopback) = id.get_mut(4..8) {
        loopback.copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    }
    if let Some(loopback) = id.get_mut(20..24) {
        loopback.copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    }
    let family = u8::try_from(libc::AF_INET).map_err(io::Error::other)?;
    match Socket::open(Some(SOCK_DIAG))?.order(DESTROY, 0, &request(family, Transport::Tcp.number(), &id)) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_socket_is_read_as_the_kernel_lays_it_out() {
        let mut body = vec![0; FIXED];
        body[0] = 10;
        body[6..8].copy_from_slice(&443u16.to_be_bytes());
        body[8..24].copy_from_slice(&Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets());
        body[24..40].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
        let mut message = body.clone();
        message.extend_from_slice(&[12, 0, 21, 0]);
        message.extend_from_slice(&77u64.to_ne_bytes());
        let found = parse(&message, 6).unwrap();
        assert_eq!(found.local, IpAddr::from([10, 0, 0, 1]));
        assert_eq!((found.remote, found.remote_port), (IpAddr::from(Ipv6Addr::LOCALHOST), 443));
        assert_eq!(found.cgroup, Some(77));
        assert_eq!(parse(&body, 6).unwrap().cgroup, None);
        assert!(parse(&body[..50], 6).is_none());
    }
}
