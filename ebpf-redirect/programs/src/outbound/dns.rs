//! DNS over UDP: queries go to one of the proxy's sockets in the pod, one for each server that the
//! application's socket has asked, so that each answer can be told by the port it comes from.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr::{read_volatile, write_volatile};

use abi::{Address, Counter, DNS_SERVERS, DnsKey, DnsPorts, DnsServers};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use super::{ALLOW, REFUSE};
use crate::context::Call;
use crate::maps::{DNS_ORIGINS, DNS_PORTS, DNS_STORE, count, stored, stored_or_new};
use crate::pod;

const DNS: u16 = 53;

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(context: SockAddrContext) -> i32 {
    sendmsg(&Call::v4(&context))
}

/// A message to a v4-mapped address comes to `sendmsg4`.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(context: SockAddrContext) -> i32 {
    sendmsg(&Call::v6(&context))
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(context: SockAddrContext) -> i32 {
    restore(&Call::v4(&context));
    ALLOW
}

/// Messages from IPv4 on a dual-stack socket come here, with a v4-mapped source.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(context: SockAddrContext) -> i32 {
    restore(&Call::v6(&context));
    ALLOW
}

#[inline(always)]
fn sendmsg(call: &Call) -> i32 {
    if pod::owns(call.context()) { redirect(call) } else { REFUSE }
}

/// Sends a query to the forwarder; anything else is left alone.
#[inline(always)]
pub fn redirect(call: &Call) -> i32 {
    let server = call.address();
    if server.port != DNS || call.is_loopback() {
        return ALLOW;
    }
    if !pod::is_ready() {
        return REFUSE;
    }
    let Some(asked) = stored_or_new(&DNS_STORE, call.socket()) else {
        count(Counter::RefusedNoMemory);
        return REFUSE;
    };
    let Some(index) = find(asked, &server).or_else(|| add(asked, &server)) else {
        count(Counter::DnsTooManyServers);
        return REFUSE;
    };
    let port = port_of(index, call.is_v4());
    if port == 0 {
        count(Counter::DnsNoPort);
        return REFUSE;
    }
    call.to_loopback(port);
    count(Counter::DnsRedirected);
    ALLOW
}

/// Puts the server's address in place of the forwarder's, where that is what is there.
#[inline(always)]
pub fn restore(call: &Call) {
    if !call.is_loopback() {
        return;
    }
    let Some(asked) = stored(&DNS_STORE, call.socket()) else { return };
    let Some(index) = index_of(call.address().port, call.is_v4()) else { return };
    let Some(server) = asked.servers.get(index) else { return };
    if server.port != 0 {
        call.set(server);
        count(Counter::NameRestored);
    }
}

/// Whether the socket has asked a DNS server.
#[inline(always)]
pub fn has_asked(socket: *mut core::ffi::c_void) -> bool {
    stored(&DNS_STORE, socket).is_some()
}

#[inline(always)]
fn find(asked: &DnsServers, server: &Address) -> Option<usize> {
    (0..DNS_SERVERS).find(|index| asked.servers.get(*index) == Some(server))
}

/// Threads may send on one socket at the same time: each claims a place of its own, and the port, which
/// makes it valid, is written last. At worst a server stands twice.
#[inline(always)]
fn add(asked: &mut DnsServers, server: &Address) -> Option<usize> {
    if unsafe { read_volatile(&raw const asked.count) } >= DNS_SERVERS as u64 {
        return None;
    }
    let claim = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut asked.count, 1) };
    let index = claim as usize;
    let place = asked.servers.get_mut(index)?;
    unsafe {
        write_volatile(&raw mut place.ip, server.ip);
        write_volatile(&raw mut place.port, server.port);
    }
    Some(index)
}

#[inline(always)]
fn ports() -> Option<&'static DnsPorts> {
    unsafe { DNS_PORTS.get(pod::netns()) }
}

/// The forwarder's port for a socket's `index`-th server; zero: there is none.
#[inline(always)]
fn port_of(index: usize, v4: bool) -> u16 {
    let Some(ports) = ports() else { return 0 };
    let ports = if v4 { &ports.v4 } else { &ports.v6 };
    ports.get(index).copied().unwrap_or(0)
}

/// Which of the forwarder's ports this is.
#[inline(always)]
fn index_of(port: u16, v4: bool) -> Option<usize> {
    let ports = ports()?;
    let ports = if v4 { &ports.v4 } else { &ports.v6 };
    (0..DNS_SERVERS).find(|index| port != 0 && ports.get(*index) == Some(&port))
}

/// A datagram that leaves a socket of the pod for this host itself.
pub struct Datagram {
    pub source: Address,
    /// The destination's port, host order.
    pub port: u16,
    pub v4: bool,
}

/// Tells the forwarder whom a query is meant for. Only here, when the query is on its way, is the
/// source certain: `connect` comes before the port is chosen. False: it could not be told.
#[inline(always)]
pub fn hand_over(datagram: &Datagram, socket: *mut core::ffi::c_void) -> bool {
    let Some(asked) = stored(&DNS_STORE, socket) else { return true };
    let Some(index) = index_of(datagram.port, datagram.v4) else { return true };
    let Some(server) = asked.servers.get(index) else { return true };
    let key = DnsKey { netns: pod::netns(), source: datagram.source, server: index as u32, pad: 0 };
    let told = server.port != 0 && DNS_ORIGINS.insert(key, *server, 0).is_ok();
    count(if told { Counter::DnsStored } else { Counter::DnsNotStored });
    told
}
