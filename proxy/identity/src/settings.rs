//! Settings of this room.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::spiffe::CertificateSettings;

/// `identity:` of the settings file: identity providers, key caches, limits.
/// Times in milliseconds where the name says so, else in seconds; sizes in bytes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IdentitySettings {
    /// What an operator says of single providers (private CA, another address).
    pub providers: Vec<ProviderSettings>,
    /// Folder in which the last good keys are kept across restarts; none: memory only.
    pub key_cache_dir: Option<PathBuf>,
    /// How the keys of the providers are fetched and kept.
    pub keys: KeySettings,
    /// When a provider is called `up`, `degraded` or `down`.
    pub health: HealthSettings,
    /// Limits on tokens.
    pub tokens: TokenSettings,
    /// Certificates of the workloads, for mTLS in the mesh; none where not given.
    pub certificates: Option<CertificateSettings>,
}

/// What an operator says of one provider.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderSettings {
    /// The issuer this is about, exactly as in the manifests.
    pub issuer: String,
    /// Fetch the keys from here instead of the manifest's `jwksUri` or the issuer's discovery document.
    #[serde(default)]
    pub jwks_uri: Option<String>,
    /// Connect to this `address:port` instead of what the URL's host resolves to.
    #[serde(default)]
    pub connect_to: Option<std::net::SocketAddr>,
    /// PEM file of the authorities trusted for this provider, beside none other.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// How keys are fetched and kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KeySettings {
    /// Seconds between two fetches of a provider's keys while it answers (10 % jitter). A smaller
    /// `Cache-Control: max-age` is honoured down to `minRefreshSeconds`. The provider's health is
    /// seen by these fetches, hence the short default.
    pub refresh_seconds: u64,
    /// No provider can make us ask more often than this, in seconds.
    pub min_refresh_seconds: u64,
    /// Seconds between two fetches of a discovery document while the keys can be fetched.
    pub discovery_seconds: u64,
    /// First wait after a failed fetch; doubled with each further failure.
    pub retry_min_ms: u64,
    /// Longest wait after a failed fetch.
    pub retry_max_ms: u64,
    /// A token with an unknown `kid` makes us ask the provider, at most once in this time, however
    /// many such tokens come. Later ones are refused at once.
    pub kid_refetch_interval_ms: u64,
    /// An unknown `kid` that the provider did not know either is refused without asking for so long.
    pub unknown_kid_seconds: u64,
    /// So many unknown `kid`s are remembered, per provider.
    pub unknown_kids: usize,
    /// Requests that may wait for one provider's keys at a time; more are refused at once.
    pub waiters: usize,
    /// Last good keys are used for so long after the provider last confirmed them; then its tokens
    /// are refused. 0: for ever.
    pub max_age_seconds: u64,
    /// Connecting to one address of a provider.
    pub connect_timeout_ms: u64,
    /// Longest time for one fetch, whatever a rule's `timeout` says.
    pub fetch_timeout_max_ms: u64,
    /// Largest JWKS or discovery document.
    pub document_bytes: usize,
    /// Most keys in a JWKS; a larger one is refused.
    pub keys_per_document: usize,
}

impl Default for KeySettings {
    fn default() -> Self {
        Self {
            refresh_seconds: 60,
            min_refresh_seconds: 10,
            discovery_seconds: 3_600,
            retry_min_ms: 1_000,
            retry_max_ms: 10_000,
            kid_refetch_interval_ms: 5_000,
            unknown_kid_seconds: 30,
            unknown_kids: 1_024,
            waiters: 1_024,
            max_age_seconds: 24 * 3_600,
            connect_timeout_ms: 2_000,
            fetch_timeout_max_ms: 30_000,
            document_bytes: 256 * 1024,
            keys_per_document: 64,
        }
    }
}

/// When a provider changes its health: counted in fetches in a row.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HealthSettings {
    /// `degraded` after so many failed fetches in a row.
    pub degraded_after_failures: u32,
    /// `down` after so many failed fetches in a row…
    pub down_after_failures: u32,
    /// … if the first of them is at least so many seconds ago.
    pub down_after_seconds: u64,
    /// `up` again after so many successful fetches in a row.
    pub up_after_successes: u32,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            degraded_after_failures: 1,
            down_after_failures: 3,
            down_after_seconds: 15,
            up_after_successes: 2,
        }
    }
}

/// Limits on tokens. One beyond a limit is refused (401).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TokenSettings {
    /// Longest token.
    pub token_bytes: usize,
    /// Longest JOSE header within it, encoded.
    pub header_bytes: usize,
    /// Deepest nesting of claims.
    pub claims_depth: usize,
    /// Most values in the claims, counted at every depth.
    pub claims_values: usize,
    /// Most tokens in one request for one rule.
    pub tokens_per_rule: usize,
    /// Allowed clock skew for `exp` and `nbf`, in seconds (Envoy's is 60).
    pub clock_skew_seconds: u64,
    /// Verified tokens kept; one counts double, triple, … for each further 2 KiB. 0: none.
    pub cache_entries: u64,
    /// A verified token that is not used for so long is forgotten, in seconds.
    pub cache_idle_seconds: u64,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            token_bytes: 16 * 1024,
            header_bytes: 4 * 1024,
            claims_depth: 32,
            claims_values: 2_048,
            tokens_per_rule: 8,
            clock_skew_seconds: 60,
            cache_entries: 16_384,
            cache_idle_seconds: 600,
        }
    }
}
