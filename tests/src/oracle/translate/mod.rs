//! Istio manifests to an Envoy configuration, as istiod writes it: a small translator of our own, which
//! shares nothing with the proxy's compiler but the reader of YAML.
//!
//! AuthorizationPolicy (ALLOW, DENY, AUDIT, dry run) becomes `rbac` filters, RequestAuthentication a
//! `jwt_authn` filter, in istiod's order. (istio/istio `pilot/pkg/security/{authz,authn}`; pinned on Envoy 1.40.)

mod jwt;
mod listener;
mod manifests;
mod matcher;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

pub use manifests::Manifests;

/// A manifest that the translator does not know how to translate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TranslateError(pub String);

/// How a mesh normalises targets (Istio's `meshConfig.pathNormalization`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Normalization {
    /// Nothing.
    None,
    /// RFC 3986: dot segments, backslashes, unreserved characters.
    Base,
    /// And slashes that follow each other.
    MergeSlashes,
    /// And `%2F` and `%5C`.
    DecodeAndMergeSlashes,
}

impl Normalization {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::None, Self::Base, Self::MergeSlashes, Self::DecodeAndMergeSlashes];

    /// The name in mesh configuration and settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Base => "BASE",
            Self::MergeSlashes => "MERGE_SLASHES",
            Self::DecodeAndMergeSlashes => "DECODE_AND_MERGE_SLASHES",
        }
    }
}

/// One inbound listener of a sidecar: a workload's, with the policies that select it.
#[derive(Debug, Clone)]
pub struct EnvoyListener {
    /// A name, for statistics.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The workload's namespace.
    pub namespace: String,
    /// The workload's labels.
    pub labels: BTreeMap<String, String>,
    /// The port that manifests know; they mean `address`'s.
    pub workload_port: u16,
    /// Where requests go.
    pub upstream: SocketAddr,
    /// Whether the upstream is spoken to in HTTP/2.
    pub upstream_http2: bool,
    /// The mesh's mode.
    pub normalization: Normalization,
    /// How many verified tokens each provider remembers; none, as Istio has it, where not given.
    pub jwt_cache_size: Option<u32>,
}

impl EnvoyListener {
    /// A listener for a workload of no labels at port 8080, in mode BASE, without a cache of tokens.
    #[must_use]
    pub fn new(name: &str, namespace: &str, address: SocketAddr, upstream: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            address,
            namespace: namespace.to_owned(),
            labels: BTreeMap::new(),
            workload_port: 8080,
            upstream,
            upstream_http2: false,
            normalization: Normalization::Base,
            jwt_cache_size: None,
        }
    }
}

/// The whole configuration as JSON: the listeners, a cluster for each upstream, the admin server. HTTP/1.1 and
/// HTTP/2 with prior knowledge come in at the same port.
///
/// # Errors
/// What in a manifest that selects one of the workloads cannot be translated.
pub fn envoy_config(
    manifests: &Manifests,
    listeners: &[EnvoyListener],
    admin: SocketAddr,
) -> Result<String, TranslateError> {
    let mut clusters = BTreeMap::new();
    let mut translated = Vec::new();
    for one in listeners {
        let name = listener::cluster_name(one);
        clusters.entry(name).or_insert_with(|| listener::cluster(one));
        translated.push(listener::listener(manifests, one)?);
    }
    let clusters: Vec<Value> = clusters.into_values().collect();
    let config = json!({
        "admin": {"address": socket(admin)},
        // As istiod's bootstrap has it: a fragment is cut off rather than refused.
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {
            "envoy.reloadable_features.http_reject_path_with_fragment": false,
        }}]},
        "static_resources": {"listeners": translated, "clusters": clusters},
    });
    Ok(config.to_string())
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
