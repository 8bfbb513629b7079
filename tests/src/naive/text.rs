//! Text against text, as the documentation words it.

/// "Exact match: `abc` will match on value `abc`. Prefix match: `abc*`. Suffix match: `*abc`.
/// Presence match: `*` will match when value is not empty." The first that fits, in Istio's order:
/// presence, suffix, prefix, exact.
pub(super) fn fits(pattern: &str, value: &[u8]) -> bool {
    let pattern = pattern.as_bytes();
    if pattern == b"*" {
        return !value.is_empty();
    }
    if pattern.first() == Some(&b'*') {
        return value.ends_with(&pattern[1..]);
    }
    if pattern.last() == Some(&b'*') {
        return value.starts_with(&pattern[..pattern.len() - 1]);
    }
    value == pattern
}

/// What Envoy matches as a header: `*` asks only that it is there, empty or not.
pub(super) fn fits_header(pattern: &str, value: &[u8]) -> bool {
    pattern == "*" || fits(pattern, value)
}

/// `*` anywhere stands for anything, everything else for itself: the `namespaces` field.
pub(super) fn globs(pattern: &[u8], value: &[u8]) -> bool {
    match pattern.split_first() {
        None => value.is_empty(),
        Some((b'*', rest)) => (0..=value.len()).any(|skipped| globs(rest, &value[skipped..])),
        Some((byte, rest)) => value.first() == Some(byte) && globs(rest, &value[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_forms() {
        for (pattern, value, wanted) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("*", "x", true),
            ("*", "", false),
            ("*a*", "xa*", true),
            ("*a*", "xa", false),
            ("a*b", "a*b", true),
            ("a*b", "axb", false),
        ] {
            assert_eq!(fits(pattern, value.as_bytes()), wanted, "{pattern} {value}");
        }
        assert!(fits_header("*", b"") && !fits_header("a", b""));
    }

    #[test]
    fn stars_anywhere() {
        for (pattern, value, wanted) in
            [("a*b", "axb", true), ("a*b*c", "abbc", true), ("a*b*c", "acb", false), ("a.b", "axb", false)]
        {
            assert_eq!(globs(pattern.as_bytes(), value.as_bytes()), wanted, "{pattern} {value}");
        }
    }
}
