//! The BPF programs of capture. One object holds them all; the loader loads it once per pod, with the
//! pod's constants (`pod`), and attaches each to the pod's cgroup, network namespace and interfaces.
//!
//! | program | attached to | does |
//! |---|---|---|
//! | `connect4`, `connect6` | cgroup | redirect TCP to the proxy and UDP to DNS servers to the forwarder |
//! | `sendmsg4`, `sendmsg6`, `recvmsg4`, `recvmsg6` | cgroup | the same for unconnected UDP, and back |
//! | `getpeername4/6`, `getsockname4/6` | cgroup | the addresses that the application knows |
//! | `sock_ops` | cgroup | hands the original destination to the proxy |
//! | `cgroup_guard` | cgroup, egress | hands over DNS servers; stops what slipped past `connect` |
//! | `inbound` | network namespace, sk_lookup | steers to the proxy's listeners |
//! | `guard` | the pod's interface, tcx egress | lets only the proxy open connections |
//! | `host_guard` | the node's end of it, tcx ingress | the same for frames that skip `guard` |
//! | `accelerate` | sockets in `FAST`, sk_msg | hands what the application sends to the proxy's socket |
//! | `accelerate_proxy` | the agent's cgroup | takes the proxy's sockets into `FAST_PROXY` |
//!
//! Everything fails closed: what cannot be kept, found or understood is refused and counted.

#![no_std]
#![no_main]
// The core library has no atomic addition for this target, though the kernel's machine has one.
#![feature(core_intrinsics)]
#![allow(internal_features)]
// The kernel's pointers: each access is checked by the verifier at load time.
#![allow(unsafe_code)]

mod accelerate;
mod context;
mod guard;
mod inbound;
mod maps;
mod outbound;
mod pod;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel compares it with the helpers that are called.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 4] = *b"GPL\0";
