//! The border: whatever a socket of the pod does, and however it was made, no connection and no DNS query
//! leaves but through the proxy. Sockets are told apart by their cgroup, which is fixed when they are made;
//! marks and users can be set by a pod that has the capabilities.
//!
//! `guard` sees all that the pod's stack and packet sockets send, except what asks to skip queueing
//! (PACKET_QDISC_BYPASS, AF_XDP; CAP_NET_RAW is enough for both). Therefore `host_guard` looks again where
//! the veth pair ends: a frame that crosses it still belongs to its socket there.

use core::ptr::read_volatile;

use abi::frame::{Bytes, Verdict, judge_frame, judge_packet};
use abi::{Address, Counter};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_sk_fullsock, bpf_skb_cgroup_id, bpf_skb_load_bytes};
use aya_ebpf::macros::{cgroup_skb, classifier};
use aya_ebpf::programs::{SkBuffContext, TcContext};

use crate::maps::{ALLOWED_CGROUPS, count};
use crate::outbound::dns::{self, Datagram};

/// On to the next tcx program, such as the network plugin's.
const NEXT: i32 = -1;
const DROP: i32 = 2;

const CGROUP_PASS: i32 = 1;
const CGROUP_DROP: i32 = 0;

const LOOPBACK: u32 = 1;
const UDP: u8 = 17;
const AF_PACKET: u32 = 17;
const AF_XDP: u32 = 44;
const SOCK_RAW: u32 = 3;

#[classifier]
pub fn guard(context: TcContext) -> i32 {
    let skb = context.skb.skb;
    if is_allowed(skb) {
        return NEXT;
    }
    let stopped = match judge_frame(&Frame(skb), is_tagged(skb)) {
        Verdict::Harmless => return NEXT,
        Verdict::Segment if !is_from_packet_socket(skb) => return NEXT,
        // What a device of the pod's own making forwards, or a rule copies, would speak past the proxy, or
        // within its connections.
        Verdict::Data if has_socket(skb) && !is_from_packet_socket(skb) => return NEXT,
        Verdict::Segment | Verdict::Data => Counter::GuardInjected,
        // Under a flood the proxy's listener answers without a socket (SYN cookies).
        Verdict::Answer if !has_socket(skb) => return NEXT,
        Verdict::Syn | Verdict::Answer => Counter::GuardSyn,
        Verdict::Dns => Counter::GuardDns,
        Verdict::Fragment => Counter::GuardFragment,
        Verdict::Protocol => Counter::GuardProtocol,
        Verdict::Ethertype => Counter::GuardEthertype,
        Verdict::Malformed => Counter::GuardMalformed,
    };
    count(stopped);
    DROP
}

#[classifier]
pub fn host_guard(context: TcContext) -> i32 {
    let skb = context.skb.skb;
    if is_allowed(skb) {
        return NEXT;
    }
    let passes = match judge_frame(&Frame(skb), is_tagged(skb)) {
        Verdict::Harmless => true,
        // `guard` has seen what has no socket: only packet sockets get past it.
        Verdict::Segment | Verdict::Data => !is_from_packet_socket(skb),
        Verdict::Answer => !has_socket(skb),
        _ => false,
    };
    if passes {
        return NEXT;
    }
    count(Counter::HostGuard);
    DROP
}

/// Whether a socket that the agent made sends this.
#[inline(always)]
fn is_allowed(skb: *mut __sk_buff) -> bool {
    let cgroup = unsafe { bpf_skb_cgroup_id(skb) };
    unsafe { ALLOWED_CGROUPS.get(cgroup) }.is_some()
}

