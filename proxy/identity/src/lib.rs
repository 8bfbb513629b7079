//! Credentials to principals: tokens, JWKS, identity provider health; and workload identity (`spiffe`).
//!
//! The tokens of a request are found and verified against the workload's `JwtRule`s; what comes
//! out is an [`Authenticated`] or a [`Rejection`]. Status codes are chosen by the reply room.
//!
//! Way of a token: `find` (places) -> `requirement` (which rules must hold) -> `check` (cache,
//! then `token`: parse, issuer, time, audience; then `keys`: signature) -> `output` (identity,
//! headers). Keys come from a `source`, one per issuer and address, each with one task.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use policy::{RequestIdentity, target::CanonicalTarget};

mod authenticator;
mod cache;
mod check;
pub mod clock;
mod counters;
mod find;
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod net;
mod output;
mod reason;
mod requirement;
mod rule;
pub mod settings;
mod source;
mod sources;
pub mod spiffe;
#[cfg(test)]
mod tests;
mod token;
mod trace;

pub use authenticator::{Authenticator, SetupError};
pub use clock::Clock;
pub use counters::{CountersSnapshot, FetchCounters};
pub use reason::RejectionReason;
pub use settings::{IdentitySettings, ProviderSettings};
pub use sources::OfflineIssuer;

/// The part of a request in which tokens stand.
#[derive(Debug, Clone, Copy)]
pub struct TokenBearer<'a> {
    /// Method (CORS preflight is let through without a token check).
    pub method: &'a Method,
    /// Headers as received.
    pub headers: &'a HeaderMap,
    /// Canonical target.
    pub target: &'a CanonicalTarget,
    /// When its tokens had to count, in Unix seconds, for a request that is judged again; `None`: now.
    pub at: Option<i64>,
}

/// What a request's tokens say of it.
#[derive(Debug, Clone, Default)]
pub struct Authenticated {
    /// The verified identity; `None` where there was no token.
    pub identity: Option<Arc<RequestIdentity>>,
    /// Issuer of that token's rule, for the record.
    pub issuer: Option<Arc<str>>,
    /// That issuer's health, for the record.
    pub health: Option<Health>,
    /// Changes that must be made to the request before it is judged and forwarded.
    pub edits: Edits,
}

/// Changes to a request: token removal, payload and claim headers, spoofing guards.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    /// Headers removed (all values).
    pub remove_headers: Vec<HeaderName>,
    /// Headers then set; a name that is there twice has two values.
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

/// Health of an issuer, with hysteresis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The last fetches succeeded.
    Up,
    /// Some of the last fetches failed, or none has succeeded yet.
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
    /// Where its keys come from: an address, `discovery` or `inline`.
    pub keys_from: String,
    /// Health.
    pub health: Health,
    /// Usable keys at hand.
    pub keys: usize,
    /// Keys of the provider's document that are not used (encryption, shared secrets, weak, unknown).
    pub skipped_keys: usize,
    /// Seconds since the keys were last confirmed by the provider; `None`: never, or `inline`.
    pub age_seconds: Option<u64>,
    /// Whether the keys at hand were read from disk and not confirmed since.
    pub from_disk: bool,
    /// Last failure, in words without secrets; `None` after a success.
    pub last_error: Option<String>,
    /// Fetches so far.
    pub counters: FetchCounters,
}
