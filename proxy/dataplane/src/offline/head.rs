//! A written request to the head that hyper would hand over.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request::Parts};

/// A request as a test writes it.
pub(super) struct Written<'a> {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) version: Version,
    pub(super) headers: Vec<(String, String)>,
    pub(super) default_host: Option<String>,
    pub(super) body: &'a Bytes,
}

/// The head, or `None` where the codec refuses it.
pub(super) fn parse(written: Written<'_>, tls: bool) -> Option<Parts> {
    let Written { method, target, version, headers, default_host, body } = written;
    let mut map = header_map(headers)?;
    if let Some(host) = default_host.filter(|_| !map.contains_key(header::HOST)) {
        map.insert(header::HOST, HeaderValue::from_str(&host).ok()?);
    }
    let framed = map.contains_key(header::CONTENT_LENGTH) || map.contains_key(header::TRANSFER_ENCODING);
    if !body.is_empty() && !framed {
        map.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let uri = if version == Version::HTTP_2 {
        http2_uri(&mut map, target, tls)?
    } else {
        Uri::from_maybe_shared(Bytes::from(target)).ok()?
    };
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::from_bytes(method.as_bytes()).ok()?;
    parts.uri = uri;
    parts.version = version;
    parts.headers = map;
    Some(parts)
}

fn header_map(headers: Vec<(String, String)>) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        // Codecs cut the white space around a value.
        let value = value.trim_matches([' ', '\t']);
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    Some(map)
}

/// HTTP/2 clients say the host as `:authority`; further Host headers stay what they are.
fn http2_uri(map: &mut HeaderMap, target: String, tls: bool) -> Option<Uri> {
    let scheme = if tls { "https" } else { "http" };
    let mut hosts: Vec<HeaderValue> = map.get_all(header::HOST).iter().cloned().collect();
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(http::uri::PathAndQuery::from_maybe_shared(Bytes::from(target)).ok()?);
    if !hosts.is_empty() {
        map.remove(header::HOST);
        let authority = hosts.remove(0);
        parts.authority = Some(http::uri::Authority::try_from(authority.as_bytes()).ok()?);
        parts.scheme = Some(http::uri::Scheme::try_from(scheme).ok()?);
    }
    for host in hosts {
        map.append(header::HOST, host);
    }
    Uri::from_parts(parts).ok()
}
