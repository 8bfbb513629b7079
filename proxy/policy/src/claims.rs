//! The claims of a verified token, as policies see them.

use serde_json::{Map, Value};

/// Who a verified token speaks for. Made only from a token whose signature, issuer, times and
/// audience held (crate `identity`), and shared by the cache of verified tokens: cheap to clone
/// behind an `Arc`.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestIdentity {
    /// `iss`, as written in the token.
    pub issuer: String,
    /// `sub`; empty where the token has none (Keycloak without the `basic` scope).
    pub subject: String,
    /// `azp`, where there.
    pub presenter: Option<String>,
    /// `aud` as a list, whichever way it was written.
    pub audiences: Vec<String>,
    /// The whole payload. `scope`, `permission` and the rule's `spaceDelimitedClaims` are lists.
    pub claims: Map<String, Value>,
}

impl RequestIdentity {
    /// `iss/sub`: Istio's request principal. `None` unless both are there and non-empty
    /// (istio.io, AuthorizationPolicy `requestPrincipals`).
    #[must_use]
    pub fn principal(&self) -> Option<String> {
        (!self.issuer.is_empty() && !self.subject.is_empty())
            .then(|| format!("{}/{}", self.issuer, self.subject))
    }
}
