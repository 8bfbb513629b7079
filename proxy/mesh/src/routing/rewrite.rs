//! New paths for the upstream.
//!
//! Source: Envoy's `prefix_rewrite` and `regex_rewrite`; Gateway API's HTTPPathModifier.

use super::{condition::PathMatch, text::Pattern};

/// Longest rewritten path, bytes; a substitution may grow a path.
const MAX_REWRITTEN_BYTES: usize = 64 * 1024;

/// How a path is rewritten.
#[derive(Debug, Clone)]
pub(crate) enum PathRewrite {
    /// The matched part by this (Istio's `rewrite.uri`): `/fhir/` by `/` makes `/fhir/x` to `/x`,
    /// `/fhir` by `/` makes it to `//x`.
    Prefix(String),
    /// The matched segments by these (Gateway API's ReplacePrefixMatch), without trailing slash.
    Segments(String),
    /// The whole path (ReplaceFullPath).
    Full(String),
    /// All that matches by this text (`uriRegexRewrite`).
    Regex(Pattern, Vec<Piece>),
}

/// A piece of a substitution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// As it stands.
    Literal(String),
    /// `\0` to `\9`.
    Group(usize),
}

/// A path that came out without a leading slash, or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unusable;

impl PathRewrite {
    /// `rewrite.uri`.
    pub(crate) fn prefix(uri: &str) -> Result<Self, String> {
        literal_path(uri).map(Self::Prefix)
    }

    /// `uriRegexRewrite`.
    pub(crate) fn regex(pattern: &str, substitution: &str) -> Result<Self, String> {
        let pattern = Pattern::searching(pattern)?;
        let groups = pattern.regex().group_info().group_len(regex_automata::PatternID::ZERO);
        let pieces = pieces(substitution)?;
        for piece in &pieces {
            match piece {
                Piece::Group(group) if *group >= groups => {
                    return Err(format!("`\\{group}`: the expression has no such group"));
                }
                Piece::Literal(text) if !text.bytes().all(is_path_byte) => {
                    return Err(format!("`{text}` cannot stand in a path"));
                }
                _ => {}
            }
        }
        Ok(Self::Regex(pattern, pieces))
    }

    /// The new path; `None` where it is the old one.
    pub(crate) fn apply(&self, matched: &PathMatch, path: &str) -> Result<Option<String>, Unusable> {
        let rest = || path.get(matched.matched_len(path)..).unwrap_or_default();
        let new = match self {
            Self::Prefix(by) if by == "/" && matches!(matched, PathMatch::Any) => return Ok(None),
            Self::Prefix(by) => format!("{by}{}", rest()),
            Self::Segments(by) => {
                // `Any` is the prefix `/`: no segment, the whole path stays behind it.
                let rest = if matches!(matched, PathMatch::Any) { path } else { rest() };
                let new = format!("{by}{rest}");
                if new.is_empty() { "/".to_owned() } else { new }
            }
            Self::Full(by) => by.clone(),
            Self::Regex(pattern, pieces) => replace_all(pattern, pieces, path)?,
        };
        if !new.starts_with('/') || new.len() > MAX_REWRITTEN_BYTES {
            return Err(Unusable);
        }
        Ok((new != path).then_some(new))
    }
}

/// A path to be sent as it stands.
pub(crate) fn literal_path(path: &str) -> Result<String, String> {
    if path.starts_with('/') && path.bytes().all(is_path_byte) {
        Ok(path.to_owned())
    } else {
        Err(format!("`{path}` is no path: it begins with `/` and holds no query, fragment or space"))
    }
}

/// What may stand in a path on the wire; `?` and `#` would end it.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'?' && byte != b'#'
}

fn pieces(substitution: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut literal) = (Vec::new(), String::new());
    let mut chars = substitution.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            literal.push(c);
            continue;
        }
        match chars.next() {
            Some('\\') => literal.push('\\'),
            Some(digit) if digit.is_ascii_digit() => {
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Group(digit as usize - '0' as usize));
            }
            _ => return Err(format!("`{substitution}`: `\\` stands before a digit or `\\` only")),
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

