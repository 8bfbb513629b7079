//! One moment of the mesh: immutable, shared by every request that began under it.

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, sync::Arc};

use policy::{
    Object, Problem, SpiffeId, WorkloadName,
    istio::{JwtRule, MeshConfig, WorkloadPolicy},
    target::TargetRules,
};

use crate::{
    routing::{GatewayKey, RouteQuery, Routed},
    settings::{FhirSettings, MeshSettings},
};

/// One moment of the mesh.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up with each change; named by every record.
    pub version: u64,
    /// Mesh-wide settings.
    pub mesh: MeshConfig,
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
}

impl Workload {
    /// Where a container port is really reached.
    #[must_use]
    pub fn upstream(&self, port: u16) -> SocketAddr {
        self.upstream.get(&port).copied().unwrap_or(SocketAddr::new(self.ip, port))
    }
}

impl Snapshot {
    /// Builds a snapshot aside, whole, or says why not.
    ///
    /// # Errors
    /// Every problem of severity `Error`; the caller keeps its last good snapshot (invariant 5).
    /// Warnings come with the snapshot.
    pub fn build(
        _objects: &[Object],
        _settings: &MeshSettings,
        _version: u64,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        todo!()
    }

    /// The workload of that name.
    #[must_use]
    pub fn workload(&self, _name: &WorkloadName) -> Option<&Arc<Workload>> {
        todo!()
    }

    /// The workload at that address.
    #[must_use]
    pub fn workload_at(&self, _ip: IpAddr) -> Option<&Arc<Workload>> {
        todo!()
    }

    /// All workloads, sorted by name.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        std::iter::empty()
    }

    /// Every JWT rule of every workload, each once.
    pub fn jwt_rules(&self) -> impl Iterator<Item = &Arc<JwtRule>> {
        std::iter::empty()
    }

    /// The workload that stands for an ingress gateway with these labels: its policies hold at the gateway.
    #[must_use]
    pub fn gateway_workload(&self, _gateway: &GatewayKey) -> Option<&Arc<Workload>> {
        todo!()
    }

    /// Picks the destination of a request that came in at a gateway.
    #[must_use]
    pub fn route(&self, _gateway: &GatewayKey, _query: &RouteQuery<'_>) -> Routed {
        todo!()
    }
}
