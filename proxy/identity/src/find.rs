//! Where a rule's tokens stand in a request, found as Envoy finds them
//! (source/extensions/filters/http/jwt_authn/extractor.cc, and a running Envoy 1.40).

use std::{borrow::Cow, cmp::Ordering};

use http::{HeaderMap, HeaderName, header};
use percent_encoding::percent_decode_str;
use policy::istio::TokenPlace;

use crate::TokenBearer;

/// A token and the place it stood in.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) place: &'a TokenPlace,
    pub(crate) text: Cow<'a, [u8]>,
}

/// All tokens of a rule, in the order in which they are checked. `spoofable`: headers that are
/// taken off every request before anything is read.
pub(crate) fn find<'a>(
    places: &'a [TokenPlace],
    request: TokenBearer<'a>,
    spoofable: &dyn Fn(&HeaderName) -> bool,
) -> Vec<Found<'a>> {
    let mut found = Vec::new();
    for place in places {
        let text = match place {
            TokenPlace::Header { name, .. } if spoofable(name) => None,
            TokenPlace::Header { name, prefix } => in_header(request.headers, name, prefix),
            TokenPlace::Parameter(name) => in_query(request.target.query(), name),
            TokenPlace::Cookie(name) => in_cookies(request.headers, name),
        };
        found.extend(text.map(|text| Found { place, text }));
    }
    if found.len() > 1 {
        // Envoy keeps places in sorted maps and checks from the last to the first.
        found.sort_by(|a, b| order(b.place, a.place));
        found.dedup_by(|a, b| a.place == b.place);
    }
    found
}

/// The value of a header (repeated ones joined by a comma), and what follows the prefix in it,
/// wherever that stands; without the prefix there is no token.
fn in_header<'a>(headers: &'a HeaderMap, name: &HeaderName, prefix: &str) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.as_bytes();
    let Some(second) = values.next() else {
        return after_prefix(first, prefix.as_bytes()).map(Cow::Borrowed);
    };
    let mut joined = [first, b",", second.as_bytes()].concat();
    for value in values {
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    after_prefix(&joined, prefix.as_bytes()).map(|token| Cow::Owned(token.to_vec()))
}

/// From the first character behind the prefix that can stand in a token; where there is none, the
/// value itself, which then is no token and is refused as such.
fn after_prefix<'a>(value: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    if prefix.is_empty() {
        return Some(value);
    }
    let at = if value.starts_with(prefix) {
        0
    } else {
        value.windows(prefix.len()).position(|window| window == prefix)?
    };
    let behind = value.get(at + prefix.len()..)?;
    let start =
        behind.iter().position(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    Some(start.and_then(|start| behind.get(start..)).unwrap_or(value))
}

/// The first copy of a query parameter.
fn in_query<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, [u8]>> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let same = key == name || Cow::from(percent_decode_str(key)) == name.as_bytes();
        same.then(|| Cow::from(percent_decode_str(value)))
    })
}

/// The first copy of a cookie, unquoted.
fn in_cookies<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, [u8]>> {
    let lines = headers.get_all(header::COOKIE).iter().map(http::HeaderValue::as_bytes);
    lines.flat_map(|line| line.split(|byte| *byte == b';')).find_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (pair.get(..at)?, pair.get(at + 1..)?);
        let value = value.trim_ascii();
        let bare = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        (key.trim_ascii() == name.as_bytes()).then(|| Cow::Borrowed(bare.unwrap_or(value)))
    })
}

fn order(a: &TokenPlace, b: &TokenPlace) -> Ordering {
    let kind = |place: &TokenPlace| match place {
        TokenPlace::Header { .. } => 0,
        TokenPlace::Parameter(_) => 1,
        TokenPlace::Cookie(_) => 2,
    };
    kind(a).cmp(&kind(b)).then_with(|| match (a, b) {
        (TokenPlace::Header { name, prefix }, TokenPlace::Header { name: other, prefix: other_prefix }) => {
            let joined = |name: &HeaderName, prefix: &str| format!("{}{prefix}", name.as_str());
            joined(name, prefix).cmp(&joined(other, other_prefix))
        }
        (TokenPlace::Parameter(a), TokenPlace::Parameter(b))
        | (TokenPlace::Cookie(a), TokenPlace::Cookie(b)) => a.cmp(b),
        _ => Ordering::Equal,
    })
}

/// A place in words, for explanations.
pub(crate) fn describe(place: &TokenPlace) -> String {
    match place {
        TokenPlace::Header { name, prefix } if prefix.is_empty() => format!("header {name}"),
        TokenPlace::Header { name, prefix } => format!("header {name} after {prefix:?}"),
        TokenPlace::Parameter(name) => format!("query parameter {name}"),
        TokenPlace::Cookie(name) => format!("cookie {name}"),
    }
}
