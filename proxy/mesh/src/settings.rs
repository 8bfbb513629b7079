//! Settings of this room.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use policy::target::Normalization;
use schemars::JsonSchema;
use serde::Deserialize;

/// `mesh:` of the settings file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MeshSettings {
    /// Files and folders of manifests (YAML, JSON); folders are read without descending.
    pub manifests: Vec<PathBuf>,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Other names of the trust domain.
    pub trust_domain_aliases: Vec<String>,
    /// Istio's root namespace: policies there hold for the whole mesh.
    pub root_namespace: String,
    /// `NONE`, `BASE`, `MERGE_SLASHES` or `DECODE_AND_MERGE_SLASHES`.
    #[schemars(with = "String")]
    pub path_normalization: Normalization,
    /// Trusted proxies in front of the gateway (`numTrustedProxies`).
    pub num_trusted_proxies: u32,
    /// Workloads beside, or more about, those in the manifests.
    pub workloads: Vec<WorkloadSettings>,
    /// Refuse ambiguous targets and method overrides, where a workload does not say otherwise.
    pub strict_target: bool,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            manifests: Vec::new(),
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".to_owned(),
            path_normalization: Normalization::Base,
            num_trusted_proxies: 0,
            workloads: Vec::new(),
            strict_target: true,
        }
    }
}

/// One workload, by `namespace/name`: added, or merged with the one found in the manifests.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSettings {
    /// `namespace/name`.
    pub name: String,
    /// Pod labels; those of the manifests where not given.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Service account; `default` where neither this nor the manifests say.
    #[serde(default)]
    pub service_account: Option<String>,
    /// Address by which policies know it; a distinct one is made up where not given.
    #[serde(default)]
    pub ip: Option<IpAddr>,
    /// Named container ports.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// In the mesh or not, whatever the labels say.
    #[serde(default)]
    pub enrolled: Option<bool>,
    /// Where the workload's container ports are really reached: port to `address:port`.
    #[serde(default)]
    pub upstream: BTreeMap<u16, SocketAddr>,
    /// Refuse ambiguous targets and method overrides; the mesh's `strictTarget` where not given.
    #[serde(default)]
    pub strict_target: Option<bool>,
    /// Set where the workload serves FHIR: denials then speak OperationOutcome to FHIR clients.
    #[serde(default)]
    pub fhir: Option<FhirSettings>,
}

/// How a workload serves FHIR.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FhirSettings {
    /// Base path (`/fhir`), without trailing slash; empty for the root.
    #[serde(default)]
    pub base: String,
}