#[cgroup_skb(egress)]
pub fn cgroup_guard(context: SkBuffContext) -> i32 {
    let skb = context.skb.skb;
    if unsafe { read_volatile(&raw const (*skb).ifindex) } == LOOPBACK {
        return within(skb);
    }
    let stopped = match judge_packet(&Frame(skb)) {
        Verdict::Harmless => return CGROUP_PASS,
        Verdict::Segment | Verdict::Data if !is_from_raw_socket(skb) => return CGROUP_PASS,
        Verdict::Segment | Verdict::Data => Counter::CgroupGuardInjected,
        Verdict::Syn | Verdict::Answer => Counter::CgroupGuardSyn,
        Verdict::Dns => Counter::CgroupGuardDns,
        Verdict::Fragment => Counter::CgroupGuardFragment,
        Verdict::Protocol => Counter::CgroupGuardProtocol,
        Verdict::Ethertype => Counter::CgroupGuardEthertype,
        Verdict::Malformed => Counter::CgroupGuardMalformed,
    };
    count(stopped);
    CGROUP_DROP
}

/// Whether a socket sends this. An answer to a SYN is its listener's: what arrives is led to the proxy's, and
/// a pod that leads it to its own, by the loopback device, or calls somebody who calls back at the same time
/// (RFC 9293 section 3.5), is not to get past the proxy by that.
#[inline(always)]
fn has_socket(skb: *mut __sk_buff) -> bool {
    !unsafe { (*skb).__bindgen_anon_2.sk }.is_null()
}

/// Whether the sender is a packet socket or one of AF_XDP, which give the frame as it is. The kernel's own
/// segments, such as resets, come from a raw socket of the kernel or from none.
#[inline(always)]
fn is_from_packet_socket(skb: *mut __sk_buff) -> bool {
    let socket = unsafe { (*skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return false;
    }
    let family = unsafe { read_volatile(&raw const (*socket).family) };
    family == AF_PACKET || family == AF_XDP
}

/// Whether the sender is a raw socket. Only for those of the pod's cgroup: the kernel has one too.
#[inline(always)]
fn is_from_raw_socket(skb: *mut __sk_buff) -> bool {
    let socket = unsafe { (*skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return false;
    }
    let socket = unsafe { bpf_sk_fullsock(socket) };
    !socket.is_null() && unsafe { read_volatile(&raw const (*socket).type_) } == SOCK_RAW
}

/// A packet that stays in the pod: left alone, but queries to the DNS forwarder take the server's address
/// with them.
#[inline(always)]
fn within(skb: *mut __sk_buff) -> i32 {
    let Some(datagram) = datagram(&Frame(skb)) else { return CGROUP_PASS };
    let socket = unsafe { (*skb).__bindgen_anon_2.sk };
    if socket.is_null() || dns::hand_over(&datagram, socket.cast()) { CGROUP_PASS } else { CGROUP_DROP }
}

#[inline(always)]
fn datagram(packet: &Frame) -> Option<Datagram> {
    // Long enough for both families' "next" field; one read, since most packets here are TCP.
    let [first, _, _, _, _, _, next, _, _, protocol] = packet.load::<10>(0)?;
    if first >> 4 == 4 {
        if protocol != UDP {
            return None;
        }
        let source = u32::from_ne_bytes(packet.load::<4>(12)?);
        let (from, port) = udp_ports(packet, u32::from(first & 0x0f) * 4)?;
        Some(Datagram { source: Address::from_v4(source, from), port, v4: true })
    } else {
        if next != UDP {
            return None;
        }
        let ip = packet.load::<16>(8)?;
        let (from, port) = udp_ports(packet, 40)?;
        Some(Datagram { source: Address { ip, port: from, pad: [0; 6] }, port, v4: false })
    }
}

/// Source and destination, host order.
#[inline(always)]
fn udp_ports(packet: &Frame, at: u32) -> Option<(u16, u16)> {
    let [from_high, from_low, to_high, to_low] = packet.load::<4>(at)?;
    Some((u16::from_be_bytes([from_high, from_low]), u16::from_be_bytes([to_high, to_low])))
}

#[inline(always)]
fn is_tagged(skb: *mut __sk_buff) -> bool {
    unsafe { read_volatile(&raw const (*skb).vlan_present) != 0 }
}

/// The bytes that will be on the wire, wherever in the kernel's buffers they lie.
struct Frame(*mut __sk_buff);

impl Bytes for Frame {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = [0u8; N];
        let read = unsafe { bpf_skb_load_bytes(self.0.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
        (read == 0).then_some(bytes)
    }
}
