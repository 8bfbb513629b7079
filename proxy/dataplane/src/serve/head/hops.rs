//! Hop-by-hop headers end here, before anything is judged or added, so that a caller cannot make us
//! drop what we set (`Connection: x-forwarded-for`). (RFC 9110 §7.6.1.)

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};

use super::HeadError;

/// Header names that `Connection` may not list: without them the message is another one.
const END_TO_END: [HeaderName; 5] =
    [header::HOST, header::CONTENT_LENGTH, header::AUTHORIZATION, header::COOKIE, header::CONTENT_TYPE];

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Whether a header speaks of one connection only.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    name == header::CONNECTION
        || name == header::TRANSFER_ENCODING
        || name == header::UPGRADE
        || name == header::TE
        || name == KEEP_ALIVE
        || name == PROXY_CONNECTION
}

/// Removes them, those that `Connection` lists among them. Gives the upgrade asked for, if it is one
/// that we carry (`websocket`); others are ignored, as RFC 9110 §7.8 lets a server do.
pub(super) fn remove(
    headers: &mut HeaderMap,
    method: &Method,
    version: Version,
) -> Result<Option<String>, HeadError> {
    if version == Version::HTTP_2 {
        return check_http2(headers).map(|()| None);
    }
    let trailers = headers.get_all(header::TE).iter().any(takes_trailers);
    let upgrade = match headers.get(header::CONNECTION) {
        None => None,
        Some(_) => remove_listed(headers, method)?,
    };
    for name in [header::TRANSFER_ENCODING, header::UPGRADE, header::TE] {
        headers.remove(name);
    }
    headers.remove(&KEEP_ALIVE);
    headers.remove(&PROXY_CONNECTION);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(upgrade)
}

fn remove_listed(headers: &mut HeaderMap, method: &Method) -> Result<Option<String>, HeadError> {
    let mut listed: Vec<HeaderName> = Vec::new();
    let mut upgrades = false;
    for value in headers.get_all(header::CONNECTION) {
        let tokens = value.to_str().map_err(|_| HeadError::Nominated)?;
        for token in tokens.split(',').map(str::trim).filter(|token| !token.is_empty()) {
            if token.eq_ignore_ascii_case("upgrade") {
                upgrades = true;
            } else if !token.eq_ignore_ascii_case("close") && !token.eq_ignore_ascii_case("keep-alive") {
                let name = HeaderName::from_bytes(token.as_bytes()).map_err(|_| HeadError::Nominated)?;
                if END_TO_END.contains(&name) {
                    return Err(HeadError::Nominated);
                }
                listed.push(name);
            }
        }
    }
    let websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    let carried = upgrades
        && method == Method::GET
        && headers.get(header::UPGRADE).is_some_and(websocket)
        && headers.get_all(header::UPGRADE).iter().nth(1).is_none();
    headers.remove(header::CONNECTION);
    for name in listed {
        headers.remove(name);
    }
    Ok(carried.then(|| "websocket".to_owned()))
}

fn takes_trailers(value: &HeaderValue) -> bool {
    value
        .to_str()
        .is_ok_and(|text| text.split(',').any(|token| token.trim().eq_ignore_ascii_case("trailers")))
}

/// HTTP/2 has no connection-specific headers; `te` may say `trailers`. (RFC 9113 §8.2.2.)
fn check_http2(headers: &HeaderMap) -> Result<(), HeadError> {
    let specific = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
    let te_fine = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"trailers");
    if specific.iter().any(|name| headers.contains_key(name))
        || headers.contains_key(&KEEP_ALIVE)
        || headers.contains_key(&PROXY_CONNECTION)
        || !headers.get_all(header::TE).iter().all(te_fine)
    {
        return Err(HeadError::ConnectionSpecific);
    }
    Ok(())
}
