//! One moment of the mesh: immutable, shared by every request that began under it.

mod addresses;
mod build;
#[cfg(test)]
mod capture_tests;
mod drafts;
mod enrolment;
mod gateways;
mod objects;
mod pods;
mod services;
#[cfg(test)]
mod tests;
mod tunnels;
#[cfg(test)]
mod tunnels_tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use policy::{
    Object, Problem, SpiffeId, WorkloadName,
    istio::{JwtRule, MeshConfig, Policies, WorkloadPolicy},
    target::TargetRules,
};

use crate::{
    routing::{GatewayKey, RouteQuery, Routed, table::Sources},
    settings::{FhirSettings, MeshSettings, TunnelSettings},
};
use addresses::ByAddress;
use gateways::GatewaySlots;

pub use addresses::{Declared, ServicePortAt};
pub use drafts::is_made_up;
pub use pods::{Pod, Probe, ProbeKind};
pub use tunnels::{HBONE_PORT, Toward, Tunnel, TunnelWay};

/// One moment of the mesh.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up with each change; named by every record.
    pub version: u64,
    /// Mesh-wide settings.
    pub mesh: MeshConfig,
    /// How many objects of each kind (`Deployment.apps`) are used.
    pub used_kinds: BTreeMap<String, usize>,
    /// How many objects of each kind are not used: counted, not fatal.
    pub unused_kinds: BTreeMap<String, usize>,
    workloads: Directory,
    jwt_rules: Vec<Arc<JwtRule>>,
    policies: Policies,
    sources: Sources,
    target_rules: Option<TargetRules>,
    gateways: GatewaySlots,
    services: ByAddress,
}

/// A workload and what holds for it.
#[derive(Debug, Clone)]
pub struct Workload {
    /// `namespace/name`.
    pub name: WorkloadName,
    /// Pod labels.
    pub labels: BTreeMap<String, String>,
    /// Its identity: trust domain, namespace, service account.
    pub identity: SpiffeId,
    /// Address by which policies know it.
    pub ip: IpAddr,
    /// Named container ports.
    pub ports: BTreeMap<String, u16>,
    /// In the mesh.
    pub enrolled: bool,
    /// Where container ports are really reached; a port not named here is reached at `ip`.
    pub upstream: BTreeMap<u16, SocketAddr>,
    /// Services (namespace/name) that pick it.
    pub services: Vec<WorkloadName>,
    /// Its compiled policies.
    pub policy: Arc<WorkloadPolicy>,
    /// How its targets are treated.
    pub target_rules: TargetRules,
    /// How it serves FHIR, if it does.
    pub fhir: Option<FhirSettings>,
    /// Annotations of its pod template, or of its first pod where no template is known.
    pub annotations: BTreeMap<String, String>,
    /// Probes that the node sends to its containers.
    pub probes: Vec<Probe>,
    /// Its Pod objects, in the order of the manifests.
    pub pods: Vec<Pod>,
    /// What Services declare of its container ports.
    pub protocols: BTreeMap<u16, Declared>,
    /// How its proxy is spoken to, where the settings say.
    pub tunnel: Option<TunnelSettings>,
}

impl Workload {
    /// Where a container port is really reached.
    #[must_use]
    pub fn upstream(&self, port: u16) -> SocketAddr {
        self.upstream.get(&port).copied().unwrap_or(SocketAddr::new(self.ip, port))
    }
}

/// Workloads by name and address.
#[derive(Debug, Default)]
struct Directory {
    sorted: Vec<Arc<Workload>>,
    by_name: HashMap<WorkloadName, usize, ahash::RandomState>,
    by_ip: HashMap<IpAddr, Arc<Workload>, ahash::RandomState>,
    /// Addresses that several workloads claim; they are not in `by_ip`.
    contested: BTreeSet<IpAddr>,
}

impl Directory {
    fn get(&self, name: &WorkloadName) -> Option<&Arc<Workload>> {
        self.sorted.get(*self.by_name.get(name)?)
    }
}

impl Snapshot {
    /// Builds a snapshot aside, whole, or says why not.
    ///
    /// # Errors
    /// Every problem of severity `Error`, and the warnings beside them; the caller keeps its last
    /// good snapshot (invariant 5). Warnings come with the snapshot.
    pub fn build(
        objects: &[Object],
        settings: &MeshSettings,
        version: u64,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        build::build(objects, settings, version)
    }

    /// The workload of that name.
    #[must_use]
    pub fn workload(&self, name: &WorkloadName) -> Option<&Arc<Workload>> {
        self.workloads.get(name)
    }

    /// The workload at that address; `None` too where two workloads claim it.
    #[must_use]
    pub fn workload_at(&self, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads.by_ip.get(&ip)
    }

    /// The Service that has this address and TCP port, and who stands behind it.
    #[must_use]
    pub fn service_at(&self, ip: IpAddr, port: u16) -> Option<&ServicePortAt> {
        self.services.get(&SocketAddr::new(ip, port))
    }

    /// All workloads, sorted by name. Workloads that only stand for gateways are not among them.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.sorted.iter()
    }

    /// Every JWT rule of every workload and gateway, each once.
    pub fn jwt_rules(&self) -> impl Iterator<Item = &Arc<JwtRule>> {
        self.jwt_rules.iter()
    }

    /// The Istio policies as read: `Policies::lint` needs them.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The workload that stands for an ingress gateway with these labels: its policies hold at the
    /// gateway. A workload of the manifests that has the labels, else a made-up one
    /// (`istio-system/istio-ingressgateway`; for a Gateway API Gateway `<namespace>/<name>-<class>`,
    /// as Istio names what it deploys). `None` only beyond [`gateways::MAX_GATEWAYS`] different keys,
    /// where [`Snapshot::route`] finds nothing either.
    #[must_use]
    pub fn gateway_workload(&self, gateway: &GatewayKey) -> Option<&Arc<Workload>> {
        self.gateways.get(gateway, self).map(|slot| &slot.workload)
    }

    /// Picks the destination of a request that came in at a gateway.
    #[must_use]
    pub fn route(&self, gateway: &GatewayKey, query: &RouteQuery<'_>) -> Routed {
        match self.gateways.get(gateway, self) {
            Some(slot) => slot.table.route(query),
            None => Routed::NotFound,
        }
    }

    /// Prepares the gateways that `previous` served, so that no request waits for it.
    pub fn prepare_as(&self, previous: &Snapshot) {
        for key in previous.gateways.keys() {
            self.gateways.get(key, self);
        }
    }
}

/// Kubernetes takes null for an empty list, map or struct in its own types.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    <Option<T> as serde::Deserialize>::deserialize(deserializer).map(Option::unwrap_or_default)
}
