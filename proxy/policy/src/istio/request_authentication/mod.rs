//! RequestAuthentication: which tokens a workload takes, and where they stand.
//!
//! Source: istio.io/latest/docs/reference/config/security/request_authentication; the checks are
//! those of the CRD and of Istio's admission (pkg/config/validation), and two of our own: an
//! inline key set may hold no private key (CVE-2026-31837), and output headers may not be those
//! that frame a message.

mod jwks;
mod rule;
mod spec;
#[cfg(test)]
mod tests;
mod uri;

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use super::selection::Target;
use crate::{
    Object, Place, Problem,
    manifest::{Located, codes},
};

/// Most `jwtRules` of one policy (CRD `maxItems`).
pub const MAX_JWT_RULES: usize = 4096;

/// One RequestAuthentication, checked.
#[derive(Debug, Clone)]
pub struct RequestAuthentication {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`; `default` where none is given.
    pub namespace: String,
    /// The workloads it holds for.
    pub target: Target,
    /// `jwtRules`, in order.
    pub rules: Vec<Arc<JwtRule>>,
    /// Where the object begins.
    pub place: Place,
}

impl RequestAuthentication {
    /// Reads one object. There is a policy exactly when no problem is an error.
    #[must_use]
    pub fn read(object: &Object) -> (Option<Self>, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut spec = match object.field::<spec::Spec>("spec") {
            Ok(spec) => spec.unwrap_or_default(),
            Err(problem) => return (None, vec![problem]),
        };
        let target = Target::read(spec.target(), &mut problems);
        let origin: Arc<str> = Arc::from(object.label());
        let rules = read_rules(spec.jwt_rules, &origin, &mut problems);
        let policy = Self {
            name: object.metadata.name.clone(),
            namespace: object.namespace().to_owned(),
            target,
            rules,
            place: object.place.clone(),
        };
        let bad = problems.iter().any(Problem::is_error);
        let problems = problems.into_iter().map(|problem| problem.of(&*origin)).collect();
        (Some(policy).filter(|_| !bad), problems)
    }
}

fn read_rules(
    rules: Option<Located<Vec<Located<spec::JwtRuleSpec>>>>,
    origin: &Arc<str>,
    problems: &mut Vec<Problem>,
) -> Vec<Arc<JwtRule>> {
    let Some(rules) = rules else { return Vec::new() };
    if rules.len() > MAX_JWT_RULES {
        let text = format!("{} JWT rules, at most {MAX_JWT_RULES}", rules.len());
        problems.push(rules.error(codes::TOO_MANY, text));
        return Vec::new();
    }
    let read = |one| rule::read(one, origin, problems).map(Arc::new);
    rules.value.into_iter().filter_map(read).collect()
}

/// One `jwtRules` entry, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtRule {
    /// `issuer`; empty accepts any.
    pub issuer: String,
    /// `audiences`; empty = not checked.
    pub audiences: Vec<String>,
    /// Where the keys come from.
    pub keys: KeySource,
    /// Where tokens are looked for, in order; already defaulted.
    pub places: Vec<TokenPlace>,
    /// `outputPayloadToHeader`, lower case.
    pub output_payload_to_header: Option<HeaderName>,
    /// `forwardOriginalToken`.
    pub forward_original_token: bool,
    /// `outputClaimToHeaders`: header and claim path split at dots.
    pub output_claim_to_headers: Vec<(HeaderName, Vec<String>)>,
    /// `timeout` of the JWKS fetch; default 5 s.
    pub timeout: Duration,
    /// `spaceDelimitedClaims` beside `scope` and `permission`.
    pub space_delimited_claims: Vec<String>,
    /// `RequestAuthentication namespace/name`, for reasons and logs.
    pub origin: Arc<str>,
    /// Where the entry stands.
    pub place: Place,
}

/// Where a rule's keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// `jwks`: the JWKS text itself.
    Inline(String),
    /// `jwksUri`.
    Uri(String),
    /// Neither: OpenID discovery from the issuer.
    Discovery,
}

/// A place where a token may stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenPlace {
    /// A header, and what its value must contain before the token (may be empty).
    Header {
        /// Lower case.
        name: HeaderName,
        /// `Bearer ` by default.
        prefix: String,
    },
    /// A query parameter.
    Parameter(String),
    /// A cookie.
    Cookie(String),
}
