#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

extern crate std;

use std::vec;
use std::vec::Vec;

use super::Verdict::{Answer, Data, Dns, Ethertype, Fragment, Harmless, Malformed, Protocol, Segment, Syn};
use super::{Bytes, Verdict, judge_frame, judge_packet};

impl Bytes for Vec<u8> {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.get(offset as usize..)?.first_chunk().copied()
    }
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `options`: words of four bytes after the fixed header. `fragment`: flags and offset as on the wire.
fn ipv4(protocol: u8, options: usize, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options * 4;
    let mut packet = vec![0u8; header];
    packet[0] = 0x40 | u8::try_from(header / 4).unwrap();
    let length = u16::try_from(header + payload.len()).unwrap();
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[9] = protocol;
    packet.extend(payload);
    packet
}

/// `extensions`: type and whole content of each; their first byte is set to what follows.
fn ipv6(extensions: &[(u8, Vec<u8>)], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (index, (_, content)) in extensions.iter().enumerate() {
        let mut content = content.clone();
        content[0] = extensions.get(index + 1).map_or(protocol, |(kind, _)| *kind);
        body.extend(content);
    }
    body.extend(payload);
    let mut packet = vec![0u8; 40];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    packet[6] = extensions.first().map_or(protocol, |(kind, _)| *kind);
    packet.extend(body);
    packet
}

/// An extension header of `units` times eight bytes beyond its first eight.
fn extension(kind: u8, units: u8) -> (u8, Vec<u8>) {
    let mut content = vec![0u8; 8 + usize::from(units) * 8];
    content[1] = units;
    (kind, content)
}

fn fragment_header(offset: u16, more: bool) -> (u8, Vec<u8>) {
    let mut content = vec![0u8; 8];
    content[2..4].copy_from_slice(&((offset << 3) | u16::from(more)).to_be_bytes());
    (44, content)
}

fn tcp(flags: u8) -> Vec<u8> {
    let mut segment = vec![0u8; 20];
    segment[12] = 0x50;
    segment[13] = flags;
    segment
}

fn udp(port: u16) -> Vec<u8> {
    let mut datagram = vec![0u8; 8];
    datagram[2..4].copy_from_slice(&port.to_be_bytes());
    datagram
}

/// Judged as a frame and as a bare packet, which must agree.
#[track_caller]
fn judged_v4(packet: &[u8]) -> Verdict {
    let verdict = judge_packet(&packet.to_vec());
    assert_eq!(judge_frame(&ethernet(0x0800, packet), false), verdict);
    verdict
}

#[track_caller]
fn judged_v6(packet: &[u8]) -> Verdict {
    let verdict = judge_packet(&packet.to_vec());
    assert_eq!(judge_frame(&ethernet(0x86dd, packet), false), verdict);
    verdict
}

#[test]
fn syn_opens_without_ack_and_answers_with_it_whatever_else_is_set() {
    for extra in 0..=u8::MAX {
        let expected = match (extra & SYN != 0, extra & ACK != 0) {
            (true, false) => Syn,
            (true, true) => Answer,
            (false, _) => Segment,
        };
        assert_eq!(judged_v4(&ipv4(6, 0, 0, &tcp(extra))), expected, "{extra:#04x}");
        assert_eq!(judged_v6(&ipv6(&[], 6, &tcp(extra))), expected, "{extra:#04x}");
    }
    assert_eq!(judged_v4(&ipv4(6, 0, 0, &tcp(SYN | FIN))), Syn);
    assert_eq!(judged_v4(&ipv4(6, 0, 0, &tcp(SYN | RST))), Syn);
}

/// By what the headers say, not by how long the frame is: the far end cuts the rest off.
#[test]
fn a_segment_with_data_is_told_from_a_bare_one() {
    for words in 5..=15u8 {
        let mut segment = tcp(ACK);
        segment[12] = words << 4;
        segment.resize(usize::from(words) * 4, 1);
        assert_eq!(judged_v4(&ipv4(6, 2, 0, &segment)), Segment);
        assert_eq!(judged_v6(&ipv6(&[extension(60, 1)], 6, &segment)), Segment);
        let mut padded = ipv4(6, 2, 0, &segment);
        padded.extend([0; 6]);
        assert_eq!(judged_v4(&padded), Segment);
        segment.push(b'x');
        assert_eq!(judged_v4(&ipv4(6, 2, 0, &segment)), Data);
        assert_eq!(judged_v6(&ipv6(&[extension(60, 1)], 6, &segment)), Data);
        segment[13] = SYN | ACK;
        assert_eq!(judged_v4(&ipv4(6, 0, 0, &segment)), Syn);
        assert_eq!(judged_v6(&ipv6(&[], 6, &segment)), Syn);
    }
    // Larger than the field holds, before the kernel cuts it; or a lie.
    for length in [0u16, 1, 39, 41] {
        let mut packet = ipv4(6, 0, 0, &tcp(ACK));
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(judged_v4(&packet), Data, "{length}");
    }
    let mut packet = ipv6(&[], 6, &tcp(ACK));
    packet[4..6].copy_from_slice(&[0, 0]);
    assert_eq!(judged_v6(&packet), Data);
}

