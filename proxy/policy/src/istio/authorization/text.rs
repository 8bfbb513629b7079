//! Istio's string matches: exact, prefix, suffix, present.

use std::fmt;

/// One value of a policy, as Istio's translation reads it. Text is compared byte by byte: a header
/// value that is not UTF-8 is compared all the same (CVE-2026-73552).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Text {
    /// The whole value.
    Exact(Box<str>),
    /// `x*`
    Prefix(Box<str>),
    /// `*x`
    Suffix(Box<str>),
    /// `*`: not empty.
    Present,
    /// `*` where Istio asks only that the attribute is there (headers, hosts, methods).
    Any,
}

impl Text {
    /// The first form that fits, in Istio's order: a value starred at both ends is a suffix with a
    /// literal trailing star.
    pub(super) fn parse(value: &str) -> Self {
        if value == "*" {
            Self::Present
        } else if let Some(rest) = value.strip_prefix('*') {
            Self::Suffix(rest.into())
        } else if let Some(rest) = value.strip_suffix('*') {
            Self::Prefix(rest.into())
        } else {
            Self::Exact(value.into())
        }
    }

    /// For headers, hosts and methods: `*` also takes an empty value.
    pub(super) fn parse_header(value: &str) -> Self {
        match Self::parse(value) {
            Self::Present => Self::Any,
            text => text,
        }
    }

    /// Case matters.
    pub(super) fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => value == text.as_bytes(),
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Suffix(text) => value.ends_with(text.as_bytes()),
            Self::Present => !value.is_empty(),
            Self::Any => true,
        }
    }

    /// ASCII case does not matter (hosts; CVE-2021-39155).
    pub(super) fn matches_ignoring_case(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => value.eq_ignore_ascii_case(text.as_bytes()),
            Self::Prefix(text) => {
                value.get(..text.len()).is_some_and(|head| head.eq_ignore_ascii_case(text.as_bytes()))
            }
            Self::Suffix(text) => value
                .len()
                .checked_sub(text.len())
                .and_then(|at| value.get(at..))
                .is_some_and(|tail| tail.eq_ignore_ascii_case(text.as_bytes())),
            Self::Present => !value.is_empty(),
            Self::Any => true,
        }
    }

    /// Of a value spelt in pieces, so that nobody has to join them.
    pub(super) fn matches_pieces(&self, pieces: &[&str]) -> bool {
        match self {
            Self::Exact(text) => {
                pieces.iter().map(|piece| piece.len()).sum::<usize>() == text.len()
                    && pieces_start_with(pieces, text)
            }
            Self::Prefix(text) => pieces_start_with(pieces, text),
            Self::Suffix(text) => pieces_end_with(pieces, text),
            Self::Present => pieces.iter().any(|piece| !piece.is_empty()),
            Self::Any => true,
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
            Self::Present | Self::Any => f.write_str("*"),
        }
    }
}

fn pieces_start_with(pieces: &[&str], text: &str) -> bool {
    let mut wanted = text.as_bytes();
    for piece in pieces {
        let piece = piece.as_bytes();
        if wanted.len() <= piece.len() {
            return piece.starts_with(wanted);
        }
        match wanted.strip_prefix(piece) {
            Some(rest) => wanted = rest,
            None => return false,
        }
    }
    wanted.is_empty()
}

fn pieces_end_with(pieces: &[&str], text: &str) -> bool {
    let mut wanted = text.as_bytes();
    for piece in pieces.iter().rev() {
        let piece = piece.as_bytes();
        if wanted.len() <= piece.len() {
            return piece.ends_with(wanted);
        }
        match wanted.strip_suffix(piece) {
            Some(rest) => wanted = rest,
            None => return false,
        }
    }
    wanted.is_empty()
}

/// A namespace pattern: `*` anywhere, every other character literal (CVE-2026-39350).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Glob(Box<str>);

impl Glob {
    pub(super) fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// The pattern, where it has no star.
    pub(super) fn exact(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    pub(super) fn matches(&self, value: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else {
            return *self.0 == *value;
        };
        let Some(mut value) = value.strip_prefix(head) else { return false };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        // The tail is put aside first, so that no middle part can eat into it.
        match value.strip_suffix(tail) {
            Some(without) => value = without,
            None => return false,
        }
        for part in middle.split('*') {
            match value.find(part) {
                Some(at) => value = value.get(at + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        true
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
