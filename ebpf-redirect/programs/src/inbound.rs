//! Steering to the proxy's listeners, which lie on ephemeral loopback ports: what arrives for the pod, and
//! what `connect` redirected. No process of the pod can get between by listening on the same port.

use core::ptr::read_volatile;

use abi::{Counter, OUTBOUND_PORT, SLOT_WIDTH, is_loopback_v4, is_loopback_v6, slot};
use aya_ebpf::bindings::bpf_sk_lookup;
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;

use crate::context::{AF_INET6, TCP};
use crate::maps::{LISTEN, count};
use crate::pod;

/// In every network namespace the loopback device is the first.
const LOOPBACK: u32 = 1;

const PASS: u32 = 1;
const DROP: u32 = 0;

#[sk_lookup]
pub fn inbound(context: SkLookupContext) -> u32 {
    let lookup = context.lookup;
    let (protocol, family, interface) = unsafe {
        (
            read_volatile(&raw const (*lookup).protocol),
            read_volatile(&raw const (*lookup).family),
            read_volatile(&raw const (*lookup).ingress_ifindex),
        )
    };
    if protocol != TCP {
        return PASS;
    }
    let v6 = family == AF_INET6;
    if interface != LOOPBACK {
        let listener = if v6 { slot::IN6 } else { slot::IN4 };
        return steer(&context, listener, Counter::InboundSteered, Counter::InboundRefused);
    }
    if is_redirected(lookup, v6) {
        let listener = if v6 { slot::OUT6 } else { slot::OUT4 };
        return steer(&context, listener, Counter::OutboundSteered, Counter::OutboundRefused);
    }
    // The pod within itself, and the proxy on its way in: its sockets are bound to the device.
    PASS
}

#[inline(always)]
fn steer(context: &SkLookupContext, listener: u32, steered: Counter, refused: Counter) -> u32 {
    if LISTEN.redirect_sk_lookup(context, pod::slot() * SLOT_WIDTH + listener, 0).is_ok() {
        count(steered);
        PASS
    } else {
        count(refused);
        DROP
    }
}

#[inline(always)]
fn is_redirected(lookup: *mut bpf_sk_lookup, v6: bool) -> bool {
    let port = unsafe { read_volatile(&raw const (*lookup).local_port) };
    if port != u32::from(OUTBOUND_PORT) {
        return false;
    }
    unsafe {
        if v6 {
            let words = &raw const (*lookup).local_ip6;
            is_loopback_v6(&[
                read_volatile(&raw const (*words)[0]),
                read_volatile(&raw const (*words)[1]),
                read_volatile(&raw const (*words)[2]),
                read_volatile(&raw const (*words)[3]),
            ])
        } else {
            is_loopback_v4(read_volatile(&raw const (*lookup).local_ip4))
        }
    }
}
