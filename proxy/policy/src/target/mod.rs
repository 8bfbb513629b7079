//! Request targets: what is refused, and the one canonical form that is matched and forwarded.
//!
//! With `strict` off this is Envoy 1.40 to the byte, in the mesh's normalisation mode: the
//! fragment is cut; then, by mode, `%2f` and `%5c` are decoded; parameters of dot
//! segments are dropped; dot segments, `\` and unreserved escapes are resolved once; slashes merged.
//! One pass only: Envoy's own result is not always a fixed point (`/a;/..;b` and the like).
//!
//! With `strict` on, everything that servers are known to read differently is refused first (see
//! [`strict`]), and what is left is a fixed point: canonicalising the canonical form changes nothing.

mod normalize;
mod strict;
#[cfg(test)]
mod tests;

use http::HeaderMap;
use serde::{Deserialize, Serialize};

/// meshConfig.pathNormalization. `DEFAULT` in a manifest means `Base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Normalization {
    /// Nothing at all.
    None,
    /// Dot segments, `\` to `/`, unreserved percent-decoding.
    #[default]
    #[serde(alias = "DEFAULT")]
    Base,
    /// And `//` to `/`.
    MergeSlashes,
    /// And `%2f`, `%5c` decoded first.
    DecodeAndMergeSlashes,
}

/// How a workload wants targets treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetRules {
    /// The mesh's mode.
    pub normalization: Normalization,
    /// Refuse what servers read differently: `;params`, encoded slashes, backslashes, NUL,
    /// double encoding, method-override headers. Off: exactly as Envoy.
    pub strict: bool,
}

/// The canonical form: what is matched and what is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CanonicalTarget {
    /// `path[?query]`, one buffer.
    whole: String,
    /// Length of the path within it.
    path_len: usize,
}

impl CanonicalTarget {
    fn new(mut path: String, query: Option<&str>) -> Self {
        let path_len = path.len();
        if let Some(query) = query {
            path.reserve(query.len() + 1);
            path.push('?');
            path.push_str(query);
        }
        Self { whole: path, path_len }
    }

    /// Path without query: what policies match.
    #[must_use]
    pub fn path(&self) -> &str {
        self.whole.get(..self.path_len).unwrap_or_default()
    }

    /// Query without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.whole.get(self.path_len + 1..)
    }

    /// `path[?query]`: the request target sent upstream, borrowed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.whole
    }

    /// `path[?query]`: the request target sent upstream.
    #[must_use]
    pub fn path_and_query(&self) -> String {
        self.whole.clone()
    }

    /// The same target without every copy of a query parameter (a token that must not go upstream).
    /// Names are compared as written and percent-decoded.
    #[must_use]
    pub fn without_parameter(&self, name: &str) -> Self {
        let Some(query) = self.query() else { return self.clone() };
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| !strict::parameter_is(pair, |parameter| parameter == name.as_bytes()))
            .collect();
        if kept.is_empty() {
            return Self::new(self.path().to_owned(), None);
        }
        Self::new(self.path().to_owned(), Some(&kept.join("&")))
    }
}

/// Why a target or head is refused; each is a 400 with its own metric reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither origin-form nor `*`.
    #[error("the request target does not begin with a slash")]
    NotOriginForm,
    /// `%00` (any mode but NONE) or a raw NUL.
    #[error("the request target contains NUL")]
    Nul,
    /// `;` or `%3b` in the path.
    #[error("the path has matrix parameters (`;`)")]
    MatrixParameter,
    /// `%2f`, `%5c`
    #[error("the path has an encoded slash or backslash")]
    EncodedSlash,
    /// `\`
    #[error("the path has a backslash")]
    Backslash,
    /// `%25` before two hexadecimal digits: a second decoding would read something else.
    #[error("the path is percent-encoded twice")]
    DoubleEncoding,
    /// Malformed escapes, control characters, text that is not UTF-8 (overlong forms among it),
    /// or dot segments where the mode does not resolve them.
    #[error("the path cannot be normalised")]
    NotNormalisable,
    /// A method-override header or parameter.
    #[error("a method-override header is not accepted")]
    MethodOverride,
}

impl TargetError {
    /// Stable name for metrics and logs, snake_case.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotOriginForm => "target_form",
            Self::Nul => "target_nul",
            Self::MatrixParameter => "target_matrix_parameter",
            Self::EncodedSlash => "target_encoded_slash",
            Self::Backslash => "target_backslash",
            Self::DoubleEncoding => "target_double_encoding",
            Self::NotNormalisable => "target_not_normalisable",
            Self::MethodOverride => "method_override",
        }
    }
}

/// The canonical form of a raw request target (`path[?query][#fragment]`, or `*`).
///
/// Absolute-form and authority-form are for the caller to take apart: here they are
/// [`TargetError::NotOriginForm`].
///
/// # Errors
/// See [`TargetError`].
pub fn canonicalize(raw: &str, rules: TargetRules) -> Result<CanonicalTarget, TargetError> {
    // Everything from the first `#` goes, wherever it stands (CVE-2021-39156).
    let raw = raw.split_once('#').map_or(raw, |(before, _)| before);
    if raw == "*" {
        return Ok(CanonicalTarget::new(raw.to_owned(), None));
    }
    if !raw.starts_with('/') {
        return Err(TargetError::NotOriginForm);
    }
    refuse_controls(raw)?;
    let (path, query) = match raw.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (raw, None),
    };
    if rules.strict {
        strict::check_path(path, rules.normalization)?;
        strict::check_query(query)?;
    }
    let path = normalize::normalize(path, rules.normalization)?;
    Ok(CanonicalTarget::new(path, query))
}

/// No codec lets these through; whoever else calls us must not either: they would end the request
/// line upstream.
fn refuse_controls(raw: &str) -> Result<(), TargetError> {
    match raw.bytes().find(|byte| *byte <= b' ' || *byte == 0x7f) {
        None => Ok(()),
        Some(0) => Err(TargetError::Nul),
        Some(_) => Err(TargetError::NotNormalisable),
    }
}

/// Refuses headers that tell some servers to use another method or target than the one judged.
///
/// # Errors
/// [`TargetError::MethodOverride`], when `rules.strict`.
pub fn check_headers(headers: &HeaderMap, rules: TargetRules) -> Result<(), TargetError> {
    if rules.strict && strict::OVERRIDES.iter().any(|name| headers.contains_key(*name)) {
        return Err(TargetError::MethodOverride);
    }
    Ok(())
}
