//! Text comparisons of routes: exact, prefix, regular expression, presence.
//!
//! Regular expressions are RE2's dialect as Envoy uses it: they must match the whole text, `\d` and
//! the like are ASCII, and they run over bytes, so that obs-text in a header value cannot make one
//! fail open (CVE-2026-73552).

use regex_automata::{meta, util::syntax};
use serde::Deserialize;

/// Longest regular expression, bytes.
pub(crate) const MAX_PATTERN_BYTES: usize = 4096;
/// Largest compiled program of one regular expression, bytes.
const MAX_PROGRAM_BYTES: usize = 1024 * 1024;
/// Largest lazy automaton of one regular expression and thread, bytes.
const MAX_CACHE_BYTES: usize = 1024 * 1024;

/// A compiled regular expression.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(meta::Regex);

impl Pattern {
    /// One that matches only whole texts.
    pub(crate) fn whole(pattern: &str) -> Result<Self, String> {
        // By itself first: `a)|(b` is an error, not a way out of the anchors.
        Self::searching(pattern)?;
        compile(&format!(r"\A(?:{pattern})\z")).map(Self)
    }

    /// One that is found anywhere (`uriRegexRewrite`).
    pub(crate) fn searching(pattern: &str) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(format!(
                "the regular expression has {} bytes, at most {MAX_PATTERN_BYTES}",
                pattern.len()
            ));
        }
        compile(pattern).map(Self)
    }

    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }

    pub(crate) fn regex(&self) -> &meta::Regex {
        &self.0
    }
}

fn compile(pattern: &str) -> Result<meta::Regex, String> {
    let limits = meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(MAX_PROGRAM_BYTES))
        .hybrid_cache_capacity(MAX_CACHE_BYTES);
    meta::Regex::builder()
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .configure(limits)
        .build(pattern)
        .map_err(|error| match error.syntax_error() {
            Some(syntax) => format!("`{pattern}` is no RE2 regular expression: {syntax}"),
            None => format!("`{pattern}`: {error}"),
        })
}

/// How a text is compared.
#[derive(Debug, Clone)]
pub(crate) enum TextMatch {
    /// It is there, whatever it is.
    Present,
    /// It is this.
    Exact(String),
    /// It begins so.
    Prefix(String),
    /// The whole of it matches.
    Regex(Pattern),
}

impl TextMatch {
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(wanted) => text == wanted.as_bytes(),
            Self::Prefix(wanted) => text.starts_with(wanted.as_bytes()),
            Self::Regex(pattern) => pattern.matches(text),
        }
    }
}

/// Istio's `StringMatch`, as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StringMatch {
    exact: Option<String>,
    prefix: Option<String>,
    regex: Option<String>,
}

impl StringMatch {
    /// Compiled; `None` where nothing is given, or the `*` that Istio takes for "is there".
    pub(crate) fn compile(&self) -> Result<Option<TextMatch>, String> {
        match (&self.exact, &self.prefix, &self.regex) {
            (None, None, None) => Ok(None),
            (Some(exact), None, None) => Ok(Some(TextMatch::Exact(exact.clone()))),
            (None, Some(prefix), None) if prefix.is_empty() => {
                Err("an empty prefix: leave it out, or name what must be there".to_owned())
            }
            (None, Some(prefix), None) => Ok(Some(TextMatch::Prefix(prefix.clone()))),
            (None, None, Some(regex)) if regex == "*" => Ok(None),
            (None, None, Some(regex)) => Pattern::whole(regex).map(TextMatch::Regex).map(Some),
            _ => Err("only one of `exact`, `prefix` and `regex` may be given".to_owned()),
        }
    }

    /// As [`StringMatch::compile`], where something must be given.
    pub(crate) fn required(&self) -> Result<TextMatch, String> {
        self.compile()?.ok_or_else(|| "one of `exact`, `prefix` and `regex` is needed".to_owned())
    }

    /// The regular expression, if that is what is given.
    pub(crate) fn regex(&self) -> Option<&str> {
        self.regex.as_deref()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_regex_matches_whole_texts_over_bytes() {
        let cases: &[(&str, &[u8], bool)] = &[
            ("/a.*", b"/abc", true),
            ("a|ab", b"ab", true),
            ("/a", b"/ab", false),
            ("/a", b"x/a", false),
            (".*", b"\xff\xfe", true),
            ("[^x]*", b"\xff", true),
            (r"\d", "٣".as_bytes(), false),
            ("(?i)abc", b"ABC", true),
            (".", b"\n", false),
            ("a", b"a\n", false),
        ];
        for (pattern, text, wanted) in cases {
            assert_eq!(Pattern::whole(pattern).unwrap().matches(text), *wanted, "{pattern}");
        }
    }

    #[test]
    fn a_regex_cannot_leave_its_anchors_or_its_limits() {
        for pattern in ["a)|(b", "(", "a{1000}{1000}{1000}", "(?=a)", &"a".repeat(5000)] {
            assert!(Pattern::whole(pattern).is_err(), "{pattern}");
        }
    }
}