#[test]
fn ipv4_options_move_the_tcp_header() {
    for options in 0..=10 {
        // Were the options overlooked, these would read as ACK.
        let mut packet = ipv4(6, options, 0, &tcp(SYN));
        packet[20..20 + options * 4].fill(ACK);
        assert_eq!(judged_v4(&packet), Syn, "{options}");
    }
}

#[test]
fn a_header_shorter_than_a_header_is_malformed() {
    for length in 0..5 {
        let mut packet = ipv4(6, 0, 0, &tcp(ACK));
        packet[0] = 0x40 | length;
        assert_eq!(judged_v4(&packet), Malformed);
    }
}

#[test]
fn the_ethertype_and_the_version_must_agree() {
    assert_eq!(judge_frame(&ethernet(0x0800, &ipv6(&[], 6, &tcp(ACK))), false), Malformed);
    assert_eq!(judge_frame(&ethernet(0x86dd, &ipv4(6, 0, 0, &tcp(ACK))), false), Malformed);
    assert_eq!(judge_packet(&vec![0x50; 60]), Ethertype);
}

#[test]
fn the_frames_own_ethertype_counts() {
    assert_eq!(judge_frame(&ethernet(0x0806, &[0; 28]), false), Harmless);
    let syn = ipv4(6, 0, 0, &tcp(SYN));
    let mut inner = vec![0, 0, 8, 0];
    inner.extend(&syn);
    // 802.1Q (also with VLAN 0, which the far end takes for untagged), 802.1ad, MPLS, PPPoE, a length
    // of 802.3, loopback tests: none is let out.
    for ethertype in [0x8100, 0x88a8, 0x9100, 0x8847, 0x8864, 0x05dc, 0x0004, 0x9000, 0x0000, 0xffff] {
        assert_eq!(judge_frame(&ethernet(ethertype, &inner), false), Ethertype, "{ethertype:#06x}");
    }
}

#[test]
fn a_vlan_tag_in_the_metadata_is_a_tag() {
    assert_eq!(judge_frame(&ethernet(0x0800, &ipv4(17, 0, 0, &udp(4000))), true), Ethertype);
    assert_eq!(judge_frame(&ethernet(0x0806, &[0; 28]), true), Ethertype);
}

#[test]
fn dns_is_udp_to_port_53() {
    assert_eq!(judged_v4(&ipv4(17, 0, 0, &udp(53))), Dns);
    assert_eq!(judged_v4(&ipv4(17, 3, 0, &udp(53))), Dns);
    assert_eq!(judged_v6(&ipv6(&[], 17, &udp(53))), Dns);
    for port in [0, 52, 54, 53 << 8, 5353, 443] {
        assert_eq!(judged_v4(&ipv4(17, 0, 0, &udp(port))), Harmless);
        assert_eq!(judged_v6(&ipv6(&[], 17, &udp(port))), Harmless);
    }
}

#[test]
fn only_five_protocols_are_let_out() {
    for protocol in 0..=u8::MAX {
        let expected = match protocol {
            // ICMP, IGMP, UDP to another port and ICMPv6.
            1 | 2 | 17 | 58 => Harmless,
            6 => Segment,
            _ => Protocol,
        };
        let payload = tcp(ACK);
        assert_eq!(judged_v4(&ipv4(protocol, 0, 0, &payload)), expected, "{protocol}");
        if !matches!(protocol, 0 | 43 | 44 | 60) {
            assert_eq!(judged_v6(&ipv6(&[], protocol, &payload)), expected, "{protocol}");
        }
    }
}

#[test]
fn tunnels_are_stopped_whatever_they_hold() {
    let inner = ipv4(6, 0, 0, &tcp(ACK));
    for protocol in [4, 41, 47, 50, 51, 97, 115, 132, 137] {
        assert_eq!(judged_v4(&ipv4(protocol, 0, 0, &inner)), Protocol);
        assert_eq!(judged_v6(&ipv6(&[], protocol, &inner)), Protocol);
    }
}

#[test]
fn extension_headers_are_walked() {
    for units in [0, 1, 5, 31] {
        let chain = [extension(0, units), extension(60, 0), extension(43, 2), extension(60, units)];
        for count in 1..=chain.len() {
            assert_eq!(judged_v6(&ipv6(&chain[..count], 6, &tcp(SYN))), Syn);
            assert_eq!(judged_v6(&ipv6(&chain[..count], 6, &tcp(ACK))), Segment);
            assert_eq!(judged_v6(&ipv6(&chain[..count], 17, &udp(53))), Dns);
        }
    }
}

