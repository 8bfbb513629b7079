//! Services, ServiceEntries and subsets: who stands behind a host name.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use policy::{Object, Problem, WorkloadName, manifest::codes};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    Workload,
    addresses::Declared,
    drafts::{Drafts, canonical},
    null_is_default,
    pods::IntOrString,
};
use crate::{
    routing::{
        destination::{
            Endpoint, EntryHost, Host, Registry, SERVICE_SUFFIX, ServiceHost, ServicePort, TargetPort,
            endpoint, full_name,
        },
        istio::spec::DestinationRuleSpec,
    },
    settings::MeshSettings,
};

type Labels = BTreeMap<String, String>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    external_name: Option<String>,
    selector: Option<Labels>,
    #[serde(deserialize_with = "null_is_default")]
    ports: Vec<ServicePortSpec>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs", deserialize_with = "null_is_default")]
    cluster_ips: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServicePortSpec {
    port: u16,
    #[serde(default)]
    target_port: Option<IntOrString>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    app_protocol: Option<String>,
    #[serde(default)]
    protocol: Option<String>,
}

/// A Service, read.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: WorkloadName,
    selector: Option<Labels>,
    ports: Vec<ServicePort>,
    alias: Option<String>,
    /// Workloads that its selector picks, by name.
    pub(super) picks: Vec<WorkloadName>,
    /// Its own addresses.
    pub(super) ips: Vec<IpAddr>,
}

/// Workloads by one of their labels: most selectors pick few of many.
struct LabelIndex<'a>(HashMap<(&'a str, &'a str, &'a str), Vec<&'a WorkloadName>, ahash::RandomState>);

impl<'a> LabelIndex<'a> {
    fn of(drafts: &'a Drafts) -> Self {
        let mut index: HashMap<_, Vec<_>, _> = HashMap::default();
        for (name, draft) in drafts {
            for (key, value) in &draft.labels {
                let entry = (name.namespace.as_str(), key.as_str(), value.as_str());
                index.entry(entry).or_default().push(name);
            }
        }
        Self(index)
    }

    /// The workloads of a namespace that have all these labels; none for no labels at all.
    fn pick(&self, namespace: &str, selector: &Labels, drafts: &Drafts) -> Vec<WorkloadName> {
        let lists =
            selector.iter().map(|(key, value)| self.0.get(&(namespace, key.as_str(), value.as_str())));
        let Some(shortest) = lists.map(|list| list.map_or(&[][..], Vec::as_slice)).min_by_key(|l| l.len())
        else {
            return Vec::new();
        };
        let fits =
            |name: &&&WorkloadName| drafts.get(**name).is_some_and(|draft| has_all(&draft.labels, selector));
        shortest.iter().filter(fits).map(|name| (*name).clone()).collect()
    }
}

fn has_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Reads the Services.
pub(super) fn read(objects: &[&Object], drafts: &Drafts, problems: &mut Vec<Problem>) -> Vec<Service> {
    let index = LabelIndex::of(drafts);
    let mut services = Vec::new();
    for object in objects {
        let spec = match object.field::<ServiceSpec>("spec") {
            Ok(spec) => spec.unwrap_or_default(),
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let namespace = object.namespace();
        let ips = own_addresses(&spec, object, problems);
        let selector = spec.selector.filter(|selector| !selector.is_empty());
        let picks =
            selector.as_ref().map(|selector| index.pick(namespace, selector, drafts)).unwrap_or_default();
        let external = spec.kind.as_deref() == Some("ExternalName");
        let alias = spec.external_name.filter(|_| external);
        services.push(Service {
            name: WorkloadName { namespace: namespace.to_owned(), name: object.metadata.name.clone() },
            selector,
            ports: spec.ports.into_iter().map(service_port).collect(),
            alias: alias.map(|alias| full_name(&alias, namespace)),
            picks,
            ips: if external { Vec::new() } else { ips },
        });
    }
    services
}

/// `clusterIP` and `clusterIPs`; a headless Service (`None`) has none.
fn own_addresses(spec: &ServiceSpec, object: &Object, problems: &mut Vec<Problem>) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    let texts = spec.cluster_ip.iter().chain(&spec.cluster_ips);
    for text in texts.filter(|text| !text.is_empty() && *text != "None") {
        match text.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(ip) if ips.contains(&ip) => {}
            Ok(ip) => ips.push(ip),
            Err(_) => {
                let place = object.place_of(&["spec", "clusterIP"]);
                let message = format!("`{text}` is no IP address");
                let problem = Problem::error(codes::INVALID_VALUE, place, "spec.clusterIP", message);
                problems.push(problem.of(object.label()));
            }
        }
    }
    ips
}

