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
        check_names(headers)?;
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

/// The codec takes `"` in the name of an HTTP/2 header; no other byte that is not a token's (RFC 9110 §5.1).
/// In HTTP/1 upstream such a line would be malformed.
fn check_names(headers: &HeaderMap) -> Result<(), HeadError> {
    if headers.keys().any(|name| !is_token(name)) {
        return Err(HeadError::HeaderName);
    }
    Ok(())
}

/// Whether a name can be written as HTTP/1 has it.
pub(crate) fn is_token(name: &HeaderName) -> bool {
    memchr::memchr(b'"', name.as_str().as_bytes()).is_none()
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_header_name_that_is_no_token_is_refused() {
        let name = HeaderName::from_lowercase(b"content-le\"gth").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static("2"));
        let refused = remove(&mut headers, &Method::PUT, Version::HTTP_2);
        assert_eq!(refused, Err(HeadError::HeaderName));
    }

    #[test]
    fn the_quote_is_all_that_a_name_may_have_beside_tokens() {
        for byte in 0..=u8::MAX {
            let token =
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let name = HeaderName::from_lowercase(&[byte]);
            assert_eq!(name.is_ok_and(|name| is_token(&name)), token, "{byte:#x}");
        }
    }
}
