//! What a gateway listener needs of a snapshot, put together when the listener first asks.
//!
//! A snapshot does not know which listeners there are; they are few, and each asks with the same
//! key again and again. A slot is written once and then only read: no lock on the way of a request.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use policy::{SpiffeId, WorkloadName, istio::WorkloadFacts};

use super::{Snapshot, Workload, drafts};
use crate::routing::{
    GatewayKey,
    api::{GATEWAY_NAME_LABEL, Gateway},
    table::Table,
};

/// Most different gateway keys that one snapshot serves; further ones get nothing (404).
pub(super) const MAX_GATEWAYS: usize = 64;

/// Where Istio runs its ingress gateway, and what it calls it.
const INGRESS_NAMESPACE: &str = "istio-system";
const INGRESS_NAME: &str = "istio-ingressgateway";

/// Prepared gateways.
#[derive(Debug)]
pub(super) struct GatewaySlots(Vec<OnceLock<GatewaySlot>>);

/// One prepared gateway.
#[derive(Debug)]
pub(super) struct GatewaySlot {
    key: GatewayKey,
    pub(super) workload: Arc<Workload>,
    pub(super) table: Table,
}

impl Default for GatewaySlots {
    fn default() -> Self {
        Self((0..MAX_GATEWAYS).map(|_| OnceLock::new()).collect())
    }
}

impl GatewaySlots {
    /// The slot of a key, prepared if need be.
    pub(super) fn get(&self, key: &GatewayKey, snapshot: &Snapshot) -> Option<&GatewaySlot> {
        // A cell that another key took meanwhile is passed over.
        self.0
            .iter()
            .map(|cell| cell.get_or_init(|| GatewaySlot::prepare(key, snapshot)))
            .find(|slot| slot.key == *key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &GatewayKey> {
        self.0.iter().map_while(OnceLock::get).map(|slot| &slot.key)
    }
}

impl GatewaySlot {
    fn prepare(key: &GatewayKey, snapshot: &Snapshot) -> Self {
        let workload = stand_in(key, snapshot);
        let table = Table::assemble(&snapshot.sources, key, &workload.name.namespace);
        Self { key: key.clone(), workload, table }
    }
}

/// The workload whose policies hold at the gateway.
pub(super) fn stand_in(key: &GatewayKey, snapshot: &Snapshot) -> Arc<Workload> {
    let served: Vec<&Gateway> = snapshot.sources.api.gateways_for(key).collect();
    let found = find(key, snapshot);
    if let (Some(found), true) = (&found, served.is_empty()) {
        return Arc::clone(found);
    }
    let mut workload = match found {
        Some(found) => Workload::clone(&found),
        None => make_up(key, &served, snapshot),
    };
    let facts = WorkloadFacts {
        name: workload.name.clone(),
        labels: workload.labels.clone(),
        services: workload.services.iter().map(|service| service.name.clone()).collect(),
        gateways: served.iter().map(|gateway| gateway.name.clone()).collect(),
        gateway_classes: served.iter().map(|gateway| gateway.class.clone()).collect(),
    };
    workload.policy = Arc::new(snapshot.policies.compile(&snapshot.mesh, &facts));
    Arc::new(workload)
}

/// The workload that has all the key's labels; of several one in Istio's own namespace, else the
/// first by name. No labels mean no workload.
fn find(key: &GatewayKey, snapshot: &Snapshot) -> Option<Arc<Workload>> {
    if key.labels.is_empty() {
        return None;
    }
    let has = |workload: &&Arc<Workload>| {
        key.labels.iter().all(|(name, value)| workload.labels.get(name) == Some(value))
    };
    let fitting = || snapshot.workloads.sorted.iter().filter(has);
    fitting()
        .find(|workload| workload.name.namespace == INGRESS_NAMESPACE)
        .or_else(|| fitting().next())
        .cloned()
}

fn make_up(key: &GatewayKey, served: &[&Gateway], snapshot: &Snapshot) -> Workload {
    let mut labels = key.labels.clone();
    let named = served.first().filter(|_| key.labels.contains_key(GATEWAY_NAME_LABEL));
    let (name, account) = match named {
        Some(gateway) => {
            let name = format!("{}-{}", gateway.name.name, gateway.class);
            let namespace = gateway.name.namespace.clone();
            (WorkloadName { namespace, name: name.clone() }, name)
        }
        None => {
            if labels.get("istio").is_some_and(|value| value == "ingressgateway") {
                labels.entry("app".to_owned()).or_insert_with(|| INGRESS_NAME.to_owned());
            }
            let name =
                WorkloadName { namespace: INGRESS_NAMESPACE.to_owned(), name: INGRESS_NAME.to_owned() };
            (name, format!("{INGRESS_NAME}-service-account"))
        }
    };
    let taken = |ip: &std::net::IpAddr| snapshot.workloads.by_ip.contains_key(ip);
    Workload {
        identity: SpiffeId {
            trust_domain: snapshot.mesh.trust_domain.clone(),
            namespace: name.namespace.clone(),
            service_account: account,
        },
        ip: drafts::made_up(&format!("gateway {name}"), taken),
        name,
        labels,
        ports: BTreeMap::new(),
        enrolled: true,
        upstream: BTreeMap::new(),
        services: Vec::new(),
        policy: Arc::default(),
        target_rules: snapshot.target_rules.unwrap_or(super::build::STRICTEST),
        fhir: None,
        annotations: BTreeMap::new(),
        probes: Vec::new(),
        pods: Vec::new(),
        protocols: BTreeMap::new(),
        tunnel: None,
    }
}
