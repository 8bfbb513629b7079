//! Who the original client is, and the headers that say so, as Istio sets Envoy up: a gateway uses
//! the connection's address and appends it (`use_remote_address`), a workload's own entry believes
//! the last `x-forwarded-for` entry.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{accept::Connection, dice::Dice};

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// Our id of a request, as Envoy names it.
pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest `x-request-id` taken over from a caller, in bytes.
const REQUEST_ID_BYTES: usize = 128;

/// At which edge of the mesh a head is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The ingress gateway, behind so many trusted proxies (`numTrustedProxies`).
    Gateway { trusted_proxies: u32 },
    /// A workload's own entry.
    Workload,
}

/// Sets the headers; gives the original client (`remote.ip`).
pub(super) fn apply(headers: &mut HeaderMap, connection: &Connection, edge: Edge, dice: &Dice) -> IpAddr {
    // No hop before us vouches for it, we do (Envoy's SANITIZE_SET; Istio's sidecars append to the caller's).
    match &connection.client_certificate {
        Some(value) => drop(headers.insert(&CLIENT_CERT, value.clone())),
        None => drop(headers.remove(&CLIENT_CERT)),
    }
    remove_look_alikes(headers);
    let peer = connection.peer.ip().to_canonical();
    let scheme = if connection.tls { "https" } else { "http" };
    match edge {
        Edge::Gateway { trusted_proxies } => {
            remove_internal(headers);
            let client = nth_from_last(headers, trusted_proxies).unwrap_or(peer);
            append_peer(headers, &connection.peer_text);
            if trusted_proxies == 0 || !headers.contains_key(&FORWARDED_PROTO) {
                headers.insert(&FORWARDED_PROTO, HeaderValue::from_static(scheme));
            }
            set_request_id(headers, dice);
            client
        }
        Edge::Workload => {
            if connection.identity.is_none() {
                remove_internal(headers);
            }
            if !headers.contains_key(&FORWARDED_PROTO) {
                headers.insert(&FORWARDED_PROTO, HeaderValue::from_static(scheme));
            }
            if !headers.get(&REQUEST_ID).is_some_and(is_usable_id) {
                set_request_id(headers, dice);
            }
            nth_from_last(headers, 1).unwrap_or(peer)
        }
    }
}

/// CGI and its heirs (RFC 3875, section 4.1.18) read `_` and `-` in a name as the same: `x_forwarded_client_cert`
/// would stand beside ours, or pass for it. Envoy lets it through where Istio does not say otherwise.
fn remove_look_alikes(headers: &mut HeaderMap) {
    let ours = CLIENT_CERT.as_str().as_bytes();
    let folded = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let alike = |name: &HeaderName| {
        let name = name.as_str().as_bytes();
        name.len() == ours.len() && name != ours && name.iter().zip(ours).all(|(a, b)| folded(*a) == *b)
    };
    while let Some(name) = headers.keys().find(|name| alike(name)).cloned() {
        headers.remove(name);
    }
}

/// `x-envoy-*` are said between proxies; a caller from outside has no business saying them.
fn remove_internal(headers: &mut HeaderMap) {
    let internal = |name: &HeaderName| name.as_str().starts_with("x-envoy-");
    if !headers.keys().any(internal) {
        return;
    }
    let names: Vec<HeaderName> = headers.keys().filter(|name| internal(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// The `n`-th entry from the right, counted from 1; `None` where it is missing or not an address.
fn nth_from_last(headers: &HeaderMap, n: u32) -> Option<IpAddr> {
    let mut left = n.checked_sub(1)?;
    for value in headers.get_all(&FORWARDED_FOR).iter().rev() {
        // Bytes of another entry do not make this one unreadable: the direct peer would then pass for the client.
        for entry in value.as_bytes().rsplit(|byte| *byte == b',') {
            if left == 0 {
                return std::str::from_utf8(entry.trim_ascii()).ok()?.parse().ok();
            }
            left -= 1;
        }
    }
    None
}

fn append_peer(headers: &mut HeaderMap, peer: &HeaderValue) {
    if !headers.contains_key(&FORWARDED_FOR) {
        headers.insert(&FORWARDED_FOR, peer.clone());
        return;
    }
    let mut whole: Vec<u8> = Vec::with_capacity(64);
    for value in headers.get_all(&FORWARDED_FOR) {
        whole.extend_from_slice(value.as_bytes());
        whole.push(b',');
    }
    whole.extend_from_slice(peer.as_bytes());
    // Bytes of header values make a header value.
    if let Ok(value) = HeaderValue::from_bytes(&whole) {
        headers.insert(&FORWARDED_FOR, value);
    }
}

fn is_usable_id(value: &HeaderValue) -> bool {
    let fits = !value.is_empty() && value.len() <= REQUEST_ID_BYTES;
    fits && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn set_request_id(headers: &mut HeaderMap, dice: &Dice) {
    if let Ok(value) = HeaderValue::from_str(&dice.id()) {
        headers.insert(&REQUEST_ID, value);
    }
}