fn replace_all(pattern: &Pattern, pieces: &[Piece], path: &str) -> Result<String, Unusable> {
    let (mut new, mut done) = (String::new(), 0);
    for found in pattern.regex().captures_iter(path) {
        let Some(whole) = found.get_match() else { continue };
        new.push_str(path.get(done..whole.start()).ok_or(Unusable)?);
        done = whole.end();
        for piece in pieces {
            match piece {
                Piece::Literal(text) => new.push_str(text),
                Piece::Group(group) => {
                    let Some(span) = found.get_group(*group) else { continue };
                    new.push_str(path.get(span.start..span.end).ok_or(Unusable)?);
                }
            }
        }
        if new.len() > MAX_REWRITTEN_BYTES {
            return Err(Unusable);
        }
    }
    new.push_str(path.get(done..).ok_or(Unusable)?);
    Ok(new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn prefix(text: &str) -> PathMatch {
        PathMatch::Prefix(text.to_owned())
    }

    #[test]
    fn prefixes_are_swapped_as_envoy_swaps_them() {
        let cases = [
            (prefix("/fhir/"), "/", "/fhir/Patient", "/Patient"),
            (prefix("/fhir"), "/", "/fhir/Patient", "//Patient"),
            (prefix("/fhir"), "/r4", "/fhir", "/r4"),
            (prefix("/fhir"), "/r4", "/fhirx", "/r4x"),
            (PathMatch::Any, "/", "/Patient", "/Patient"),
            (PathMatch::Any, "/base/", "/Patient", "/base/Patient"),
            (PathMatch::Exact("/a".into()), "/b", "/a", "/b"),
        ];
        for (matched, by, path, wanted) in cases {
            let new = PathRewrite::prefix(by).unwrap().apply(&matched, path).unwrap();
            assert_eq!(new.as_deref().unwrap_or(path), wanted, "{matched:?} {by} {path}");
        }
    }

    #[test]
    fn segments_are_replaced_as_the_gateway_api_says() {
        // The table of HTTPPathModifier's documentation.
        let cases = [
            ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz", "/foo", "/xyz"),
            ("/foo", "/xyz", "/foo/", "/xyz/"),
            ("/foo", "", "/foo/bar", "/bar"),
            ("/foo", "", "/foo/", "/"),
            ("/foo", "", "/foo", "/"),
        ];
        for (from, by, path, wanted) in cases {
            let rewrite = PathRewrite::Segments(by.to_owned());
            let new = rewrite.apply(&PathMatch::Segments(from.to_owned()), path).unwrap();
            assert_eq!(new.as_deref().unwrap_or(path), wanted, "{from} {by} {path}");
        }
        let new = PathRewrite::Segments("/x".into()).apply(&PathMatch::Any, "/a").unwrap();
        assert_eq!(new.as_deref(), Some("/x/a"));
    }

    #[test]
    fn regex_rewrites_replace_every_match() {
        let cases = [
            ("^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api", "/v1/api/instance/foo"),
            ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            ("^(.*?)one(.*)$", r"\1two\2", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz"),
            ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
        ];
        for (pattern, by, path, wanted) in cases {
            let rewrite = PathRewrite::regex(pattern, by).unwrap();
            let new = rewrite.apply(&PathMatch::Any, path).unwrap();
            assert_eq!(new.as_deref().unwrap_or(path), wanted, "{pattern}");
        }
        for (pattern, by) in [("a", r"\1"), ("a", r"\x"), ("a", "b c"), ("(", "b"), ("a", "?x")] {
            assert!(PathRewrite::regex(pattern, by).is_err(), "{pattern} {by}");
        }
    }

    #[test]
    fn a_rewrite_that_yields_no_path_is_unusable() {
        let rewrite = PathRewrite::regex("^/", "x").unwrap();
        assert_eq!(rewrite.apply(&PathMatch::Any, "/a"), Err(Unusable));
        let rewrite = PathRewrite::regex(".", &r"\0".repeat(400)).unwrap();
        assert_eq!(rewrite.apply(&PathMatch::Any, &format!("/{}", "a".repeat(400))), Err(Unusable));
        assert!(PathRewrite::prefix("x").is_err());
    }
}
