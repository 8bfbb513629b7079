//! Methods.

use http::{Method, Version};

use super::HeadError;

/// Methods that Envoy's HTTP/1 codec knows (its `BalsaParser` list, pinned on 1.40);
/// others, lower-case ones among them, are 400 there. Over HTTP/2 any token reaches the policies.
const KNOWN: [&str; 32] = [
    "ACL",
    "BIND",
    "CHECKOUT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "NOTIFY",
    "OPTIONS",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

/// Refuses what no policy should have to think of.
pub(super) fn check(method: &Method, version: Version) -> Result<(), HeadError> {
    if method == Method::CONNECT || method == Method::TRACE {
        return Err(HeadError::MethodNotAllowed);
    }
    let common = matches!(*method, Method::GET | Method::POST | Method::PUT);
    if common || version == Version::HTTP_2 || KNOWN.contains(&method.as_str()) {
        return Ok(());
    }
    Err(HeadError::Method)
}
