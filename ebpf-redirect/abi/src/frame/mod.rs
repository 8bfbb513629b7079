//! What a frame that is not the proxy's may do at the pod's border: not open a TCP connection, not
//! ask a DNS server, and not hide from us whether it does either.
//!
//! Pure, so that the host's tests reach it; the programs `guard`, `host_guard` and `cgroup_guard` call
//! it. It reads the bytes that will be on the wire and believes nothing else: with CAP_NET_RAW a pod may
//! say whatever it likes in a packet socket's metadata, and the far end parses the bytes again.
//!
//! Whatever is not understood is stopped: VLAN tags, tunnels, unknown headers, odd lengths.

#[cfg(test)]
mod tests;

/// Bytes of a frame or packet, by offset.
pub trait Bytes {
    /// `N` bytes from `offset` on; none where they do not all exist.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

/// What a frame is, as far as the guard must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Opens nothing.
    Harmless,
    /// A TCP segment that opens no connection. Only the kernel's TCP has a reason to send one: a packet
    /// socket that does would put words into the proxy's connections.
    Segment,
    /// The same, with bytes of the application in it, or a length that does not say. The kernel sends none
    /// that belongs to no socket; a packet that the pod forwards, or copies, belongs to none.
    Data,
    /// A TCP segment with SYN and without ACK: it opens a connection.
    Syn,
    /// A TCP segment with SYN and ACK: it takes up a connection. None with data: that is stopped as [`Syn`].
    ///
    /// [`Syn`]: Verdict::Syn
    Answer,
    /// A UDP datagram to port 53.
    Dns,
    /// A fragment of something else than UDP and ICMP, or one that does not show its header.
    Fragment,
    /// A protocol or extension header that is not let out, such as IPIP, GRE, SCTP, ESP.
    Protocol,
    /// Neither IPv4, IPv6 nor ARP, or with a VLAN tag.
    Ethertype,
    /// Shorter than its headers say, or headers that contradict themselves.
    Malformed,
}

const ETHERNET_HEADER: u32 = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

const ICMP: u8 = 1;
const IGMP: u8 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

const IPV6_HEADER: u32 = 40;
/// A packet with more of them before its payload is stopped. RFC 8200 section 4.1 names four.
const MAX_EXTENSION_HEADERS: u32 = 6;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const ANSWER: u8 = SYN | ACK;
const DNS: u16 = 53;

/// Judges an Ethernet frame. `tagged`: whether a VLAN tag stands beside it, in the kernel's metadata;
/// a tag within the bytes is an ethertype of its own.
#[inline(always)]
pub fn judge_frame(frame: &impl Bytes, tagged: bool) -> Verdict {
    if tagged {
        return Verdict::Ethertype;
    }
    let Some(ethertype) = frame.load::<2>(ETHERNET_HEADER - 2) else { return Verdict::Malformed };
    match u16::from_be_bytes(ethertype) {
        ETHERTYPE_IPV4 => judge_ipv4(frame, ETHERNET_HEADER),
        ETHERTYPE_IPV6 => judge_ipv6(frame, ETHERNET_HEADER),
        ETHERTYPE_ARP => Verdict::Harmless,
        _ => Verdict::Ethertype,
    }
}

/// Judges an IP packet without a link-layer header.
#[inline(always)]
pub fn judge_packet(packet: &impl Bytes) -> Verdict {
    let Some([first]) = packet.load::<1>(0) else { return Verdict::Malformed };
    match first >> 4 {
        4 => judge_ipv4(packet, 0),
        6 => judge_ipv6(packet, 0),
        _ => Verdict::Ethertype,
    }
}

