//! What the application sends goes from socket to socket within the pod, past TCP: off unless the pod asks
//! for it. The README has its defects and gains, and what was tried against them.
//!
//! The application's sockets come into `FAST` by the pod's `sock_ops`, the proxy's into `FAST_PROXY` by
//! `accelerate_proxy`, which is attached to the agent's cgroup. The kernel takes them out when they close.
//! Nothing is ever put into the application's queue: so its socket can be taken out at any time.

use core::ptr::read_volatile;

use abi::{Address, Counter, FAST_BYTES, FastKey, MARK_INBOUND};
use aya_ebpf::bindings::{
    BPF_F_INGRESS, BPF_NOEXIST, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
    sk_msg_md,
};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_map_delete_elem, bpf_sock_hash_update};
use aya_ebpf::macros::{sk_msg, sock_ops as program};
use aya_ebpf::maps::SockHash;
use aya_ebpf::programs::{SkMsgContext, SockOpsContext};

use crate::context::AF_INET6;
use crate::maps::{FAST, FAST_PODS, FAST_PROXY, FAST_STORE, count, stored_or_new};
use crate::outbound::sockops::Connection;
use crate::pod;

const PASS: u32 = 1;
/// In `FAST_STORE`: this socket's bytes go by TCP from now on.
const OFF: u64 = u64::MAX;

/// Takes the application's end of a connection to or from the proxy.
#[inline(always)]
pub fn take_application(connection: &Connection) {
    if !pod::is_accelerated() || !(connection.is_redirected() || connection.mark() == MARK_INBOUND) {
        return;
    }
    let netns = pod::netns();
    if unsafe { FAST_PODS.get(netns) }.is_none() && FAST_PODS.insert(netns, 1, 0).is_err() {
        return;
    }
    if take(connection, netns, &FAST) {
        connection.watch();
    }
}

/// Lets go of the application's end when it has sent its last byte. A socket in the map wakes from a blocking
/// read when its FIN is acknowledged, and then says EAGAIN.
#[inline(always)]
pub fn let_go(connection: &Connection) {
    if pod::is_accelerated() {
        let mut key = connection.ends(pod::netns());
        let map = (&raw const FAST).cast_mut().cast();
        let _ = unsafe { bpf_map_delete_elem(map, (&raw mut key).cast()) };
    }
}

/// Takes the proxy's end. The application's is established after the proxy's where the proxy connects, so
/// that the first such connection of a pod goes by TCP.
#[program]
pub fn accelerate_proxy(context: SockOpsContext) -> u32 {
    let connection = Connection { raw: context.ops };
    let ours = match context.op() {
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => connection.is_accepted_redirect(),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => connection.mark() == MARK_INBOUND,
        _ => false,
    };
    if ours {
        let netns = unsafe { bpf_get_netns_cookie(connection.raw.cast()) };
        if unsafe { FAST_PODS.get(netns) }.is_some() {
            take(&connection, netns, &FAST_PROXY);
        }
    }
    0
}

#[inline(always)]
fn take(connection: &Connection, netns: u64, sockets: &'static SockHash<FastKey>) -> bool {
    let mut key = connection.ends(netns);
    let map = core::ptr::from_ref(sockets).cast_mut().cast();
    let flags = u64::from(BPF_NOEXIST);
    let taken = unsafe { bpf_sock_hash_update(connection.raw, map, (&raw mut key).cast(), flags) } == 0;
    count(if taken { Counter::FastAdded } else { Counter::FastRefused });
    taken
}

/// A message of the application goes to the receive queue of the proxy's end, where that has been taken too.
/// What has gone by TCP once keeps to it: the other end reads its queue before TCP's, so that going back
/// would change the order.
#[sk_msg]
pub fn accelerate(context: SkMsgContext) -> u32 {
    let message = context.msg;
    let socket = unsafe { (*message).__bindgen_anon_3.sk };
    if socket.is_null() {
        return PASS;
    }
    let Some(sent) = stored_or_new(&FAST_STORE, socket.cast()) else { return PASS };
    let size = u64::from(unsafe { read_volatile(&raw const (*message).size) });
    if *sent == OFF || *sent + size > FAST_BYTES {
        *sent = OFF;
        count(Counter::FastFallback);
        return PASS;
    }
    if FAST_PROXY.redirect_msg(&context, other_end(message), u64::from(BPF_F_INGRESS)) == 1 {
        *sent += size;
        count(Counter::FastRedirected);
    } else {
        *sent = OFF;
        count(Counter::FastFallback);
    }
    PASS
}

/// The key of the socket that the message is for.
#[inline(always)]
fn other_end(message: *mut sk_msg_md) -> FastKey {
    let (family, local_port, remote_port) = unsafe {
        (
            read_volatile(&raw const (*message).family),
            read_volatile(&raw const (*message).local_port) as u16,
            u32::from_be(read_volatile(&raw const (*message).remote_port)) as u16,
        )
    };
    // One copy of this program serves all pods.
    let netns = unsafe { bpf_get_netns_cookie(message.cast()) };
    let (local, remote) = if family == AF_INET6 {
        let (local, remote) = unsafe { (&raw const (*message).local_ip6, &raw const (*message).remote_ip6) };
        (Address::from_words(words(local), local_port), Address::from_words(words(remote), remote_port))
    } else {
        let (local, remote) = unsafe {
            (read_volatile(&raw const (*message).local_ip4), read_volatile(&raw const (*message).remote_ip4))
        };
        (Address::from_v4(local, local_port), Address::from_v4(remote, remote_port))
    };
    FastKey { netns, local: remote, remote: local }
}

#[inline(always)]
fn words(address: *const [u32; 4]) -> [u32; 4] {
    unsafe {
        [
            read_volatile(&raw const (*address)[0]),
            read_volatile(&raw const (*address)[1]),
            read_volatile(&raw const (*address)[2]),
            read_volatile(&raw const (*address)[3]),
        ]
    }
}
