//! Headers that come several times and are one.
//!
//! Policies match repeated headers one by one, but Envoy keeps some names as one value:
//! what is matched and forwarded for those is the joined text. Which ones was found by sending each
//! twice through Envoy 1.40. Without this, `accept: a` beside `accept: b` would satisfy a rule that
//! asks for `a` alone.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::HeadError;

/// Joined by a comma; empty values add nothing.
static JOINED: [HeaderName; 27] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCESS_CONTROL_REQUEST_HEADERS,
    header::ACCESS_CONTROL_REQUEST_METHOD,
    HeaderName::from_static("access-control-request-private-network"),
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    HeaderName::from_static("cdn-loop"),
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("grpc-timeout"),
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::ORIGIN,
    header::PRAGMA,
    header::REFERER,
    header::USER_AGENT,
    header::VIA,
    HeaderName::from_static("x-client-trace-id"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-request-id"),
];

/// Joins what is one header.
///
/// # Errors
/// [`HeadError::Cookie`]: crumbs that make no header.
pub(super) fn join(headers: &mut HeaderMap, version: Version) -> Result<(), HeadError> {
    // HTTP/2 may cut a cookie header into crumbs (RFC 9113 §8.2.3). Empty ones are none, as in Envoy:
    // a value that a rule denies would else hide behind one.
    if version == Version::HTTP_2 && headers.contains_key(header::COOKIE) {
        join_one(headers, &header::COOKIE, b"; ", |crumb| !crumb.is_empty())?;
        if headers.get(header::COOKIE).is_some_and(HeaderValue::is_empty) {
            headers.remove(header::COOKIE);
        }
    }
    if headers.len() == headers.keys_len() {
        return Ok(());
    }
    for name in &JOINED {
        join_one(headers, name, b",", |value| !value.is_empty())?;
    }
    Ok(())
}

fn join_one(
    headers: &mut HeaderMap,
    name: &HeaderName,
    between: &[u8],
    counts: impl Fn(&HeaderValue) -> bool,
) -> Result<(), HeadError> {
    if headers.get_all(name).iter().nth(1).is_none() {
        return Ok(());
    }
    let values = headers.get_all(name).iter().filter(|value| counts(value));
    let values: Vec<&[u8]> = values.map(HeaderValue::as_bytes).collect();
    let whole = HeaderValue::from_bytes(&values.join(between)).map_err(|_| HeadError::Cookie)?;
    headers.insert(name, whole);
    Ok(())
}