/// RFC 791. `at`: where the header begins.
#[inline(always)]
fn judge_ipv4(bytes: &impl Bytes, at: u32) -> Verdict {
    let Some(header) = bytes.load::<10>(at) else { return Verdict::Malformed };
    let [first, _, length_high, length_low, _, _, offset_high, offset_low, _, protocol] = header;
    let header_length = u32::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header_length < 20 {
        return Verdict::Malformed;
    }
    let payload = at + header_length;
    let fragment = u16::from_be_bytes([offset_high, offset_low]);
    let (offset, more) = (fragment & 0x1fff, fragment & 0x2000 != 0);
    // Not what the frame holds but what the header claims: the rest is padding that the far end cuts off.
    let length = u32::from(u16::from_be_bytes([length_high, length_low])).saturating_sub(header_length);
    if offset == 0 && !more {
        return judge_payload(bytes, payload, protocol, length);
    }
    judge_fragment(bytes, payload, protocol, offset == 0, length)
}

/// RFC 8200. `at`: where the header begins.
#[inline(always)]
fn judge_ipv6(bytes: &impl Bytes, at: u32) -> Verdict {
    let Some(header) = bytes.load::<7>(at) else { return Verdict::Malformed };
    let [first, _, _, _, length_high, length_low, mut next] = header;
    if first >> 4 != 6 {
        return Verdict::Malformed;
    }
    let length = u32::from(u16::from_be_bytes([length_high, length_low]));
    let mut payload = at + IPV6_HEADER;
    let end = payload + length;
    for _ in 0..MAX_EXTENSION_HEADERS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let Some([following, units]) = bytes.load::<2>(payload) else { return Verdict::Malformed };
                payload += (u32::from(units) + 1) * 8;
                next = following;
            }
            FRAGMENT => {
                let Some([following, _, high, low]) = bytes.load::<4>(payload) else {
                    return Verdict::Malformed;
                };
                payload += 8;
                let first = u16::from_be_bytes([high, low]) >> 3 == 0;
                return judge_fragment(bytes, payload, following, first, end.saturating_sub(payload));
            }
            _ => return judge_payload(bytes, payload, next, end.saturating_sub(payload)),
        }
    }
    Verdict::Protocol
}

/// A fragment of which `length` bytes count. What it belongs to must be clear at once: no TCP, which
/// needs no fragments, and no further extension headers, which could lie in a later fragment
/// (RFC 7112) or be overwritten by an overlapping one (RFC 3128, RFC 5722).
#[inline(always)]
fn judge_fragment(bytes: &impl Bytes, at: u32, protocol: u8, first: bool, length: u32) -> Verdict {
    match protocol {
        UDP | ICMP | ICMPV6 if !first => Verdict::Harmless,
        UDP | ICMP | ICMPV6 if length >= 8 => judge_payload(bytes, at, protocol, length),
        _ => Verdict::Fragment,
    }
}

/// `length`: what the headers before say there is of it; 0 also where they leave it open, as those of a packet
/// of more than 64 KiB do before the kernel has cut it.
#[inline(always)]
fn judge_payload(bytes: &impl Bytes, at: u32, protocol: u8, length: u32) -> Verdict {
    match protocol {
        TCP => match bytes.load::<2>(at + 12) {
            Some([header, flags]) => judge_segment(flags, length == u32::from(header >> 4) * 4),
            None => Verdict::Malformed,
        },
        UDP => match bytes.load::<2>(at + 2) {
            Some(port) if u16::from_be_bytes(port) == DNS => Verdict::Dns,
            Some(_) => Verdict::Harmless,
            None => Verdict::Malformed,
        },
        ICMP | IGMP | ICMPV6 => Verdict::Harmless,
        _ => Verdict::Protocol,
    }
}

/// `bare`: the segment is its header.
#[inline(always)]
fn judge_segment(flags: u8, bare: bool) -> Verdict {
    match flags & (SYN | ACK) {
        SYN => Verdict::Syn,
        ANSWER if bare => Verdict::Answer,
        ANSWER => Verdict::Syn,
        _ if bare => Verdict::Segment,
        _ => Verdict::Data,
    }
}
