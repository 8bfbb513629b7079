//! Settings of this room.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use policy::{istio::MeshConfig, target::Normalization};
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
    /// Where hosts outside the manifests are: `host:port` of a route's destination to
    /// `address:port`. Services of the mesh with a selector always lead to their workloads instead.
    pub upstreams: BTreeMap<String, SocketAddr>,
    /// Addresses of Services, beside their `clusterIP`: `namespace/name` to an IP address. Calls of
    /// captured pods to one of them lead to the Service's workloads.
    pub service_addresses: BTreeMap<String, IpAddr>,
    /// How the proxy in front of a workload is spoken to, whatever its pods' labels say: `namespace/name` to
    /// `{kind, address}`. `kind` is `hbone`, `sidecar` (mTLS as Istio's sidecars take it) or `none`; `address`, of
    /// `hbone` alone, is where it is spoken if not at port 15008 of the pod's own address.
    pub tunnels: BTreeMap<String, TunnelSettings>,
    /// What manifests may cost.
    pub limits: ManifestLimits,
}

/// How the proxy in front of a workload is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TunnelSettings {
    /// `hbone`, `sidecar` (mTLS as Istio's sidecars speak it) or `none` (as it is).
    pub kind: TunnelKind,
    /// Where HBONE is spoken; port 15008 of the pod's address where not given. Of `hbone` alone.
    #[serde(default)]
    pub address: Option<SocketAddr>,
}

/// A kind of tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TunnelKind {
    /// HTTP/2 CONNECT over mutual TLS.
    Hbone,
    /// Mutual TLS at the port itself.
    Sidecar,
    /// Neither.
    None,
}

impl TunnelSettings {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match (self.kind, self.address) {
            (TunnelKind::Hbone, None) => Ok(()),
            (TunnelKind::Hbone, Some(address)) if address.port() == 0 => Err("port 0 is no port"),
            (TunnelKind::Hbone, Some(address)) if address.ip().is_unspecified() => {
                Err("`address` names no host")
            }
            (TunnelKind::Hbone, Some(_)) | (_, None) => Ok(()),
            (_, Some(_)) => Err("`address` is of the kind `hbone` alone"),
        }
    }
}

/// `mesh.limits:` what manifests may cost; beyond, they are refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ManifestLimits {
    /// Longest manifest file, bytes.
    pub file_bytes: u64,
    /// All manifest files together, bytes.
    pub total_bytes: u64,
    /// Most manifest files.
    pub files: usize,
    /// Most objects in all files.
    pub objects: usize,
}

impl Default for ManifestLimits {
    fn default() -> Self {
        Self { file_bytes: 32 * 1024 * 1024, total_bytes: 256 * 1024 * 1024, files: 10_000, objects: 200_000 }
    }
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
            upstreams: BTreeMap::new(),
            service_addresses: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            limits: ManifestLimits::default(),
        }
    }
}

impl MeshSettings {
    /// The part that policies know.
    #[must_use]
    pub fn mesh_config(&self) -> MeshConfig {
        MeshConfig {
            trust_domain: self.trust_domain.clone(),
            trust_domain_aliases: self.trust_domain_aliases.clone(),
            root_namespace: self.root_namespace.clone(),
            path_normalization: self.path_normalization,
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

impl WorkloadSettings {
    /// A workload of that name (`namespace/name`) and nothing more said of it.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            labels: BTreeMap::new(),
            service_account: None,
            ip: None,
            ports: BTreeMap::new(),
            enrolled: None,
            upstream: BTreeMap::new(),
            strict_target: None,
            fhir: None,
        }
    }
}

/// How a workload serves FHIR.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FhirSettings {
    /// Base path (`/fhir`), without trailing slash; empty for the root.
    #[serde(default)]
    pub base: String,
}
