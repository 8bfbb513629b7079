//! Bytes from socket to socket within a pod, past TCP: off unless the pod asks for it. The README has
//! its defects and gains.

use abi::{Address, Counter, FastKey};
use aya_ebpf::bindings::{BPF_F_INGRESS, BPF_NOEXIST};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_sock_hash_update};
use aya_ebpf::macros::sk_msg;
use aya_ebpf::programs::SkMsgContext;

use core::ptr::read_volatile;

use crate::context::AF_INET6;
use crate::maps::{FAST, count};
use crate::outbound::sockops::Connection;
use crate::pod;

const PASS: u32 = 1;

/// Takes an established connection to the proxy into the map.
#[inline(always)]
pub fn take(connection: &Connection) {
    if !pod::is_accelerated() || !connection.is_redirected() {
        return;
    }
    let mut key = connection.ends();
    let map = (&raw const FAST).cast_mut().cast();
    let flags = u64::from(BPF_NOEXIST);
    let taken = unsafe { bpf_sock_hash_update(connection.raw, map, (&raw mut key).cast(), flags) };
    count(if taken == 0 { Counter::FastAdded } else { Counter::FastRefused });
}

/// A message of a socket in the map goes to the other end's receive queue, where that is in the map too.
#[sk_msg]
pub fn accelerate(context: SkMsgContext) -> u32 {
    let message = context.msg;
    let (family, local_port, remote_port) = unsafe {
        (
            read_volatile(&raw const (*message).family),
            read_volatile(&raw const (*message).local_port) as u16,
            u32::from_be(read_volatile(&raw const (*message).remote_port)) as u16,
        )
    };
    if family == AF_INET6 {
        count(Counter::FastFallback);
        return PASS;
    }
    let (local, remote) = unsafe {
        (read_volatile(&raw const (*message).local_ip4), read_volatile(&raw const (*message).remote_ip4))
    };
    let key = FastKey {
        // One copy of this program serves all pods.
        netns: unsafe { bpf_get_netns_cookie(message.cast()) },
        local: Address::from_v4(remote, remote_port),
        remote: Address::from_v4(local, local_port),
    };
    let redirected = FAST.redirect_msg(&context, key, u64::from(BPF_F_INGRESS));
    count(if redirected == 1 { Counter::FastRedirected } else { Counter::FastFallback });
    PASS
}
