//! An address and port, the same bytes for both families.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An IP address with a port. IPv4 always stands as v4-mapped (`::ffff:a.b.c.d`), so that equal
/// addresses have equal bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// In network order.
    pub ip: [u8; 16],
    /// In host order.
    pub port: u16,
    /// Zero: the bytes of this struct are map keys.
    pub pad: [u8; 6],
}

const _: () = assert!(size_of::<Address>() == 24);

impl Address {
    /// From the kernel's four words, each in network order as it lies in memory.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4], port: u16) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (words[0].to_ne_bytes(), words[1].to_ne_bytes());
        let ([i, j, k, l], [m, n, o, p]) = (words[2].to_ne_bytes(), words[3].to_ne_bytes());
        Self { ip: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p], port, pad: [0; 6] }
    }

    /// From the kernel's IPv4 address, in network order as it lies in memory.
    #[inline(always)]
    pub const fn from_v4(word: u32, port: u16) -> Self {
        Self::from_words([0, 0, MAPPED, word], port)
    }

    /// The four words, each in network order as it lies in memory.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.ip;
        [
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ]
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        is_mapped(&self.words())
    }

    /// As the standard library has it; v4-mapped becomes IPv4.
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.ip).to_canonical(), self.port)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { ip: ip.octets(), port: address.port(), pad: [0; 6] }
    }
}

impl From<Address> for SocketAddr {
    fn from(address: Address) -> Self {
        address.socket_addr()
    }
}

/// The third word of a v4-mapped address, as it lies in memory.
pub(crate) const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// Whether the four words, in network order as they lie in memory, are a v4-mapped address.
#[inline(always)]
pub const fn is_mapped(words: &[u32; 4]) -> bool {
    words[0] == 0 && words[1] == 0 && words[2] == MAPPED
}

/// Whether an IPv4 address, in network order as it lies in memory, never leaves the host:
/// 127.0.0.0/8, and 0.0.0.0, which `connect` takes for it.
#[inline(always)]
pub const fn is_loopback_v4(word: u32) -> bool {
    let [first, second, third, fourth] = word.to_ne_bytes();
    first == Ipv4Addr::LOCALHOST.octets()[0] || (first | second | third | fourth) == 0
}

/// Whether an IPv6 address never leaves the host: `::1`, and `::`, which `connect` takes for it;
/// v4-mapped ones as their IPv4 address.
#[inline(always)]
pub const fn is_loopback_v6(words: &[u32; 4]) -> bool {
    if is_mapped(words) {
        return is_loopback_v4(words[3]);
    }
    words[0] == 0 && words[1] == 0 && words[2] == 0 && (words[3] == 0 || words[3] == 1u32.to_be())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use core::net::SocketAddr;

    use super::{Address, is_loopback_v4, is_loopback_v6};

    fn word(a: u8, b: u8, c: u8, d: u8) -> u32 {
        u32::from_ne_bytes([a, b, c, d])
    }

    #[test]
    fn both_families_go_there_and_back() {
        for text in ["10.77.1.2:443", "127.0.0.1:15001", "[fd00::2]:8080", "[::1]:53"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Address::from(address).socket_addr(), address);
        }
        let v4: SocketAddr = "10.0.0.1:1".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:1".parse().unwrap();
        assert_eq!(Address::from(v4), Address::from(mapped));
        assert_eq!(Address::from(mapped).socket_addr(), v4);
    }

    #[test]
    fn words_are_the_bytes_as_they_lie() {
        let address = Address::from_v4(word(10, 77, 1, 2), 80);
        assert_eq!(address, Address::from("10.77.1.2:80".parse::<SocketAddr>().unwrap()));
        assert!(address.is_v4());
        assert_eq!(Address::from_words(address.words(), 80), address);
        assert!(!Address::from("[fd00::2]:80".parse::<SocketAddr>().unwrap()).is_v4());
    }

    #[test]
    fn loopback_is_what_never_leaves_the_host() {
        assert!(is_loopback_v4(word(127, 0, 0, 1)) && is_loopback_v4(word(127, 255, 1, 2)));
        assert!(is_loopback_v4(0));
        assert!(!is_loopback_v4(word(0, 0, 0, 1)) && !is_loopback_v4(word(126, 0, 0, 127)));
        let words = |text: &str| Address::from(SocketAddr::new(text.parse().unwrap(), 0)).words();
        for text in ["::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"] {
            assert!(is_loopback_v6(&words(text)), "{text}");
        }
        for text in ["::2", "fd00::1", "::ffff:10.0.0.1", "::127.0.0.1", "1::", "fe80::1"] {
            assert!(!is_loopback_v6(&words(text)), "{text}");
        }
    }
}
