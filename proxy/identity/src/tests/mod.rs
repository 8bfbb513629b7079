//! The room as a whole, with keys made here and providers on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cache;
mod explain;
mod network;
mod provider;
mod requirement;
pub(crate) mod signer;
mod ssrf;
mod wycheproof;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use policy::{
    Place,
    istio::{JwtRule, KeySource, TokenPlace},
    target::{CanonicalTarget, Normalization, TargetRules, canonicalize},
};
use serde_json::{Value, json};
use signer::Signer;

use crate::{Authenticated, Authenticator, Clock, Health, OfflineIssuer, Rejection, TokenBearer};

/// The clock of offline tests.
pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const ISSUER: &str = "https://idp.example/realms/r";

/// A rule as the policy room makes it, with default places.
pub(crate) fn rule(issuer: &str, keys: KeySource) -> JwtRule {
    JwtRule {
        issuer: issuer.to_owned(),
        audiences: Vec::new(),
        keys,
        places: vec![
            header_place("authorization", "Bearer "),
            TokenPlace::Parameter("access_token".to_owned()),
        ],
        output_payload_to_header: None,
        forward_original_token: false,
        output_claim_to_headers: Vec::new(),
        timeout: Duration::from_secs(5),
        space_delimited_claims: Vec::new(),
        origin: "RequestAuthentication ns/jwt".into(),
        place: Place { file: "jwt.yaml".into(), line: 3, column: 5 },
    }
}

pub(crate) fn header_place(name: &'static str, prefix: &str) -> TokenPlace {
    TokenPlace::Header { name: HeaderName::from_static(name), prefix: prefix.to_owned() }
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: Method,
    headers: HeaderMap,
    target: CanonicalTarget,
}

pub(crate) fn ask() -> Ask {
    let rules = TargetRules { normalization: Normalization::Base, strict: true };
    let target = canonicalize("/fhir/Patient", rules).unwrap();
    Ask { method: Method::GET, headers: HeaderMap::new(), target }
}

pub(crate) fn bearer(token: &str) -> Ask {
    ask().header("authorization", &format!("Bearer {token}"))
}

impl Ask {
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    pub(crate) fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn target(mut self, target: &str) -> Self {
        let rules = TargetRules { normalization: Normalization::Base, strict: false };
        self.target = canonicalize(target, rules).unwrap();
        self
    }

    pub(crate) async fn of(
        &self,
        authenticator: &Authenticator,
        rules: &[Arc<JwtRule>],
    ) -> Result<Authenticated, Rejection> {
        let (method, headers, target) = (&self.method, &self.headers, &self.target);
        authenticator.authenticate(rules, TokenBearer { method, headers, target, at: None }).await
    }

    pub(crate) async fn explained(
        &self,
        authenticator: &Authenticator,
        rules: &[Arc<JwtRule>],
    ) -> (Result<Authenticated, Rejection>, Vec<String>) {
        let (method, headers, target) = (&self.method, &self.headers, &self.target);
        let bearer = TokenBearer { method, headers, target, at: None };
        let (result, steps) = authenticator.explain(rules, bearer).await;
        (result, steps.iter().map(ToString::to_string).collect())
    }
}

/// Claims that hold at [`NOW`].
pub(crate) fn claims(issuer: &str) -> Value {
    json!({"iss": issuer, "sub": "alice", "exp": NOW + 300, "iat": NOW})
}

/// `base` with members replaced, or taken out by null-free `remove`.
pub(crate) fn with(mut base: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        base[name] = value.clone();
    }
    base
}

pub(crate) fn without(mut base: Value, name: &str) -> Value {
    base.as_object_mut().unwrap().shift_remove(name);
    base
}

/// An offline authenticator with one signer's key for an issuer.
pub(crate) fn offline(issuers: &[(&str, &Signer)]) -> Arc<Authenticator> {
    let entry = |(issuer, signer): &(&str, &Signer)| OfflineIssuer {
        issuer: (*issuer).to_owned(),
        jwks_uri: None,
        jwks_json: signer::jwks(&[signer]),
        health: Health::Up,
    };
    Authenticator::offline(issuers.iter().map(entry).collect(), Clock::Fixed(NOW))
}

#[test]
fn futures_can_move_between_threads() {
    fn send<T: Send>(_: &T) {}
    let authenticator = offline(&[]);
    let ask = ask();
    send(&ask.of(&authenticator, &[]));
}
