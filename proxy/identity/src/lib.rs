//! Credentials to principals: tokens, JWKS, identity provider health.
//!
//! The tokens of a request are found and verified against the workload's `JwtRule`s; what comes
//! out is an [`Authenticated`] or a [`Rejection`]. Status codes are chosen by the reply room.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use policy::{RequestIdentity, Step, istio::JwtRule, target::CanonicalTarget};

pub mod clock;
pub mod settings;

pub use clock::Clock;
pub use settings::{IdentitySettings, ProviderSettings};

/// The part of a request in which tokens stand.
#[derive(Debug, Clone, Copy)]
pub struct TokenBearer<'a> {
    /// Method (CORS preflight is let through without a token check).
    pub method: &'a Method,
    /// Headers as received.
    pub headers: &'a HeaderMap,
    /// Canonical target.
    pub target: &'a CanonicalTarget,
}

/// What a request's tokens say of it.
#[derive(Debug, Clone, Default)]
pub struct Authenticated {
    /// The verified identity; `None` where there was no token.
    pub identity: Option<Arc<RequestIdentity>>,
    /// Issuer of that token's rule, and its health, for the record.
    pub issuer: Option<Arc<str>>,
    /// Changes that must be made to the request before it is judged and forwarded.
    pub edits: Edits,
}

/// Changes to a request: token removal, payload and claim headers, spoofing guards.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    /// Headers removed (all values).
    pub remove_headers: Vec<HeaderName>,
    /// Headers then set (one value each).
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Query parameters removed (all copies).
    pub remove_parameters: Vec<String>,
}

/// A request whose credentials are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    /// Why.
    pub reason: RejectionReason,
    /// Rule that was tried, `RequestAuthentication ns/name` (for logs; never told to the client).
    pub origin: Option<Arc<str>>,
}

/// Why a token is refused. `Display` is Envoy's body text, byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RejectionReason {
    /// A token was required; Fhirward never requires one here (AuthorizationPolicy does).
    #[error("Jwt is missing")]
    Missing,
    /// `exp` is past, with the allowed skew.
    #[error("Jwt is expired")]
    Expired,
    // The owner of this room adds the rest.
}

/// Verifies tokens; shared by all workloads, with one cache of keys and one of verified tokens.
pub struct Authenticator {}

impl Authenticator {
    /// Finds and verifies the tokens of a request.
    ///
    /// # Errors
    /// A [`Rejection`] when the tokens there do not satisfy the rules.
    pub async fn authenticate(
        &self,
        _rules: &[Arc<JwtRule>],
        _request: TokenBearer<'_>,
    ) -> Result<Authenticated, Rejection> {
        todo!()
    }

    /// As `authenticate`, and tells each step (for `fhirward explain` and `fhirward test`).
    ///
    /// # Errors
    /// As `authenticate`.
    pub async fn explain(
        &self,
        _rules: &[Arc<JwtRule>],
        _request: TokenBearer<'_>,
    ) -> (Result<Authenticated, Rejection>, Vec<Step>) {
        todo!()
    }

    /// Tells which rules the present snapshot has, so that their keys are fetched ahead, kept fresh
    /// in the background and dropped when no longer named. Called on each new snapshot.
    pub fn follow<'a>(&self, _rules: impl Iterator<Item = &'a Arc<JwtRule>>) {
        todo!()
    }

    /// Every issuer's state: for `/metrics`, `/readyz`, `/config_dump`.
    #[must_use]
    pub fn issuers(&self) -> Vec<IssuerStatus> {
        todo!()
    }
}

/// Health of an issuer, with hysteresis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The last fetches succeeded.
    Up,
    /// Some of the last fetches failed; keys are there.
    Degraded,
    /// It has failed for long enough to be called down.
    Down,
}

/// An issuer's state at a moment.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerStatus {
    /// Issuer as the rules name it (empty: rules without issuer, named by their JWKS address).
    pub issuer: String,
    /// Where its keys come from.
    pub keys_from: String,
    /// Health.
    pub health: Health,
    /// Usable keys at hand.
    pub keys: usize,
    /// Seconds since the keys were last confirmed by the provider; `None`: never.
    pub age_seconds: Option<u64>,
    /// Whether the keys at hand were read from disk and not confirmed since.
    pub from_disk: bool,
    /// Last failure, in words without secrets.
    pub last_error: Option<String>,
}
