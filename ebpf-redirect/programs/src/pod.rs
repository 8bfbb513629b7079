//! Constants of the pod that this copy of the object is loaded for; the loader sets them.

use core::ptr::read_volatile;

use abi::Counter;
use aya_ebpf::helpers::bpf_get_netns_cookie;

use crate::maps::{READY, count};

/// The pod's slot.
#[unsafe(no_mangle)]
static SLOT: u32 = 0;
/// Cookie of the pod's network namespace.
#[unsafe(no_mangle)]
static NETNS: u64 = 0;
/// The pod's IPv4 address in network order, or zero.
#[unsafe(no_mangle)]
static POD_IP4: u32 = 0;
/// The pod's IPv6 address, or zeros.
#[unsafe(no_mangle)]
static POD_IP6: [u8; 16] = [0; 16];
/// Whether bytes may take the way through `accelerate`.
#[unsafe(no_mangle)]
static ACCELERATE: u32 = 0;

#[inline(always)]
pub fn slot() -> u32 {
    unsafe { read_volatile(&raw const SLOT) }
}

#[inline(always)]
pub fn netns() -> u64 {
    unsafe { read_volatile(&raw const NETNS) }
}

#[inline(always)]
pub fn ip4() -> u32 {
    unsafe { read_volatile(&raw const POD_IP4) }
}

#[inline(always)]
pub fn ip6() -> [u32; 4] {
    let words = (&raw const POD_IP6).cast::<u32>();
    unsafe {
        [
            read_volatile(words),
            read_volatile(words.add(1)),
            read_volatile(words.add(2)),
            read_volatile(words.add(3)),
        ]
    }
}

#[inline(always)]
pub fn is_accelerated() -> bool {
    unsafe { read_volatile(&raw const ACCELERATE) != 0 }
}

/// Whether a socket is of the pod's own network namespace. A privileged process may make one in
/// another, where neither the redirect nor the guard of this pod holds.
#[inline(always)]
pub fn owns(context: *mut core::ffi::c_void) -> bool {
    let own = unsafe { bpf_get_netns_cookie(context) } == netns();
    if !own {
        count(Counter::RefusedForeignNetns);
    }
    own
}

/// Whether the proxy has said that it serves the pod.
#[inline(always)]
pub fn is_ready() -> bool {
    let ready = unsafe { READY.get(netns()) }.is_some_and(|ready| *ready == slot());
    if !ready {
        count(Counter::RefusedNotReady);
    }
    ready
}
