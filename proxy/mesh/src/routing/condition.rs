//! Which requests a route is for.
//!
//! Source: Envoy's RouteMatch as istiod fills it in (TranslateRouteMatch): the path without query,
//! repeated headers joined by commas, query parameters as written and the first of each name.

use http::HeaderName;

use super::{RouteQuery, text::TextMatch};

/// How a path is compared.
#[derive(Debug, Clone)]
pub(crate) enum PathMatch {
    /// Any path: an absent match, or the prefix `/`.
    Any,
    /// The whole path.
    Exact(String),
    /// Its beginning, wherever a segment ends (Istio).
    Prefix(String),
    /// Its leading segments (Gateway API's PathPrefix); without trailing slash.
    Segments(String),
    /// All of it matches.
    Regex {
        /// As written.
        source: String,
        /// Compiled.
        pattern: super::text::Pattern,
    },
}

/// A header or query parameter's name and what it must be.
#[derive(Debug, Clone)]
pub(crate) struct HeaderMatch {
    pub(crate) name: HeaderName,
    pub(crate) text: TextMatch,
    /// `withoutHeaders`: it must not be so.
    pub(crate) without: bool,
}

/// A query parameter's name and what its first value must be.
#[derive(Debug, Clone)]
pub(crate) struct ParameterMatch {
    pub(crate) name: String,
    pub(crate) text: TextMatch,
}

/// All of it must hold.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub(crate) path: PathMatch,
    /// `ignoreUriCase`; not for regular expressions.
    pub(crate) ignore_case: bool,
    pub(crate) method: Option<TextMatch>,
    pub(crate) scheme: Option<TextMatch>,
    pub(crate) authority: Option<TextMatch>,
    pub(crate) headers: Vec<HeaderMatch>,
    pub(crate) parameters: Vec<ParameterMatch>,
}

impl Default for Condition {
    fn default() -> Self {
        Self {
            path: PathMatch::Any,
            ignore_case: false,
            method: None,
            scheme: None,
            authority: None,
            headers: Vec::new(),
            parameters: Vec::new(),
        }
    }
}

impl Condition {
    pub(crate) fn matches(&self, query: &RouteQuery<'_>) -> bool {
        let is = |wanted: &Option<TextMatch>, text: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.matches(text.as_bytes()))
        };
        self.path.matches(query.path, self.ignore_case)
            && is(&self.method, query.method.as_str())
            && is(&self.scheme, query.scheme)
            && is(&self.authority, query.authority)
            && self.headers.iter().all(|header| header.matches(query))
            && self.parameters.iter().all(|parameter| parameter.matches(query.query))
    }

    /// Whether nothing is asked beside a path that every request has: istiod moves such routes
    /// behind all others of the host (`IsCatchAllRoute`).
    pub(crate) fn is_catch_all(&self) -> bool {
        let any_path = match &self.path {
            PathMatch::Any => true,
            PathMatch::Regex { source, .. } => source == ".*",
            _ => false,
        };
        any_path
            && self.method.is_none()
            && self.scheme.is_none()
            && self.authority.is_none()
            && self.headers.is_empty()
            && self.parameters.is_empty()
    }
}

impl PathMatch {
    fn matches(&self, path: &str, ignore_case: bool) -> bool {
        let (path, begins) = (path.as_bytes(), |wanted: &[u8]| {
            let start = path.as_bytes().get(..wanted.len());
            start.is_some_and(|start| same(start, wanted, ignore_case))
        });
        match self {
            // Not the asterisk-form of OPTIONS.
            Self::Any => path.starts_with(b"/"),
            Self::Exact(wanted) => same(path, wanted.as_bytes(), ignore_case),
            Self::Prefix(wanted) => begins(wanted.as_bytes()),
            Self::Segments(wanted) => {
                begins(wanted.as_bytes()) && matches!(path.get(wanted.len()), None | Some(b'/'))
            }
            Self::Regex { pattern, .. } => pattern.matches(path),
        }
    }

    /// How many bytes of a matching path a prefix rewrite replaces: the prefix, else all of it.
    pub(crate) fn matched_len(&self, path: &str) -> usize {
        match self {
            Self::Any => 1.min(path.len()),
            Self::Prefix(prefix) | Self::Segments(prefix) => prefix.len(),
            Self::Exact(_) | Self::Regex { .. } => path.len(),
        }
    }
}

fn same(one: &[u8], other: &[u8], ignore_case: bool) -> bool {
    if ignore_case { one.eq_ignore_ascii_case(other) } else { one == other }
}

impl HeaderMatch {
    fn matches(&self, query: &RouteQuery<'_>) -> bool {
        let mut values = query.headers.get_all(&self.name).iter();
        let held = match (&self.text, values.next(), values.next()) {
            (TextMatch::Present, first, _) => first.is_some(),
            (text, Some(only), None) => text.matches(only.as_bytes()),
            // A missing header counts as empty where it must not be something (Envoy's
            // treat_missing_header_as_empty), and never matches where it must be something.
            (text, None, _) => self.without && text.matches(b""),
            (text, Some(_), Some(_)) => {
                let all: Vec<&[u8]> =
                    query.headers.get_all(&self.name).iter().map(|value| value.as_bytes()).collect();
                text.matches(&all.join(&b","[..]))
            }
        };
        held != self.without
    }
}

impl ParameterMatch {
    fn matches(&self, query: Option<&str>) -> bool {
        let first = query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name == self.name).then_some(value)
        });
        first.is_some_and(|value| self.text.matches(value.as_bytes()))
    }
}
