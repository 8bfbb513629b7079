//! Credentials to a principal: the tokens of a request are verified, and the request is edited as
//! the rules say (token out, claims in, spoofed claim headers out) before anything is judged.

use std::sync::Arc;

use identity::{Authenticated, Authenticator, Rejection, TokenBearer};
use policy::{RequestIdentity, istio::JwtRule};

use crate::{engine::Trace, serve::head::Request};

/// A request whose credentials hold, or that has none. Made here only.
#[derive(Debug)]
pub struct Identified {
    request: Box<Request>,
    identity: Option<Arc<RequestIdentity>>,
    issuer: Option<Arc<str>>,
}

impl Identified {
    /// Where no rules select the place: no identity, whatever tokens there are.
    pub(crate) fn without_rules(request: Box<Request>) -> Self {
        Self { request, identity: None, issuer: None }
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
}

/// Verifies a request's tokens by the rules of the workload it is for.
///
/// # Errors
/// The rejection, and the request for the words of the answer.
pub(crate) async fn identify(
    mut request: Box<Request>,
    rules: &[Arc<JwtRule>],
    authenticator: &Authenticator,
    trace: &mut Trace,
) -> Result<Identified, (Rejection, Box<Request>)> {
    if rules.is_empty() {
        return Ok(Identified::without_rules(request));
    }
    let bearer =
        TokenBearer { method: request.method(), headers: request.headers(), target: request.target() };
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
            request.apply(edits);
            Ok(Identified { request, identity, issuer })
        }
    }
}
