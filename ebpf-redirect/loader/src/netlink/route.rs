//! rtnetlink(7): interfaces, addresses, and the rule and route that bring answers to the client's
//! address back to the proxy.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{
    CREATE, DUMP, Socket,
    message::{Body, attributes, read_u32},
};
use crate::{Family, Interface};

const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETLINK: u16 = 18;
const GETADDR: u16 = 22;
const NEWRULE: u16 = 32;
const DELRULE: u16 = 33;
const GETNSID: u16 = 90;

/// `struct ifinfomsg`, `ifaddrmsg`, `rtgenmsg`.
const LINK_FIXED: usize = 16;
const ADDRESS_FIXED: usize = 8;
const NSID_FIXED: usize = 4;

/// `IFF_UP` and `IFF_LOOPBACK`.
const UP: u32 = 1;
const LOOPBACK: u32 = 8;

/// Before the rules of any network plugin; behind the local table, which is 0.
const RULE_PRIORITY: u32 = 1;
/// In every network namespace the loopback device is the first.
pub(crate) const LO: u32 = 1;

/// Of the calling thread's namespace.
pub(crate) fn interfaces() -> io::Result<Vec<Interface>> {
    let mut found = Vec::new();
    let question = Body::new(&[0; LINK_FIXED]);
    Socket::open(None)?.ask(GETLINK, DUMP, &question, &mut |_, body| {
        found.extend(interface(body));
        Ok(())
    })?;
    Ok(found)
}

fn interface(body: &[u8]) -> Option<Interface> {
    let (index, flags) = (read_u32(body, 4)?, read_u32(body, 8)?);
    let mut interface = Interface {
        index,
        name: String::new(),
        loopback: flags & LOOPBACK != 0,
        up: flags & UP != 0,
        peer: None,
        peer_netns: None,
        kind: String::new(),
    };
    for (kind, value) in attributes(body, LINK_FIXED) {
        match kind {
            3 => interface.name = text(value),
            5 => interface.peer = read_u32(value, 0).filter(|peer| *peer != 0),
            18 => {
                let kind = attributes(value, 0).find(|(kind, _)| *kind == 1);
                interface.kind = kind.map(|(_, value)| text(value)).unwrap_or_default();
            }
            37 => interface.peer_netns = read_u32(value, 0).map(u32::cast_signed).filter(|id| *id >= 0),
            _ => {}
        }
    }
    Some(interface)
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// Of how many addresses of a family one call keeps a list, loopback ones counted. A pod may give itself
/// as many as it has memory for, and they are looked at each second; a node may have one for each Service.
const MAX_ADDRESSES: usize = 1 << 16;

/// Of the calling thread's namespace, global scope only.
pub(crate) fn addresses() -> io::Result<Vec<IpAddr>> {
    addresses_within(MAX_ADDRESSES)
}

/// The first so many of each family.
fn addresses_within(limit: usize) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for family in [Family::V4, Family::V6] {
        let number = family_number(family);
        let mut fixed = [0; ADDRESS_FIXED];
        fixed[0] = number;
        let mut seen = 0usize;
        // A socket for each, since what is left of a dump that was given up is still on its way.
        let result = Socket::open(None)?.ask(GETADDR, DUMP, &Body::new(&fixed), &mut |_, body| {
            // A kernel without the family tells of all.
            if body.first() != Some(&number) {
                return Ok(());
            }
            seen += 1;
            if seen > limit {
                return Err(io::Error::other("more addresses than are kept"));
            }
            found.extend(address(body));
            Ok(())
        });
        if seen <= limit {
            result?;
        }
    }
    Ok(found)
}

fn address(body: &[u8]) -> Option<IpAddr> {
    let scope = *body.get(3)?;
    // IFA_LOCAL is the own address of a point-to-point interface, whose IFA_ADDRESS is the other end's.
    let find =
        |wanted| attributes(body, ADDRESS_FIXED).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let value = find(2).or_else(|| find(1))?;
    let ip = match value.len() {
        4 => IpAddr::from(Ipv4Addr::from(*value.first_chunk::<4>()?)),
        16 => IpAddr::from(Ipv6Addr::from(*value.first_chunk::<16>()?)),
        _ => return None,
    };
    (scope == 0 && !ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

/// What the calling thread's namespace calls another one in `Interface::peer_netns`; none: it has no
/// name for it, so no interface of it has its other end there.
pub(crate) fn netns_id(other: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let question = Body::new(&[0; NSID_FIXED]).with_u32(3, other.as_raw_fd().unsigned_abs());
    let mut id = None;
    Socket::open(None)?.ask(GETNSID, 0, &question, &mut |_, body| {
        let found = attributes(body, NSID_FIXED).find(|(kind, _)| *kind == 1);
        id = found.and_then(|(_, value)| read_u32(value, 0)).map(u32::cast_signed).filter(|id| *id >= 0);
        Ok(())
    })?;
    Ok(id)
}

fn family_number(family: Family) -> u8 {
    let number = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    u8::try_from(number).unwrap_or(0)
}

/// `ip rule fwmark MARK lookup TABLE`: `struct fib_rule_hdr` with `FR_ACT_TO_TBL`.
fn rule(family: Family) -> Body {
    Body::new(&[family_number(family), 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])
        .with_u32(6, RULE_PRIORITY)
        .with_u32(10, abi::MARK_INBOUND)
        .with_u32(16, u32::MAX)
        .with_u32(15, abi::ROUTE_TABLE)
}

/// `ip route local default dev lo table TABLE`: `struct rtmsg` with `RTPROT_STATIC`, the scope `host`
/// (IPv4 asks for it) and `RTN_LOCAL`.
fn route(family: Family) -> Body {
    let scope = if family == Family::V4 { 254 } else { 0 };
    Body::new(&[family_number(family), 0, 0, 0, 0, 4, scope, 2, 0, 0, 0, 0])
        .with_u32(15, abi::ROUTE_TABLE)
        .with_u32(4, LO)
}

/// Marked packets stay in the calling thread's namespace; done already is done. False: it has no such
/// family.
pub(crate) fn add_mark_route(family: Family) -> io::Result<bool> {
    let mut socket = Socket::open(None)?;
    for (kind, body) in [(NEWROUTE, route(family)), (NEWRULE, rule(family))] {
        match socket.order(kind, CREATE, &body) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) if family == Family::V6 && is_without_family(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// The kernel was built, or the interface configured, without IPv6.
fn is_without_family(error: &io::Error) -> bool {
    let codes = [libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::EACCES, libc::ENODEV, libc::EINVAL];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Undoes [`add_mark_route`]; what is not there is undone.
pub(crate) fn remove_mark_route(family: Family) -> io::Result<()> {
    let mut socket = Socket::open(None)?;
    for (kind, body) in [(DELRULE, rule(family)), (DELROUTE, route(family))] {
        match socket.order(kind, 0, &body) {
            Ok(()) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
            Err(error) if family == Family::V6 && is_without_family(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn bug_all_addresses_that_a_pod_gave_itself_were_read() {
        // `lo` has at least one, so a limit of none ends the dump, and ends it well.
        assert_eq!(addresses_within(0).unwrap(), Vec::<IpAddr>::new());
        // The dump that was given up is not mixed up with the next.
        assert_eq!(addresses_within(1 << 10).unwrap(), addresses().unwrap());
    }
}