fn service_port(spec: ServicePortSpec) -> ServicePort {
    let target = match spec.target_port {
        None | Some(IntOrString::Int(0)) => TargetPort::Number(spec.port),
        Some(IntOrString::Int(port)) => TargetPort::Number(port),
        // The API server refuses a name of digits alone; where it still comes, a number is meant.
        Some(IntOrString::String(name)) => match name.parse() {
            Ok(port) => TargetPort::Number(port),
            Err(_) => TargetPort::Name(name),
        },
    };
    let declared = Declared::of(spec.name.as_deref(), spec.app_protocol.as_deref());
    let tcp = spec.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    ServicePort { number: spec.port, target, declared, tcp }
}

/// Builds the registry from Services, ServiceEntries, DestinationRules and settings.
pub(super) fn registry(
    services: &[Service],
    istio: &[&Object],
    workloads: &super::Directory,
    settings: &MeshSettings,
    problems: &mut Vec<Problem>,
) -> Registry {
    let mut registry = Registry {
        by_ip: workloads.by_ip.clone(),
        contested: workloads.contested.clone(),
        upstreams: upstreams(settings, problems),
        ..Registry::default()
    };
    let hosts: Vec<(String, Host)> = services
        .iter()
        .map(|service| {
            let WorkloadName { namespace, name } = &service.name;
            (format!("{name}.{namespace}.{SERVICE_SUFFIX}"), service.host(workloads))
        })
        .collect();
    let served = hosts.iter().filter_map(|(_, host)| match host {
        Host::Service(service) => Some(service.endpoints()),
        _ => None,
    });
    let named = workloads.sorted.iter().flat_map(|workload| {
        let ports = workload.upstream.keys().chain(workload.ports.values());
        ports.map(|port| Endpoint { workload: Arc::clone(workload), port: *port })
    });
    for endpoint in named.chain(served.flatten()) {
        let address = endpoint.workload.upstream(endpoint.port);
        registry.by_upstream.entry(address).or_insert(endpoint);
    }
    for object in istio.iter().filter(|object| object.kind == "ServiceEntry") {
        if let Err(problem) = add_entry(&mut registry, object, workloads) {
            problems.push(problem);
        }
    }
    // After the entries: a Service keeps its name whatever entries claim it.
    registry.hosts.extend(hosts);
    for object in istio.iter().filter(|object| object.kind == "DestinationRule") {
        add_subsets(&mut registry, object, problems);
    }
    registry
}

fn upstreams(
    settings: &MeshSettings,
    problems: &mut Vec<Problem>,
) -> HashMap<String, SocketAddr, ahash::RandomState> {
    let mut upstreams = HashMap::default();
    for (name, address) in &settings.upstreams {
        match name.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                upstreams.insert(name.to_ascii_lowercase(), canonical(*address));
            }
            _ => problems.push(super::drafts::setting(
                &format!("mesh.upstreams.{name}"),
                format!("`{name}` is not `host:port`"),
            )),
        }
    }
    upstreams
}

impl Service {
    /// Its ports, but for those of UDP and SCTP.
    pub(super) fn tcp_ports(&self) -> impl Iterator<Item = &ServicePort> {
        self.ports.iter().filter(|port| port.tcp)
    }

    /// Who stands behind a port; `None` where that is not known here.
    pub(super) fn endpoints(
        &self,
        port: &ServicePort,
        workloads: &super::Directory,
    ) -> Option<Arc<[Endpoint]>> {
        self.selector.as_ref()?;
        let picked = self.picks.iter().filter_map(|name| workloads.get(name));
        Some(picked.filter_map(|workload| endpoint(workload, &port.target)).collect())
    }

