//! Addresses and CIDR ranges as bits.

use std::net::IpAddr;

/// An address as 128 bits, IPv4 in its mapped form (RFC 4291 section 2.5.5.2), which is one of the
/// two ways the same IPv4 peer may be written.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => u128::from(four.to_ipv6_mapped()),
        IpAddr::V6(six) => u128::from(six),
    }
}

fn is_four(bits: u128) -> bool {
    bits >> 32 == 0xffff
}

/// Whether the address lies in the range, an IP or a CIDR.
pub(super) fn within(range: &str, address: IpAddr) -> bool {
    let (network, length) = match range.split_once('/') {
        None => (range, None),
        Some((network, length)) => (network, length.parse::<u32>().ok()),
    };
    let Ok(network) = network.parse::<IpAddr>() else { return false };
    let length = match (network, length) {
        (IpAddr::V4(_), Some(length)) => length + 96,
        (_, None) => 128,
        (IpAddr::V6(_), Some(length)) => length,
    };
    let (network, address) = (bits(network), bits(address));
    // `::/0` is about IPv6 addresses, though IPv4 has a form there.
    let four = length >= 96 && is_four(network);
    if four != is_four(address) {
        return false;
    }
    let differing = network ^ address;
    length == 0 || differing >> (128 - length) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, address, wanted) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.9/29", "10.0.0.14", true),
            ("10.0.0.9/29", "10.0.0.16", false),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.0.0.1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
        ] {
            let address: IpAddr = address.parse().unwrap_or(IpAddr::from([0; 4]));
            assert_eq!(within(range, address), wanted, "{range} {address}");
        }
    }
}
