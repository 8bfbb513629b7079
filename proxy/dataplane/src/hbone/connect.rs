//! What a CONNECT asks for, checked before anything is done for it (RFC 9113 §8.5; ztunnel's checks, and
//! stricter: one spelling of an address, and no host names).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use h2::ext::Protocol;
use http::{Method, header, request::Parts};

/// Why a CONNECT is answered 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// Another method.
    Method,
    /// Extended CONNECT (RFC 8441), or a scheme or path.
    Extended,
    /// The authority is not an address and a port, in their one spelling.
    Authority,
    /// `Host` says something else.
    Host,
    /// It announces a body.
    Body,
    /// The address is not the workload's.
    NotTheWorkloads,
    /// The port is the mesh's own, or a listener's of ours.
    OwnPort,
}

impl Bad {
    /// Stable name for records and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Method => "hbone_method",
            Self::Extended => "hbone_extended_connect",
            Self::Authority => "hbone_authority",
            Self::Host => "hbone_host",
            Self::Body => "hbone_body",
            Self::NotTheWorkloads => "hbone_not_the_workloads_address",
            Self::OwnPort => "hbone_own_port",
        }
    }
}

/// The address that a request asks to be led to.
///
/// # Errors
/// [`Bad`]
pub(super) fn destination(head: &Parts) -> Result<SocketAddr, Bad> {
    if head.method != Method::CONNECT {
        return Err(Bad::Method);
    }
    let uri = &head.uri;
    let extended = head.extensions.get::<Protocol>().is_some();
    if extended || uri.scheme().is_some() || uri.path_and_query().is_some() {
        return Err(Bad::Extended);
    }
    let authority = uri.authority().ok_or(Bad::Authority)?.as_str();
    let address = address(authority).ok_or(Bad::Authority)?;
    if head.headers.get_all(header::HOST).iter().any(|host| host.as_bytes() != authority.as_bytes()) {
        return Err(Bad::Host);
    }
    // What follows is the tunnel's, however long.
    if head.headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Bad::Body);
    }
    Ok(address)
}

/// `IP:port`; an IPv6 address in brackets, without a zone, and none that is IPv4's in disguise.
pub(super) fn address(authority: &str) -> Option<SocketAddr> {
    let (host, port) = authority.rsplit_once(':')?;
    let plain = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = plain.then(|| port.parse::<u16>().ok()).flatten()?;
    let ip = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => {
            let ip = host.parse::<Ipv6Addr>().ok()?;
            (ip.to_ipv4_mapped().is_none()).then_some(IpAddr::V6(ip))?
        }
        None => IpAddr::V4(host.parse::<Ipv4Addr>().ok()?),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn an_address_has_one_spelling() {
        for (authority, want) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("10.0.0.1:65535", "10.0.0.1:65535"),
            ("[2001:db8::1]:5432", "[2001:db8::1]:5432"),
            ("[2001:DB8:0:0:0:0:0:1]:5432", "[2001:db8::1]:5432"),
        ] {
            assert_eq!(address(authority), Some(want.parse().unwrap()), "{authority}");
        }
        for authority in [
            "",
            "10.0.0.1",
            "10.0.0.1:",
            ":80",
            "10.0.0.1:0",
            "10.0.0.1:00080",
            "10.0.0.1:080",
            "10.0.0.1:+80",
            "10.0.0.1:-1",
            "10.0.0.1:65536",
            "10.0.0.1:4294967376",
            "10.0.0.1:80 ",
            " 10.0.0.1:80",
            "10.0.0.1:80:80",
            "010.0.0.1:80",
            "0x0a.0.0.1:80",
            "10.1:80",
            "167772161:80",
            "10.0.0.1.:80",
            "10.0.0.256:80",
            "user@10.0.0.1:80",
            "user:pw@10.0.0.1:80",
            "localhost:80",
            "fhir-service.datamesh.svc.cluster.local:8080",
            "2001:db8::1:80",
            "[2001:db8::1]",
            "[2001:db8::1]:",
            "[2001:db8::1]80",
            "[2001:db8::1%eth0]:80",
            "[fe80::1%251]:80",
            "[::ffff:10.0.0.1]:80",
            "[::ffff:a00:1]:80",
            "[10.0.0.1]:80",
            "[[2001:db8::1]]:80",
            "2001:db8::1]:80",
            "１０.0.0.1:80",
            "10.0.0.1:８０",
            "%31%30.0.0.1:80",
        ] {
            assert_eq!(address(authority), None, "{authority}");
        }
    }

    #[test]
    fn only_a_plain_connect_is_one() {
        let of = |request: http::request::Builder| destination(&request.body(()).unwrap().into_parts().0);
        let connect = || Request::connect("10.0.0.1:80");
        assert_eq!(of(connect()), Ok("10.0.0.1:80".parse().unwrap()));
        assert_eq!(of(connect().header("host", "10.0.0.1:80")), Ok("10.0.0.1:80".parse().unwrap()));
        assert_eq!(of(connect().header("host", "10.0.0.2:80")), Err(Bad::Host));
        assert_eq!(of(connect().header("host", "10.0.0.1:80").header("host", "x")), Err(Bad::Host));
        for length in ["0", "5", "x"] {
            assert_eq!(of(connect().header("content-length", length)), Err(Bad::Body));
        }
        assert_eq!(of(connect().extension(Protocol::from_static("websocket"))), Err(Bad::Extended));
        let absolute = || Request::builder().method("CONNECT").uri("https://10.0.0.1:80/");
        assert_eq!(of(absolute()), Err(Bad::Extended));
        for method in ["GET", "POST", "OPTIONS", "connect", "CONNECTED"] {
            assert_eq!(of(absolute().method(method)), Err(Bad::Method), "{method}");
        }
        assert_eq!(of(Request::builder().method("CONNECT").uri("/")), Err(Bad::Extended));
    }
}
