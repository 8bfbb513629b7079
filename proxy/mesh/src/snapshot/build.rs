//! From objects and settings to a snapshot: names first, then policies, then routes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use policy::{
    Object, Problem, SpiffeId, WorkloadName,
    istio::{JwtRule, MeshConfig, Policies, WorkloadFacts},
    target::{Normalization, TargetRules},
};

use super::{
    Directory, Snapshot, Workload, addresses,
    drafts::{self, Draft, Drafts},
    gateways,
    objects::Sorted,
    services, tunnels,
};
use crate::{
    routing::{
        GatewayKey,
        api::{ApiSources, GATEWAY_NAME_LABEL, NamespaceLabels},
        istio::IstioSources,
        table::Sources,
    },
    settings::MeshSettings,
};

/// Where no settings were given.
pub(super) const STRICTEST: TargetRules = TargetRules { normalization: Normalization::Base, strict: true };

pub(super) fn build(
    objects: &[Object],
    settings: &MeshSettings,
    version: u64,
) -> Result<(Snapshot, Vec<Problem>), Vec<Problem>> {
    let mut problems = Vec::new();
    let sorted = Sorted::sort(objects, &mut problems);
    let (policies, found) = Policies::read(objects);
    problems.extend(found);
    let namespaces = namespace_labels(&sorted.namespaces);
    let mut workloads = drafts::read(&sorted.workloads, &mut problems);
    drafts::merge(&mut workloads, settings, &mut problems);
    tunnels::merge(&mut workloads, settings, &mut problems);
    drafts::make_up_addresses(&mut workloads);
    let ambiguous = drafts::ambiguous(&workloads, &mut problems);
    let services = services::read(&sorted.services, &workloads, &mut problems);
    // Policies that must not be used are not compiled either.
    if problems.iter().any(Problem::is_error) {
        return Err(problems);
    }
    let context = Context { mesh: settings.mesh_config(), settings, policies, namespaces };
    let directory = context.directory(&workloads, &services, ambiguous);
    let by_address = addresses::by_address(&services, &directory, settings, &mut problems);
    let registry = services::registry(&services, &sorted.istio, &directory, settings, &mut problems);
    let istio = IstioSources::read(&sorted.istio, &registry, &mut problems);
    let Context { mesh, policies, namespaces, .. } = context;
    let api = ApiSources::read(&sorted.gateway_api, namespaces, &registry, &mut problems);
    let (errors, warnings): (Vec<_>, Vec<_>) = problems.into_iter().partition(Problem::is_error);
    if !errors.is_empty() {
        return Err(errors.into_iter().chain(warnings).collect());
    }
    let mut snapshot = Snapshot {
        version,
        mesh,
        used_kinds: sorted.used,
        unused_kinds: sorted.unused,
        workloads: directory,
        policies,
        sources: Sources { istio, api },
        target_rules: Some(target_rules(settings, None)),
        services: by_address,
        ..Snapshot::default()
    };
    snapshot.jwt_rules = jwt_rules(&snapshot);
    Ok((snapshot, warnings))
}

fn target_rules(settings: &MeshSettings, strict: Option<bool>) -> TargetRules {
    let strict = strict.unwrap_or(settings.strict_target);
    TargetRules { normalization: settings.path_normalization, strict }
}

fn namespace_labels(namespaces: &[&Object]) -> NamespaceLabels {
    let labels = |object: &&Object| (object.metadata.name.clone(), object.metadata.labels.clone());
    namespaces.iter().map(labels).collect()
}

/// What workloads are made from.
struct Context<'a> {
    mesh: MeshConfig,
    settings: &'a MeshSettings,
    policies: Policies,
    namespaces: NamespaceLabels,
}

impl Context<'_> {
    fn directory(
        &self,
        drafts: &Drafts,
        services: &[services::Service],
        contested: BTreeSet<std::net::IpAddr>,
    ) -> Directory {
        let mut declared = addresses::declared(services, drafts);
        let services = services::by_workload(services);
        let mut directory = Directory::default();
        for (index, (name, draft)) in drafts.iter().enumerate() {
            let mut workload = self.workload(name, draft, &services);
            workload.protocols = declared.remove(name).unwrap_or_default();
            let workload = Arc::new(workload);
            for ip in draft.ips.iter().filter(|ip| !contested.contains(ip)) {
                directory.by_ip.insert(*ip, Arc::clone(&workload));
            }
            directory.by_name.insert(name.clone(), index);
            directory.sorted.push(workload);
        }
        directory.contested = contested;
        directory
    }

    fn workload(
        &self,
        name: &WorkloadName,
        draft: &Draft,
        services: &HashMap<&WorkloadName, Vec<&WorkloadName>>,
    ) -> Workload {
        let services: Vec<WorkloadName> =
            services.get(name).into_iter().flatten().map(|service| (*service).clone()).collect();
        let gateway = draft.labels.get(GATEWAY_NAME_LABEL);
        let facts = WorkloadFacts {
            name: name.clone(),
            labels: draft.labels.clone(),
            services: services.iter().map(|service| service.name.clone()).collect(),
            gateways: gateway
                .map(|gateway| WorkloadName { namespace: name.namespace.clone(), name: gateway.clone() })
                .into_iter()
                .collect(),
            gateway_classes: Vec::new(),
        };
        let account = draft.service_account.as_deref().unwrap_or("default");
        let unspecified = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        Workload {
            name: name.clone(),
            identity: SpiffeId {
                trust_domain: self.mesh.trust_domain.clone(),
                namespace: name.namespace.clone(),
                service_account: account.to_owned(),
            },
            ip: draft.ips.first().copied().unwrap_or(unspecified),
            ports: draft.ports.clone(),
            enrolled: draft.is_enrolled(self.namespaces.get(&name.namespace)),
            upstream: draft.upstream.clone(),
            services,
            policy: Arc::new(self.policies.compile(&self.mesh, &facts)),
            target_rules: target_rules(self.settings, draft.strict_target),
            fhir: draft.fhir.clone(),
            labels: facts.labels,
            annotations: draft.annotations.clone(),
            probes: draft.probes.clone(),
            pods: draft.pods(self.namespaces.get(&name.namespace)),
            protocols: std::collections::BTreeMap::new(),
            tunnel: draft.tunnel,
        }
    }
}

/// The rules of all workloads, and of the gateways that the manifests name.
fn jwt_rules(snapshot: &Snapshot) -> Vec<Arc<JwtRule>> {
    let gateways: Vec<Arc<Workload>> =
        named_gateways(snapshot).iter().map(|key| gateways::stand_in(key, snapshot)).collect();
    let mut seen = HashSet::new();
    snapshot
        .workloads
        .sorted
        .iter()
        .chain(&gateways)
        .flat_map(|workload| workload.policy.jwt_rules())
        .filter(|rule| seen.insert((Arc::clone(&rule.origin), rule.place.clone())))
        .cloned()
        .collect()
}

fn named_gateways(snapshot: &Snapshot) -> BTreeSet<GatewayKey> {
    let istio = snapshot.sources.istio.gateways();
    let mut keys: BTreeSet<GatewayKey> =
        istio.iter().map(|gateway| GatewayKey { labels: gateway.selector().clone(), port: 0 }).collect();
    keys.extend(snapshot.sources.api.gateways().iter().flat_map(|gateway| {
        gateway.ports().map(|port| GatewayKey {
            labels: BTreeMap::from([(GATEWAY_NAME_LABEL.to_owned(), gateway.name.name.clone())]),
            port,
        })
    }));
    keys
}
