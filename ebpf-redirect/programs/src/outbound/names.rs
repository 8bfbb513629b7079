//! `getpeername` and `getsockname`: the application sees what it asked for, not the redirect.
//!
//! Not covered: an MPTCP socket, whose storage the kernel keeps on the subflow; it sees the redirect.

use abi::{Counter, OUTBOUND_PORT};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use super::{ALLOW, dns};
use crate::context::Call;
use crate::maps::{ORIGIN_STORE, count, stored};
use crate::pod;

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(context: SockAddrContext) -> i32 {
    peer(&Call::v4(&context));
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(context: SockAddrContext) -> i32 {
    peer(&Call::v6(&context));
    ALLOW
}

#[cgroup_sock_addr(getsockname4)]
pub fn getsockname4(context: SockAddrContext) -> i32 {
    own(&Call::v4(&context));
    ALLOW
}

#[cgroup_sock_addr(getsockname6)]
pub fn getsockname6(context: SockAddrContext) -> i32 {
    own(&Call::v6(&context));
    ALLOW
}

#[inline(always)]
fn peer(call: &Call) {
    if !call.is_tcp() {
        return dns::restore(call);
    }
    if !call.is_loopback() || call.address().port != OUTBOUND_PORT {
        return;
    }
    if let Some(origin) = stored(&ORIGIN_STORE, call.socket()) {
        call.set(&origin.address);
        count(Counter::NameRestored);
    }
}

/// The redirect makes the kernel choose a loopback address; the pod's own stands in for it.
#[inline(always)]
fn own(call: &Call) {
    if !call.is_loopback() {
        return;
    }
    let socket = call.socket();
    let redirected =
        if call.is_tcp() { stored(&ORIGIN_STORE, socket).is_some() } else { dns::has_asked(socket) };
    if !redirected {
        return;
    }
    if call.is_v4() {
        if pod::ip4() != 0 {
            call.set_v4(pod::ip4());
        }
    } else if pod::ip6() != [0; 4] {
        call.set_words(pod::ip6());
    }
    count(Counter::NameRestored);
}
