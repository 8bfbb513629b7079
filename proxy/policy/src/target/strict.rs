//! What a strict workload refuses before anything is matched.
//!
//! | in the path | why |
//! |---|---|
//! | `;`, `%3b` | Tomcat cuts `;x=y` after the policy matched (CVE-2026-73553) |
//! | `%2f`, `%5c`, `\` | a separator for some servers, a character for others (CVE-2021-31920) |
//! | `%00` | ends the path for some |
//! | `%25` and two hex digits | a server that decodes twice reads something else |
//! | a malformed escape, an encoded control character, text that is not UTF-8 (overlong forms) | read differently, or split lines in logs |
//! | `.` and `..` segments, raw or encoded, where the mode is NONE | the server would resolve what the policy did not |
//!
//! Dot segments under the other modes are resolved, not refused: the server never sees them. `;` in
//! the query is data (`Patient?name=a;b`). The query parameter `_method` and the override headers
//! make some servers act on another method or path than the one judged.

use super::{Normalization, TargetError, normalize::hex_pair};

/// Headers by which some servers replace the method or the target.
pub(super) const OVERRIDES: [&str; 5] =
    ["x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"];

/// Refuses what the table above names.
pub(super) fn check_path(path: &str, mode: Normalization) -> Result<(), TargetError> {
    // One scan decides for nearly every request that there is nothing to look at.
    let suspicious = |byte: &u8| matches!(byte, b';' | b'\\' | b'%') || *byte >= 0x80;
    if path.as_bytes().iter().any(suspicious) {
        let decoded = check_bytes(path.as_bytes())?;
        if std::str::from_utf8(&decoded).is_err() {
            return Err(TargetError::NotNormalisable);
        }
        if mode == Normalization::None {
            return check_dots(&String::from_utf8_lossy(&decoded));
        }
    } else if mode == Normalization::None {
        return check_dots(path);
    }
    Ok(())
}

/// Refuses bad bytes and escapes; gives the path decoded once.
fn check_bytes(path: &[u8]) -> Result<Vec<u8>, TargetError> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b';' => return Err(TargetError::MatrixParameter),
            b'\\' => return Err(TargetError::Backslash),
            b'%' => {
                let [high, low, tail @ ..] = rest else {
                    return Err(TargetError::NotNormalisable);
                };
                rest = tail;
                decoded.push(check_escape(hex_pair(*high, *low), tail)?);
            }
            _ => decoded.push(*byte),
        }
    }
    Ok(decoded)
}

fn check_escape(byte: Option<u8>, tail: &[u8]) -> Result<u8, TargetError> {
    match byte {
        None | Some(0x01..=0x1f | 0x7f) => Err(TargetError::NotNormalisable),
        Some(0) => Err(TargetError::Nul),
        Some(b'/' | b'\\') => Err(TargetError::EncodedSlash),
        Some(b';') => Err(TargetError::MatrixParameter),
        Some(b'%') if twice(tail) => Err(TargetError::DoubleEncoding),
        Some(byte) => Ok(byte),
    }
}

/// Whether what follows a `%25` makes an escape of it, itself spelt plainly (`%252f`) or in escapes
/// (`%25%32%66`).
fn twice(tail: &[u8]) -> bool {
    let digit = |byte: u8| byte.is_ascii_hexdigit();
    unit(tail).is_some_and(|(high, rest)| digit(high) && unit(rest).is_some_and(|(low, _)| digit(low)))
}

/// The next byte, decoded once, and what follows it.
fn unit(bytes: &[u8]) -> Option<(u8, &[u8])> {
    match bytes {
        [b'%', high, low, rest @ ..] => hex_pair(*high, *low).map(|byte| (byte, rest)),
        [byte, rest @ ..] => Some((*byte, rest)),
        [] => None,
    }
}

fn check_dots(path: &str) -> Result<(), TargetError> {
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(TargetError::NotNormalisable);
    }
    Ok(())
}

/// Refuses the `_method` parameter.
pub(super) fn check_query(query: Option<&str>) -> Result<(), TargetError> {
    let overriding = |name: &[u8]| name.eq_ignore_ascii_case(b"_method");
    match query {
        // Some servers part parameters at `;` too, so both count here.
        Some(query) if query.split(['&', ';']).any(|pair| parameter_is(pair, overriding)) => {
            Err(TargetError::MethodOverride)
        }
        _ => Ok(()),
    }
}

/// Whether the name of `name=value` satisfies `is`, as written or percent-decoded.
pub(super) fn parameter_is(pair: &str, is: impl Fn(&[u8]) -> bool) -> bool {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    if is(name.as_bytes()) {
        return true;
    }
    if !name.contains(['%', '+']) {
        return false;
    }
    let spaced = name.replace('+', " ");
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(&spaced).collect();
    is(&decoded)
}
