//! Frames read as far as an eye between nodes needs it: Ethernet, IPv4 (RFC 791), IPv6 (RFC 8200), TCP
//! (RFC 9293).

use std::{fmt, net::SocketAddr};

use super::wire::address;

const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
/// Hop-by-hop options, which multicast listeners' reports carry.
const HOP_BY_HOP: u8 = 0;
const IPV6_HEADER: usize = 40;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
/// Offset and more-fragments of an IPv4 header.
const FRAGMENT: u16 = 0x3fff;
/// Bytes of a payload that are shown.
const SHOWN: usize = 24;

/// What a frame is.
pub(super) enum Kind<'a> {
    /// A TCP segment.
    Tcp(Segment<'a>),
    /// ARP and what takes its place in IPv6.
    Neighbours,
    /// Anything else.
    Other(String),
}

/// A TCP segment.
pub(super) struct Segment<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    pub(super) bytes: &'a [u8],
    /// SYN: the sequence number is the one before the first byte's.
    pub(super) opens: bool,
    flags: u8,
}

impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [(SYN, " SYN"), (FIN, " FIN"), (RST, " RST")];
        write!(f, "TCP {} to {}", self.from, self.to)?;
        for (_, name) in flags.iter().filter(|(bit, _)| self.flags & bit != 0) {
            f.write_str(name)?;
        }
        let start = self.bytes.get(..SHOWN.min(self.bytes.len())).unwrap_or_default();
        write!(f, ", {} bytes {:?}", self.bytes.len(), String::from_utf8_lossy(start))
    }
}

pub(super) fn read(frame: &[u8]) -> Kind<'_> {
    let other = || {
        let start = frame.get(..(ETHERNET + SHOWN).min(frame.len())).unwrap_or_default();
        Kind::Other(format!("a frame {start:02x?}"))
    };
    let read = match number(frame, 12) {
        Some(ARP) => return Kind::Neighbours,
        Some(IPV4) => ipv4(frame),
        Some(IPV6) => ipv6(frame),
        _ => None,
    };
    read.unwrap_or_else(other)
}

fn ipv4(frame: &[u8]) -> Option<Kind<'_>> {
    let packet = frame.get(ETHERNET..)?;
    let head = usize::from(packet.first()? & 0x0f) * 4;
    // A short frame is filled up behind the packet.
    let packet = packet.get(..usize::from(number(packet, 2)?))?;
    if *packet.get(9)? != TCP || number(packet, 6)? & FRAGMENT != 0 {
        return None;
    }
    tcp(packet.get(12..16)?, packet.get(16..20)?, packet.get(head..)?)
}

fn ipv6(frame: &[u8]) -> Option<Kind<'_>> {
    let packet = frame.get(ETHERNET..)?;
    let rest = packet.get(IPV6_HEADER..IPV6_HEADER + usize::from(number(packet, 4)?))?;
    match *packet.get(6)? {
        TCP => tcp(packet.get(8..24)?, packet.get(24..40)?, rest),
        ICMPV6 => Some(Kind::Neighbours),
        HOP_BY_HOP if *rest.first()? == ICMPV6 => Some(Kind::Neighbours),
        _ => None,
    }
}

fn tcp<'a>(source: &[u8], destination: &[u8], segment: &'a [u8]) -> Option<Kind<'a>> {
    let from = SocketAddr::new(address(source)?, number(segment, 0)?);
    let to = SocketAddr::new(address(destination)?, number(segment, 2)?);
    let sequence = u32::from_be_bytes(segment.get(4..8)?.try_into().ok()?);
    let head = usize::from(segment.get(12)? >> 4) * 4;
    let flags = *segment.get(13)?;
    let bytes = segment.get(head..)?;
    Some(Kind::Tcp(Segment { from, to, sequence, bytes, opens: flags & SYN != 0, flags }))
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
