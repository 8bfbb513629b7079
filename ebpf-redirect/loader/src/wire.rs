//! Keys and values of the maps as the kernel has them: the bytes of `abi`'s structs.

use abi::{Address, DnsKey, DnsPorts, NAME_LENGTH, Origin, OriginKey, PodEntry};

/// Reads and writes one after the other, in the machine's byte order.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.0 = tail;
                *head
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_ne_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }

    fn address(&mut self) -> Address {
        Address { ip: self.take(), port: self.u16(), pad: self.take() }
    }
}

/// Puts the parts one behind the other; they have to fill the whole.
fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut whole = [0; N];
    let mut rest = whole.as_mut_slice();
    for part in parts {
        let Some((head, tail)) = rest.split_at_mut_checked(part.len()) else { break };
        head.copy_from_slice(part);
        rest = tail;
    }
    whole
}

pub(crate) type AddressBytes = [u8; size_of::<Address>()];
pub(crate) type OriginKeyBytes = [u8; size_of::<OriginKey>()];
pub(crate) type OriginBytes = [u8; size_of::<Origin>()];
pub(crate) type DnsKeyBytes = [u8; size_of::<DnsKey>()];
pub(crate) type DnsPortsBytes = [u8; size_of::<DnsPorts>()];
pub(crate) type PodBytes = [u8; size_of::<PodEntry>()];

fn from_address(address: &Address) -> AddressBytes {
    joined(&[&address.ip, &address.port.to_ne_bytes(), &address.pad])
}

pub(crate) fn to_address(bytes: &AddressBytes) -> Address {
    Cursor(bytes).address()
}

pub(crate) fn from_origin_key(key: &OriginKey) -> OriginKeyBytes {
    joined(&[&key.netns.to_ne_bytes(), &from_address(&key.source)])
}

pub(crate) fn to_origin(bytes: &OriginBytes) -> Origin {
    let mut cursor = Cursor(bytes);
    Origin { address: cursor.address(), netns: cursor.u64(), cgroup: cursor.u64(), at: cursor.u64() }
}

pub(crate) fn from_dns_key(key: &DnsKey) -> DnsKeyBytes {
    joined(&[
        &key.netns.to_ne_bytes(),
        &from_address(&key.source),
        &key.server.to_ne_bytes(),
        &key.pad.to_ne_bytes(),
    ])
}

pub(crate) fn from_dns_ports(ports: &DnsPorts) -> DnsPortsBytes {
    let bytes = |ports: [u16; abi::DNS_SERVERS]| ports.map(u16::to_ne_bytes);
    joined(&[bytes(ports.v4).as_flattened(), bytes(ports.v6).as_flattened()])
}

pub(crate) fn from_pod(pod: &PodEntry) -> PodBytes {
    joined(&[
        &pod.netns_cookie.to_ne_bytes(),
        &pod.netns_inode.to_ne_bytes(),
        &pod.cgroup.to_ne_bytes(),
        &pod.flags.to_ne_bytes(),
        &pod.name_length.to_ne_bytes(),
        &pod.name,
    ])
}

pub(crate) fn to_pod(bytes: &PodBytes) -> PodEntry {
    let mut cursor = Cursor(bytes);
    PodEntry {
        netns_cookie: cursor.u64(),
        netns_inode: cursor.u64(),
        cgroup: cursor.u64(),
        flags: cursor.u32(),
        name_length: cursor.u32(),
        name: cursor.take(),
    }
}

/// The name, cut where a character ends, and its length.
pub(crate) fn name_bytes(name: &str) -> ([u8; NAME_LENGTH], u32) {
    let end = (0..=name.len().min(NAME_LENGTH)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    let cut = name.get(..end).unwrap_or_default();
    (joined(&[cut.as_bytes()]), u32::try_from(cut.len()).unwrap_or(0))
}

/// The name of an entry; what is not UTF-8 is replaced.
pub(crate) fn name_of(pod: &PodEntry) -> String {
    let length = (pod.name_length as usize).min(NAME_LENGTH);
    String::from_utf8_lossy(pod.name.get(..length).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{mem::offset_of, net::SocketAddr};

    use super::*;

    /// The bytes at the offset where the compiler puts a field are that field's.
    #[test]
    fn bytes_lie_where_the_compiler_puts_the_fields() {
        let source = Address::from("10.1.2.3:4567".parse::<SocketAddr>().unwrap());
        let key = from_origin_key(&OriginKey { netns: 0x0102_0304_0506_0708, source });
        assert_eq!(key[offset_of!(OriginKey, netns)..][..8], 0x0102_0304_0506_0708u64.to_ne_bytes());
        assert_eq!(key[offset_of!(OriginKey, source)..][..16], source.ip);
        assert_eq!(key[offset_of!(OriginKey, source) + 16..][..2], 4567u16.to_ne_bytes());

        let key = from_dns_key(&DnsKey { netns: 7, source, server: 3, pad: 0 });
        assert_eq!(key[offset_of!(DnsKey, server)..][..4], 3u32.to_ne_bytes());

        let ports = from_dns_ports(&DnsPorts { v4: [1, 2, 3, 4], v6: [5, 6, 7, 8] });
        assert_eq!(ports[offset_of!(DnsPorts, v6)..][..2], 5u16.to_ne_bytes());
        assert_eq!(ports[14..], 8u16.to_ne_bytes());
    }

    #[test]
    fn an_origin_is_read_field_by_field() {
        let address = Address::from("[fd00::2]:443".parse::<SocketAddr>().unwrap());
        let mut bytes = [0; size_of::<Origin>()];
        bytes[..24].copy_from_slice(&from_address(&address));
        bytes[offset_of!(Origin, netns)..][..8].copy_from_slice(&5u64.to_ne_bytes());
        bytes[offset_of!(Origin, cgroup)..][..8].copy_from_slice(&6u64.to_ne_bytes());
        bytes[offset_of!(Origin, at)..][..8].copy_from_slice(&7u64.to_ne_bytes());
        assert_eq!(to_origin(&bytes), Origin { address, netns: 5, cgroup: 6, at: 7 });
    }

    #[test]
    fn a_pod_goes_there_and_back_and_its_name_is_cut_between_characters() {
        let long = format!("{}é", "x".repeat(NAME_LENGTH - 1));
        let (name, name_length) = name_bytes(&long);
        let pod = PodEntry { netns_cookie: 1, netns_inode: 2, cgroup: 3, flags: 4, name_length, name };
        assert_eq!(to_pod(&from_pod(&pod)), pod);
        assert_eq!(name_of(&pod), "x".repeat(NAME_LENGTH - 1));
        let hostile = PodEntry { name_length: u32::MAX, name: [0xff; NAME_LENGTH], ..pod };
        assert_eq!(name_of(&hostile).chars().count(), NAME_LENGTH);
    }
}
