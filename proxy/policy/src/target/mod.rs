//! Request targets: what is refused, and the one canonical form that is matched and forwarded.

use http::HeaderMap;
use serde::{Deserialize, Serialize};

/// meshConfig.pathNormalization (istio.md 1.4). `DEFAULT` in a manifest means `Base`.
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
    /// method-override headers. Off: exactly as Envoy.
    pub strict: bool,
}

/// The canonical form: what is matched and what is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalTarget {
    path: String,
    query: Option<String>,
}

impl CanonicalTarget {
    /// Path without query: what policies match.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Query without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// `path[?query]`: the request target sent upstream.
    #[must_use]
    pub fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
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
    /// `;`
    #[error("the path has matrix parameters (`;`)")]
    MatrixParameter,
    /// `%2f`, `%5c`
    #[error("the path has an encoded slash or backslash")]
    EncodedSlash,
    /// `\`
    #[error("the path has a backslash")]
    Backslash,
    /// Dot segments climb above the root, or other things normalisation cannot resolve.
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
            Self::NotNormalisable => "target_not_normalisable",
            Self::MethodOverride => "method_override",
        }
    }
}

/// The canonical form of a raw request target (`path[?query][#fragment]`, or `*`).
///
/// # Errors
/// See [`TargetError`].
pub fn canonicalize(_raw: &str, _rules: TargetRules) -> Result<CanonicalTarget, TargetError> {
    todo!()
}

/// Refuses headers that tell some servers to use another method or target than the one judged.
///
/// # Errors
/// [`TargetError::MethodOverride`], when `rules.strict`.
pub fn check_headers(_headers: &HeaderMap, _rules: TargetRules) -> Result<(), TargetError> {
    todo!()
}

impl CanonicalTarget {
    /// The same target without every copy of a query parameter (a token that must not go upstream).
    #[must_use]
    pub fn without_parameter(&self, _name: &str) -> Self {
        todo!()
    }
}