#[test]
fn a_long_chain_of_extension_headers_is_stopped() {
    let chain: Vec<_> = (0..6).map(|_| extension(60, 0)).collect();
    assert_eq!(judged_v6(&ipv6(&chain[..5], 6, &tcp(SYN))), Syn);
    assert_eq!(judged_v6(&ipv6(&chain, 6, &tcp(ACK))), Protocol);
}

#[test]
fn an_extension_header_that_leads_out_of_the_packet_is_malformed() {
    let mut packet = ipv6(&[extension(60, 0)], 6, &tcp(SYN));
    packet[41] = 255;
    assert_eq!(judged_v6(&packet), Malformed);
}

/// RFC 3128: no fragment of TCP, tiny, at offset 1 or whole.
#[test]
fn tcp_is_never_fragmented() {
    for flags in [SYN, ACK] {
        for fragment in [0x2000, 0x2001, 0x0001, 0x0002, 0x00b9, 0x1fff] {
            assert_eq!(judged_v4(&ipv4(6, 0, fragment, &tcp(flags))), Fragment, "{fragment:#06x}");
        }
        for (offset, more) in [(0, true), (0, false), (1, true), (1, false), (100, false)] {
            let packet = ipv6(&[fragment_header(offset, more)], 6, &tcp(flags));
            assert_eq!(judged_v6(&packet), Fragment);
        }
    }
}

/// "Do not fragment" and the reserved bit do not make a fragment.
#[test]
fn flags_beside_more_fragments_are_no_fragment() {
    for flags in [0x4000, 0x8000, 0xc000] {
        assert_eq!(judged_v4(&ipv4(6, 0, flags, &tcp(SYN))), Syn);
        assert_eq!(judged_v4(&ipv4(6, 0, flags, &tcp(ACK))), Segment);
    }
}

#[test]
fn fragments_of_udp_show_their_port_or_are_stopped() {
    assert_eq!(judged_v4(&ipv4(17, 0, 0x2000, &udp(53))), Dns);
    assert_eq!(judged_v4(&ipv4(17, 0, 0x2000, &udp(4000))), Harmless);
    assert_eq!(judged_v4(&ipv4(17, 0, 0x0010, &[0; 8])), Harmless);
    assert_eq!(judged_v6(&ipv6(&[fragment_header(0, true)], 17, &udp(53))), Dns);
    assert_eq!(judged_v6(&ipv6(&[fragment_header(0, true)], 17, &udp(4000))), Harmless);
    assert_eq!(judged_v6(&ipv6(&[fragment_header(9, false)], 17, &[0; 8])), Harmless);
}

/// The bytes beyond the stated length are padding: the far end never sees the port in them.
#[test]
fn a_first_fragment_is_measured_by_its_stated_length() {
    let mut packet = ipv4(17, 0, 0x2000, &udp(4000));
    packet[2..4].copy_from_slice(&22u16.to_be_bytes());
    assert_eq!(judged_v4(&packet), Fragment);
    packet[2..4].copy_from_slice(&0u16.to_be_bytes());
    assert_eq!(judged_v4(&packet), Fragment);

    let mut packet = ipv6(&[fragment_header(0, true)], 17, &udp(4000));
    packet[4..6].copy_from_slice(&10u16.to_be_bytes());
    assert_eq!(judged_v6(&packet), Fragment);
}

/// RFC 7112: behind a fragment header only the payload itself, or a later fragment could hold the TCP header.
#[test]
fn extension_headers_behind_a_fragment_header_are_stopped() {
    let chain = [fragment_header(0, true), extension(60, 0)];
    assert_eq!(judged_v6(&ipv6(&chain, 17, &udp(4000))), Fragment);
    let chain = [fragment_header(0, true), fragment_header(0, false)];
    assert_eq!(judged_v6(&ipv6(&chain, 17, &udp(4000))), Fragment);
    let chain = [extension(0, 0), fragment_header(0, true)];
    assert_eq!(judged_v6(&ipv6(&chain, 17, &udp(53))), Dns);
}

/// No cut of any packet is read past its end, and none turns into something harmless that was not.
#[test]
fn every_cut_is_malformed_or_the_same() {
    let packets = [
        ipv4(6, 2, 0, &tcp(SYN)),
        ipv4(17, 0, 0, &udp(53)),
        ipv6(&[extension(0, 1), extension(60, 0)], 6, &tcp(SYN)),
        ipv6(&[], 17, &udp(53)),
    ];
    for packet in packets {
        let whole = judge_packet(&packet);
        for length in 0..packet.len() {
            let verdict = judge_packet(&packet[..length].to_vec());
            assert!(verdict == Malformed || verdict == whole, "{length}: {verdict:?}");
        }
    }
    for length in 0..14 {
        assert_eq!(judge_frame(&vec![0; length], false), Malformed);
    }
}
