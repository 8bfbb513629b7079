//! `connect`: TCP to anywhere but this host goes to the proxy's listener in the pod.

use abi::{Counter, MAX_HALF_OPEN, OUTBOUND_PORT, Origin};
use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use super::{ALLOW, REFUSE, dns};
use crate::context::{Call, UDP};
use crate::maps::{ORIGIN_STORE, count, forget, half_open, stored_or_new};
use crate::pod;

#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    connect(&Call::v4(&context))
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    connect(&Call::v6(&context))
}

#[inline(always)]
fn connect(call: &Call) -> i32 {
    if !pod::owns(call.context()) {
        return REFUSE;
    }
    if call.is_tcp() {
        return connect_tcp(call);
    }
    // Others, such as ping sockets, open no connection; the guard knows what else is let out.
    if call.protocol() == UDP { dns::redirect(call) } else { ALLOW }
}

#[inline(always)]
fn connect_tcp(call: &Call) -> i32 {
    if call.is_loopback() {
        // The socket may have been redirected before and disconnected since.
        forget(&ORIGIN_STORE, call.socket());
        count(Counter::PassedLoopback);
        return ALLOW;
    }
    if !pod::is_ready() {
        return REFUSE;
    }
    if half_open() >= MAX_HALF_OPEN {
        count(Counter::RefusedHalfOpen);
        return REFUSE;
    }
    let Some(origin) = stored_or_new(&ORIGIN_STORE, call.socket()) else {
        count(Counter::RefusedNoMemory);
        return REFUSE;
    };
    *origin = Origin {
        address: call.address(),
        netns: pod::netns(),
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        at: unsafe { bpf_ktime_get_boot_ns() },
    };
    count(if call.is_v4() { Counter::RedirectedV4 } else { Counter::RedirectedV6 });
    call.to_loopback(OUTBOUND_PORT);
    ALLOW
}
