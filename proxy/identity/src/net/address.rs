//! Addresses that no manifest may make us ask: link-local and cloud metadata services, and what is
//! no host at all (CVE-2026-41413). Checked on the address that is connected to, after resolution,
//! so that neither names, nor odd spellings of addresses, nor rebinding help.
//! Loopback and private networks are allowed: identity providers live there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services outside the link-local ranges.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba Cloud
    Ipv4Addr::new(168, 63, 129, 16),   // Azure's host agent
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle Cloud (classic)
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), // AWS
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),  // Google Cloud
];

/// Names of metadata services, refused before resolution for a clearer message.
const METADATA_NAMES: [&str; 5] =
    ["metadata.google.internal", "metadata.goog", "metadata", "instance-data", "instance-data.ec2.internal"];

/// Whether a host name is that of a metadata service.
pub(crate) fn is_refused_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    METADATA_NAMES.iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// Whether an address must not be connected to.
pub(crate) fn is_refused(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_refused_v4(v4),
        IpAddr::V6(v6) => is_refused_v6(v6),
    }
}

fn is_refused_v4(address: Ipv4Addr) -> bool {
    address.octets().first() == Some(&0)
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA_V4.contains(&address)
}

fn is_refused_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [a, b, c, d, e, f, g, h] = segments;
    // IPv4 in IPv6's clothes: mapped, compatible, NAT64 (RFC 6052), 6to4 (RFC 3056), ISATAP.
    let last = (g, h);
    let embedded = match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0 | 0xffff) | (0, 0, 0, 0, 0xffff, 0) | (0x64, 0xff9b, ..) => {
            (segments != [0, 0, 0, 0, 0, 0, 0, 1]).then_some(last)
        }
        (0x2002, ..) => Some((b, c)),
        (.., 0 | 0x200, 0x5efe) => Some(last),
        _ => None,
    };
    let embedded = embedded
        .is_some_and(|(high, low)| is_refused_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))));
    embedded
        || address.is_unspecified()
        || address.is_multicast()
        || (a & 0xffc0) == 0xfe80
        || METADATA_V6.contains(&address)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn cve_2026_41413_refuses_link_local_and_metadata_in_every_form() {
        for text in [
            "169.254.169.254",
            "169.254.0.1",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "fe80::5efe:169.254.169.254",
            "2001:db8::5efe:169.254.169.254",
            "::ffff:100.100.100.200",
            "::ffff:0.0.0.0",
        ] {
            assert!(is_refused(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn allows_loopback_private_and_public() {
        for text in [
            "127.0.0.1",
            "::1",
            "10.0.0.7",
            "172.16.0.1",
            "192.168.1.1",
            "203.0.113.10",
            "100.64.0.1",
            "fd00::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.7",
        ] {
            assert!(!is_refused(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn refuses_names_of_metadata_services() {
        for name in ["metadata.google.internal", "Metadata.Google.Internal.", "metadata", "instance-data"] {
            assert!(is_refused_name(name), "{name}");
        }
        assert!(!is_refused_name("metadata.example"));
    }
}
