//! One request has one host.

use std::net::Ipv6Addr;

use http::{HeaderMap, Uri, Version, header};

use super::HeadError;

/// The one authority of a request, as sent.
///
/// # Errors
/// [`HeadError`]: missing, several, invalid, or disagreeing with the target.
pub(super) fn agree(
    uri: &Uri,
    headers: &HeaderMap,
    version: Version,
    tls: bool,
) -> Result<String, HeadError> {
    let host = single_host(headers)?;
    let target = uri.authority().map(http::uri::Authority::as_str);
    // `:scheme` without a value: there is no such URI (RFC 9113 §8.3.1, RFC 3986 §3.1).
    if uri.scheme_str() == Some("") {
        return Err(HeadError::BadHost);
    }
    let chosen = match (version == Version::HTTP_2, host, target) {
        (_, None, None) | (false, None, Some(_)) => return Err(HeadError::MissingHost),
        (_, Some(host), None) => host,
        (true, None, Some(target)) => target,
        (h2, Some(host), Some(target)) => {
            check(target)?;
            // HTTP/2 names a scheme in every request, and TLS may have ended before us.
            let scheme = if h2 { uri.scheme_str() } else { Some(scheme_of(tls)) };
            if uri.scheme_str() != scheme || !same(host, target, tls) {
                return Err(HeadError::HostMismatch);
            }
            host
        }
    };
    check(chosen)?;
    Ok(chosen.to_owned())
}

fn scheme_of(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

fn single_host(headers: &HeaderMap) -> Result<Option<&str>, HeadError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let Some(host) = hosts.next() else { return Ok(None) };
    if hosts.next().is_some() {
        return Err(HeadError::SeveralHosts);
    }
    if host.is_empty() {
        return Err(HeadError::MissingHost);
    }
    host.to_str().map(Some).map_err(|_| HeadError::BadHost)
}

/// Equal but for letter case and a default port that is spelt out.
fn same(a: &str, b: &str, tls: bool) -> bool {
    let default = if tls { ":443" } else { ":80" };
    let bare = |text: &str| text.strip_suffix(default).map_or(text.len(), str::len);
    a.get(..bare(a)).zip(b.get(..bare(b))).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// Whether text is `host[:port]`: a name, an IPv4 address or a bracketed IPv6 address; no user
/// information, no empty port, nothing that a list of two hosts would need.
///
/// # Errors
/// [`HeadError::BadHost`].
pub(super) fn check(authority: &str) -> Result<(), HeadError> {
    let (host, port) = split_port(authority).ok_or(HeadError::BadHost)?;
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let host_fine = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(named),
    };
    let port_fine =
        port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    if host_fine && port_fine { Ok(()) } else { Err(HeadError::BadHost) }
}

fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let end = authority.find(']')?;
        let (host, rest) = authority.split_at_checked(end + 1)?;
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    Some(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}
