//! Envoy's path normalisation, step by step and in its order.
//!
//! Source: Envoy `source/common/http/path_utility.cc` and the path canonicaliser of the URL library
//! it uses; behaviour pinned on Envoy 1.40. Own code.

use std::borrow::Cow;

use super::{Normalization, TargetError};

/// The canonical path of a raw path (no query, no fragment, begins with `/`).
pub(super) fn normalize(path: &str, mode: Normalization) -> Result<String, TargetError> {
    let decoded = match mode {
        Normalization::None => return Ok(path.to_owned()),
        Normalization::DecodeAndMergeSlashes => decode_slashes(path),
        Normalization::Base | Normalization::MergeSlashes => Cow::Borrowed(path),
    };
    let stripped = strip_dot_parameters(&decoded);
    let resolved = resolve(&stripped)?;
    Ok(match mode {
        Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes => merge(resolved),
        Normalization::None | Normalization::Base => resolved,
    })
}

/// `%2f` to `/`, `%5c` to `\`; one pass, nothing else.
fn decode_slashes(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let decoded = match escape.get(..3) {
            Some("%2f" | "%2F") => Some('/'),
            Some("%5c" | "%5C") => Some('\\'),
            _ => None,
        };
        out.push(decoded.unwrap_or('%'));
        rest = escape.get(if decoded.is_some() { 3 } else { 1 }..).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// `..;x` to `..` and `.;x` to `.`, so that the next step resolves them. Other parameters stay.
fn strip_dot_parameters(path: &str) -> Cow<'_, str> {
    if !path.contains(".;") {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    for (i, segment) in path.split('/').enumerate() {
        if i > 0 {
            out.push('/');
        }
        out.push_str(if segment.starts_with("..;") {
            ".."
        } else if segment.starts_with(".;") {
            "."
        } else {
            segment
        });
    }
    Cow::Owned(out)
}

/// What becomes of a byte that stands raw in a path.
fn escaped_when_raw(byte: u8) -> bool {
    byte <= b' ' || byte >= 0x7f || matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// Escapes of these are undone (RFC 3986 unreserved, without the dot, which is special).
fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~')
}

pub(super) fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// Length of the dot at `at`: 1 for `.`, 3 for `%2e`, 0 for anything else.
fn dot_len(path: &[u8], at: usize) -> usize {
    match path.get(at..) {
        Some([b'.', ..]) => 1,
        Some([b'%', b'2', b'e' | b'E', ..]) => 3,
        _ => 0,
    }
}

enum Dot {
    /// Part of a name.
    Name,
    /// `.`: nothing; so many bytes follow the dot and are consumed with it.
    Current(usize),
    /// `..`: up one; likewise.
    Up(usize),
}

/// What a dot means that follows a slash, by what stands after it.
fn classify(path: &[u8], after: usize) -> Dot {
    let slash = |at: usize| matches!(path.get(at), Some(b'/' | b'\\'));
    if after == path.len() {
        return Dot::Current(0);
    }
    if slash(after) {
        return Dot::Current(1);
    }
    let second = dot_len(path, after);
    if second > 0 {
        if after + second == path.len() {
            return Dot::Up(second);
        }
        if slash(after + second) {
            return Dot::Up(second + 1);
        }
    }
    Dot::Name
}

/// Dot segments, backslashes, escapes.
fn resolve(path: &str) -> Result<String, TargetError> {
    let bytes = path.as_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len() + 8);
    // Where a `%` was written that begins no escape; decoding what follows must not make it one.
    let mut lone = None;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let dot = dot_len(bytes, at);
        if dot > 0 {
            at += dot;
            if out.last() != Some(&b'/') {
                out.push(b'.');
                continue;
            }
            match classify(bytes, at) {
                Dot::Name => out.push(b'.'),
                Dot::Current(consumed) => at += consumed,
                Dot::Up(consumed) => {
                    at += consumed;
                    up(&mut out);
                }
            }
            continue;
        }
        at += 1;
        match byte {
            b'\\' => out.push(b'/'),
            b'%' => at += escape(bytes, at, &mut out, &mut lone)?,
            _ if escaped_when_raw(byte) => push_escaped(byte, &mut out),
            _ => out.push(byte),
        }
    }
    // Only ASCII was written: bytes from 0x80 up are escaped.
    String::from_utf8(out).map_err(|_| TargetError::NotNormalisable)
}

/// Handles what follows a `%`; says how many bytes it consumed (two, or none when malformed).
fn escape(
    bytes: &[u8],
    at: usize,
    out: &mut Vec<u8>,
    lone: &mut Option<usize>,
) -> Result<usize, TargetError> {
    let decoded = match bytes.get(at..at + 2) {
        Some(&[high, low]) => hex_pair(high, low).map(|byte| (byte, high, low)),
        _ => None,
    };
    match decoded {
        None => {
            *lone = Some(out.len());
            out.push(b'%');
            Ok(0)
        }
        Some((0, ..)) => Err(TargetError::Nul),
        Some((byte, ..)) if unreserved(byte) => {
            out.push(byte);
            if let Some(lone) = *lone {
                keep_lone(lone, bytes.get(at + 2).copied(), out);
            }
            Ok(2)
        }
        Some((_, high, low)) => {
            out.extend([b'%', high, low]);
            Ok(2)
        }
    }
}

/// Undoing an escape right behind a lone `%` can make an escape of the two (`%2%65` would become
/// `%2e`, which the upstream would take for a dot that no policy has seen): the `%` is then written
/// as `%25`. `next` is the byte that comes after the one just written.
fn keep_lone(lone: usize, next: Option<u8>, out: &mut Vec<u8>) {
    let makes_escape = match out.get(lone..) {
        Some(&[b'%', high, low]) => hex_pair(high, low).is_some(),
        Some(&[b'%', high]) => next.is_some_and(|low| hex_pair(high, low).is_some()),
        _ => false,
    };
    if makes_escape {
        out.splice(lone + 1..lone + 1, *b"25");
    }
}

fn push_escaped(byte: u8, out: &mut Vec<u8>) {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    let digit = |nibble: u8| HEX.get(usize::from(nibble & 0xf)).copied().unwrap_or(b'0');
    out.extend([b'%', digit(byte >> 4), digit(byte)]);
}

/// Drops the last segment; never the first slash.
fn up(out: &mut Vec<u8>) {
    if out.len() <= 1 {
        return;
    }
    out.pop();
    let keep = out.iter().rposition(|byte| *byte == b'/').map_or(1, |slash| slash + 1);
    out.truncate(keep);
}

/// Runs of slashes to one; a path of slashes alone ends as `//` (as Envoy does it).
fn merge(path: String) -> String {
    if !path.contains("//") {
        return path;
    }
    let mut out = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() {
        out.push('/');
    }
    if path.ends_with('/') {
        out.push('/');
    }
    out
}
