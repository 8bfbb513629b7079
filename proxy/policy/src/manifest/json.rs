//! The one thing that JSON has and YAML has not: surrogate pairs in escapes.

use std::borrow::Cow;

/// Length of `\uXXXX`.
const ESCAPE: usize = 6;

/// Rewrites `\ud83d\ude00` as `\U0001f600` in a document that is JSON; leaves all others alone.
/// (RFC 8259 section 7; YAML 1.2.2 section 5.7.) Columns behind a pair move by two.
pub(super) fn join_surrogates(text: &str) -> Cow<'_, str> {
    let is_json = text.trim_start().starts_with(['{', '[']);
    if !is_json || !text.as_bytes().windows(3).any(|at| matches!(at, [b'\\', b'u', b'd' | b'D'])) {
        return Cow::Borrowed(text);
    }
    let mut joined = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(backslash) = rest.find('\\') {
        let (before, escape) = rest.split_at(backslash);
        joined.push_str(before);
        let pair = unit(escape).zip(escape.get(ESCAPE..).and_then(unit));
        let scalar = pair.and_then(|(high, low)| {
            char::decode_utf16([high, low]).next().and_then(Result::ok).filter(|c| c.len_utf16() == 2)
        });
        let taken = match scalar {
            Some(scalar) => {
                joined.push_str(&format!("\\U{:08x}", u32::from(scalar)));
                2 * ESCAPE
            }
            // The escaped character goes along, so that `\\u` is not taken for an escape.
            None => {
                let taken = 1 + escape.chars().nth(1).map_or(0, char::len_utf8);
                joined.push_str(escape.get(..taken).unwrap_or_default());
                taken
            }
        };
        rest = escape.get(taken..).unwrap_or_default();
    }
    joined.push_str(rest);
    Cow::Owned(joined)
}

/// The code unit of a leading `\uXXXX`.
fn unit(escape: &str) -> Option<u16> {
    let digits = escape.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_joined_in_json_only() {
        assert_eq!(join_surrogates(r#"["\ud83d\uDE00x\n"]"#), r#"["\U0001f600x\n"]"#);
        assert_eq!(join_surrogates(r#"["\\ud83d\\ude00 \u0041"]"#), r#"["\\ud83d\\ude00 \u0041"]"#);
        assert_eq!(join_surrogates(r"a: '\ud83d\ude00'"), r"a: '\ud83d\ude00'");
        assert_eq!(join_surrogates(r#"["\ud83d"]"#), r#"["\ud83d"]"#);
        assert_eq!(join_surrogates("[\"\\ud8é\\"), "[\"\\ud8é\\");
    }
}