    fn host(&self, workloads: &super::Directory) -> Host {
        if let Some(alias) = &self.alias {
            return Host::Alias(alias.clone());
        }
        let picked = || self.picks.iter().filter_map(|name| workloads.get(name)).cloned().collect();
        Host::Service(ServiceHost {
            ports: self.ports.clone(),
            workloads: self.selector.as_ref().map(|_| picked()),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct EntrySpec {
    hosts: Vec<String>,
    ports: Vec<EntryPort>,
    endpoints: Vec<EntryEndpoint>,
    workload_selector: Option<EntrySelector>,
    #[serde(rename = "addresses")]
    _addresses: Vec<String>,
    #[serde(rename = "location")]
    _location: Option<String>,
    #[serde(rename = "resolution")]
    _resolution: Option<String>,
    #[serde(rename = "exportTo")]
    _export_to: Vec<String>,
    #[serde(rename = "subjectAltNames")]
    _subject_alt_names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EntryPort {
    number: u16,
    #[serde(default)]
    name: String,
    #[serde(default)]
    target_port: Option<u16>,
    #[serde(default, rename = "protocol")]
    _protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct EntryEndpoint {
    address: String,
    ports: BTreeMap<String, u16>,
    #[serde(rename = "labels")]
    _labels: Labels,
    #[serde(rename = "network")]
    _network: Option<String>,
    #[serde(rename = "locality")]
    _locality: Option<String>,
    #[serde(rename = "weight")]
    _weight: Option<u32>,
    #[serde(rename = "serviceAccount")]
    _service_account: Option<String>,
    #[serde(rename = "capacity")]
    _capacity: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EntrySelector {
    labels: Labels,
}

impl EntryPort {
    fn target(&self) -> u16 {
        self.target_port.filter(|port| *port != 0).unwrap_or(self.number)
    }
}

/// Endpoints with IP addresses, and workloads by selector; names are not resolved here, so entries
/// of resolution DNS lead only where the settings' `upstreams` say.
fn add_entry(registry: &mut Registry, object: &Object, workloads: &super::Directory) -> Result<(), Problem> {
    let spec = object.field::<EntrySpec>("spec")?.unwrap_or_default();
    if spec.hosts.is_empty() {
        let place = object.place_of(&["spec"]);
        let problem = Problem::error(codes::MISSING_FIELD, place, "spec.hosts", "`hosts` names no host");
        return Err(problem.of(object.label()));
    }
    let namespace = object.namespace();
    let picked: Vec<&Arc<Workload>> = match &spec.workload_selector {
        Some(selector) => workloads
            .sorted
            .iter()
            .filter(|workload| workload.name.namespace == namespace)
            .filter(|workload| has_all(&workload.labels, &selector.labels))
            .collect(),
        None => Vec::new(),
    };
    for host in &spec.hosts {
        let entry = registry.hosts.entry(full_name(host, namespace)).or_insert_with(|| {
            Host::Entry(EntryHost { namespace: namespace.to_owned(), ..EntryHost::default() })
        });
        let Host::Entry(entry) = entry else { continue };
        // Of entries of several namespaces the first counts: a tenant cannot divert another's host.
        if entry.namespace != namespace {
            continue;
        }
        for port in &spec.ports {
            let addresses = entry.addresses.entry(port.number).or_default();
            for endpoint in &spec.endpoints {
                if let Ok(ip) = endpoint.address.parse::<IpAddr>() {
                    let number = endpoint.ports.get(&port.name).copied();
                    let number = number.unwrap_or_else(|| port.target());
                    addresses.push(canonical(SocketAddr::new(ip, number)));
                }
            }
            let endpoints = entry.workloads.entry(port.number).or_default();
            endpoints.extend(
                picked
                    .iter()
                    .map(|workload| Endpoint { workload: Arc::clone(workload), port: port.target() }),
            );
        }
    }
    Ok(())
}

fn add_subsets(registry: &mut Registry, object: &Object, problems: &mut Vec<Problem>) {
    let spec = match object.field::<DestinationRuleSpec>("spec") {
        Ok(Some(spec)) => spec,
        Ok(None) => return,
        Err(problem) => return problems.push(problem),
    };
    if let Some(policy) = &spec.traffic_policy {
        let text = "load balancing, pools and TLS towards destinations are the proxy's own";
        problems.push(policy.warning(codes::NOT_ENFORCED, text).of(object.label()));
    }
    let host = full_name(&spec.host, object.namespace());
    for subset in spec.subsets {
        registry.subsets.entry((host.clone(), subset.name)).or_insert(subset.labels);
    }
}

/// Names of the Services of each workload.
pub(super) fn by_workload(services: &[Service]) -> HashMap<&WorkloadName, Vec<&WorkloadName>> {
    let mut found: HashMap<&WorkloadName, Vec<&WorkloadName>> = HashMap::new();
    for service in services {
        let mut seen = HashSet::new();
        for name in service.picks.iter().filter(|name| seen.insert(*name)) {
            found.entry(name).or_default().push(&service.name);
        }
    }
    found
}
