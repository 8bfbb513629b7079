//! Settings of this room.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// `identity:` of the settings file: identity providers, key caches, limits.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IdentitySettings {
    /// What an operator says of single providers (private CA, another address).
    pub providers: Vec<ProviderSettings>,
    /// Folder in which the last good keys are kept across restarts; none: memory only.
    pub key_cache_dir: Option<PathBuf>,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        Self { providers: Vec::new(), key_cache_dir: None }
    }
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
