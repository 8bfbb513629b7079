//! Services by their addresses, and what they declare of their ports.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use policy::{Place, Problem, WorkloadName};

use super::{Directory, drafts, services::Service};
use crate::{
    routing::destination::{Endpoint, SERVICE_SUFFIX},
    settings::MeshSettings,
};

/// What a Service declares of a port (Istio's protocol selection: `appProtocol`, else the port's name
/// before its first dash).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// HTTP of any version.
    Http,
    /// Bytes that are none of a proxy's business.
    Tcp,
    /// TLS up to the application.
    Tls,
}

impl Declared {
    /// Of a Service's port; `None` where it declares nothing that we know.
    pub(super) fn of(name: Option<&str>, app_protocol: Option<&str>) -> Option<Self> {
        match app_protocol {
            Some(protocol) => Self::named(protocol),
            None => Self::named(name?.split('-').next().unwrap_or_default()),
        }
    }

    fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "http" | "http2" | "h2c" | "grpc" | "grpc-web" | "kubernetes.io/h2c" | "kubernetes.io/ws" => {
                Some(Self::Http)
            }
            "tcp" | "mongo" | "mysql" | "redis" => Some(Self::Tcp),
            "tls" | "https" | "kubernetes.io/wss" => Some(Self::Tls),
            _ => None,
        }
    }
}

/// A Service's port, found by the Service's address.
#[derive(Debug, Clone)]
pub struct ServicePortAt {
    /// The Service.
    pub service: WorkloadName,
    /// Its full host name.
    pub host: Arc<str>,
    /// Workloads and container ports behind it; none: nobody answers. `None`: endpoints that are
    /// managed by hand, and not known here.
    pub endpoints: Option<Arc<[Endpoint]>>,
}

/// Services by address and port.
pub(super) type ByAddress = HashMap<SocketAddr, ServicePortAt, ahash::RandomState>;

/// What is declared of the container ports of each workload. Where two Services contradict each
/// other, nothing is.
pub(super) fn declared(
    services: &[Service],
    drafts: &drafts::Drafts,
) -> HashMap<WorkloadName, BTreeMap<u16, Declared>> {
    let mut found: HashMap<WorkloadName, BTreeMap<u16, Declared>> = HashMap::new();
    let mut contradicted = HashSet::new();
    for service in services {
        for (name, draft) in service.picks.iter().filter_map(|name| Some((name, drafts.get(name)?))) {
            for port in service.tcp_ports() {
                let (Some(declared), Some(number)) = (port.declared, port.target.number(&draft.ports)) else {
                    continue;
                };
                let before = found.entry(name.clone()).or_default().insert(number, declared);
                if before.is_some_and(|before| before != declared) {
                    contradicted.insert((name.clone(), number));
                }
            }
        }
    }
    for (name, port) in contradicted {
        if let Some(ports) = found.get_mut(&name) {
            ports.remove(&port);
        }
    }
    found
}

/// The Services that have addresses, by manifests and settings. An address that two Services claim is
/// neither's.
pub(super) fn by_address(
    services: &[Service],
    workloads: &Directory,
    settings: &MeshSettings,
    problems: &mut Vec<Problem>,
) -> ByAddress {
    let mut owners: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
    for service in services {
        for ip in &service.ips {
            owners.entry(*ip).or_default().push(service);
        }
    }
    for (name, ip) in &settings.service_addresses {
        let known = name.parse::<WorkloadName>().ok();
        match services.iter().find(|service| Some(&service.name) == known.as_ref()) {
            Some(service) => {
                let owners = owners.entry(ip.to_canonical()).or_default();
                if !owners.iter().any(|owner| owner.name == service.name) {
                    owners.push(service);
                }
            }
            None => {
                let text = format!("no Service `{name}` is in the manifests");
                problems.push(drafts::setting(&format!("mesh.serviceAddresses.{name}"), text));
            }
        }
    }
    let mut found = ByAddress::default();
    for (ip, owners) in owners {
        match owners.as_slice() {
            [service] => add(&mut found, ip, service, workloads),
            several => problems.push(contested(ip, several)),
        }
    }
    found
}

fn add(found: &mut ByAddress, ip: IpAddr, service: &Service, workloads: &Directory) {
    let WorkloadName { namespace, name } = &service.name;
    let host: Arc<str> = format!("{name}.{namespace}.{SERVICE_SUFFIX}").into();
    for port in service.tcp_ports() {
        let endpoints = service.endpoints(port, workloads);
        let at = ServicePortAt { service: service.name.clone(), host: Arc::clone(&host), endpoints };
        found.entry(SocketAddr::new(ip, port.number)).or_insert(at);
    }
}

fn contested(ip: IpAddr, services: &[&Service]) -> Problem {
    let names: Vec<String> = services.iter().map(|service| service.name.to_string()).collect();
    let text = format!("{ip} is the address of {}: it identifies neither", names.join(" and "));
    let place = Place { file: "snapshot".into(), line: 1, column: 1 };
    Problem::warning(crate::codes::AMBIGUOUS_ADDRESS, place, "", text)
}
