//! Credentials to a principal: the tokens of a request are verified, and the request is edited as
//! the rules say (token out, claims in, spoofed claim headers out) before anything is judged.

use std::sync::Arc;

use http::HeaderName;
use identity::{Authenticated, Authenticator, Rejection, TokenBearer};
use policy::{RequestIdentity, istio::JwtRule};

use crate::{
    engine::Trace,
    serve::head::{Request, WithTokens},
};

/// A request whose credentials hold, or that has none. Made here only.
#[derive(Debug)]
pub struct Identified {
    request: Box<Request>,
    identity: Option<Arc<RequestIdentity>>,
    issuer: Option<Arc<str>>,
    /// For a destination whose own proxy verifies them again.
    with_tokens: Option<Box<WithTokens>>,
}

impl Identified {
    /// Where no rules select the place: no identity, whatever tokens there are.
    pub(crate) fn without_rules(request: Box<Request>) -> Self {
        Self { request, identity: None, issuer: None, with_tokens: None }
    }

    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    pub(crate) fn identity(&self) -> Option<&RequestIdentity> {
        self.identity.as_deref()
    }

    /// Issuer of the verified token.
    pub(crate) fn issuer(&self) -> Option<&Arc<str>> {
        self.issuer.as_ref()
    }

    pub(crate) fn into_request(self) -> Box<Request> {
        self.request
    }

    pub(crate) fn into_parts(self) -> (Box<Request>, Option<Box<WithTokens>>) {
        (self.request, self.with_tokens)
    }
}

/// Whether the form of a request is wanted that still has its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tokens {
    Kept,
    Spent,
}

fn sets(rule: &JwtRule, name: &HeaderName) -> bool {
    rule.output_payload_to_header.as_ref() == Some(name)
        || rule.output_claim_to_headers.iter().any(|(header, _)| header == name)
}

/// Verifies a request's tokens by the rules of the workload it is for. `at`: when they had to count, where that
/// is not now.
///
/// # Errors
/// The rejection, and the request for the words of the answer.
pub(crate) async fn identify(
    mut request: Box<Request>,
    rules: &[Arc<JwtRule>],
    authenticator: &Authenticator,
    (keep, at): (Tokens, Option<i64>),
    trace: &mut Trace,
) -> Result<Identified, (Rejection, Box<Request>)> {
    if rules.is_empty() {
        return Ok(Identified::without_rules(request));
    }
    let bearer =
        TokenBearer { method: request.method(), headers: request.headers(), target: request.target(), at };
    let result = if trace.always() {
        let (result, steps) = authenticator.explain(rules, bearer).await;
        trace.extend(steps);
        result
    } else {
        let result = authenticator.authenticate(rules, bearer).await;
        if result.is_err() && trace.on_denial() {
            trace.extend(authenticator.explain(rules, bearer).await.1);
        }
        result
    };
    match result {
        Err(rejection) => Err((rejection, request)),
        Ok(Authenticated { identity, issuer, edits, .. }) => {
            let with_tokens = (keep == Tokens::Kept).then(|| {
                let is_output = |name: &_| rules.iter().any(|rule| sets(rule, name));
                Box::new(request.with_tokens(&edits, is_output))
            });
            request.apply(edits);
            Ok(Identified { request, identity, issuer, with_tokens })
        }
    }
}
