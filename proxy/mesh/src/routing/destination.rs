//! From the host, port and subset of a destination to the workloads behind it.
//!
//! A name that Services of the mesh bear always leads to workloads, whose policies hold. Addresses
//! from the settings or a ServiceEntry are used only where no Service bears the name, and where
//! such an address is a workload's, the workload is meant: no route leads around its policies.
//! (A loopback address is everybody's on the host: there the port decides whose it is. A ServiceEntry leads
//! to none but those of workloads.)

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{RouteDestination, fault::roll};
use crate::snapshot::{Declared, Workload};

/// The suffix of the names of Services.
pub(crate) const SERVICE_SUFFIX: &str = "svc.cluster.local";
/// Longest chain of ExternalName Services.
const MAX_ALIASES: usize = 8;

/// A workload and its container port.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Its container port.
    pub port: u16,
}

/// What stands behind a destination.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Nobody bears the name, or not with that port or subset.
    Unknown,
    /// These workloads; none: nobody answers.
    Workloads(Arc<[Endpoint]>),
    /// These addresses outside the mesh.
    External(Arc<[SocketAddr]>),
    /// A Service of several ports and a destination that names none: the gateway's port counts.
    ByListenerPort(Arc<BTreeMap<u16, Target>>),
}

impl Target {
    /// Picks one endpoint.
    pub(crate) fn pick(&self, listener_port: u16, dice: u64) -> Option<RouteDestination> {
        match self {
            Self::Unknown => None,
            Self::Workloads(endpoints) => one_of(endpoints, dice).map(|endpoint| {
                RouteDestination::Workload { workload: Arc::clone(&endpoint.workload), port: endpoint.port }
            }),
            Self::External(addresses) => {
                one_of(addresses, dice).map(|address| RouteDestination::External { address: *address })
            }
            Self::ByListenerPort(targets) => match targets.get(&listener_port)? {
                Self::ByListenerPort(_) => None,
                target => target.pick(listener_port, dice),
            },
        }
    }

    /// Whether the destination names something that exists, be it without endpoints.
    pub(crate) fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

fn one_of<T>(list: &[T], dice: u64) -> Option<&T> {
    let index = roll(dice, 4).checked_rem(list.len() as u64)?;
    list.get(usize::try_from(index).ok()?)
}

/// What bears a host name.
#[derive(Debug, Clone)]
pub(crate) enum Host {
    /// A Service of the mesh.
    Service(ServiceHost),
    /// A Service of type ExternalName: another name for this host.
    Alias(String),
    /// A ServiceEntry.
    Entry(EntryHost),
}

/// A Service and the workloads that it picks.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceHost {
    pub(crate) ports: Vec<ServicePort>,
    /// `None` where it has no selector: endpoints are managed by hand, and not known here.
    pub(crate) workloads: Option<Vec<Arc<Workload>>>,
}

/// A Service's port.
#[derive(Debug, Clone)]
pub(crate) struct ServicePort {
    pub(crate) number: u16,
    pub(crate) target: TargetPort,
    /// What its name or `appProtocol` says.
    pub(crate) declared: Option<Declared>,
    /// It is of TCP.
    pub(crate) tcp: bool,
}

impl ServiceHost {
    /// All endpoints of all ports.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        let ports = self.ports.iter();
        ports.flat_map(|port| {
            let workloads = self.workloads.iter().flatten();
            workloads.filter_map(|workload| endpoint(workload, &port.target))
        })
    }
}

/// A container port, by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TargetPort {
    Number(u16),
    Name(String),
}

impl TargetPort {
    /// The number, by these named ports.
    pub(crate) fn number(&self, ports: &BTreeMap<String, u16>) -> Option<u16> {
        match self {
            Self::Number(port) => Some(*port),
            Self::Name(name) => ports.get(name).copied(),
        }
    }
}

/// A ServiceEntry: a port, and where it leads.
#[derive(Debug, Clone, Default)]
pub(crate) struct EntryHost {
    pub(crate) namespace: String,
    /// By port of the entry.
    pub(crate) addresses: BTreeMap<u16, Vec<SocketAddr>>,
    /// By port of the entry: workloads that its `workloadSelector` picks.
    pub(crate) workloads: BTreeMap<u16, Vec<Endpoint>>,
}

/// Everything that bears a name.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) hosts: HashMap<String, Host, ahash::RandomState>,
    /// `host:port` to an address: `upstreams` of the settings.
    pub(crate) upstreams: HashMap<String, SocketAddr, ahash::RandomState>,
    /// Labels of a host's subset (DestinationRule).
    pub(crate) subsets: HashMap<(String, String), BTreeMap<String, String>, ahash::RandomState>,
    /// Workloads by the addresses at which they are reached.
    pub(crate) by_ip: HashMap<IpAddr, Arc<Workload>, ahash::RandomState>,
    pub(crate) by_upstream: HashMap<SocketAddr, Endpoint, ahash::RandomState>,
    /// Addresses that several workloads claim: whose policies hold there is not known.
    pub(crate) contested: BTreeSet<IpAddr>,
}

/// The server name by which Istio's proxies ask for a Service's port in mTLS (istiod's
/// `BuildDNSSrvSubsetKey`).
#[must_use]
pub fn mesh_sni(host: &str, port: u16, subset: Option<&str>) -> String {
    format!("outbound_.{port}_.{}_.{host}", subset.unwrap_or_default())
}

/// The full name of a host as written in a namespace: short names are Services of that namespace
/// (`ResolveShortnameToFQDN`); `name.ns.svc` is taken too.
pub(crate) fn full_name(host: &str, namespace: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if host.is_empty() || host == "*" || host.parse::<IpAddr>().is_ok() {
        return host;
    }
    if !host.contains('.') {
        return format!("{host}.{namespace}.{SERVICE_SUFFIX}");
    }
    let parts: Vec<&str> = host.split('.').collect();
    match parts.as_slice() {
        [name, namespace, "svc"] => format!("{name}.{namespace}.{SERVICE_SUFFIX}"),
        _ => host,
    }
}

impl Registry {
    /// What stands behind a full host name, port (`None`: the Service's only one, else the
    /// gateway's) and subset.
    pub(crate) fn target(&self, host: &str, port: Option<u16>, subset: Option<&str>) -> Target {
        let mut host = host;
        for _ in 0..MAX_ALIASES {
            match self.hosts.get(host) {
                Some(Host::Alias(other)) => host = other,
                Some(Host::Service(service)) => return self.service(host, service, port, subset),
                Some(Host::Entry(entry)) if subset.is_none() => return self.entry(host, entry, port),
                Some(Host::Entry(_)) => return Target::Unknown,
                None => return self.outside(host, port),
            }
        }
        Target::Unknown
    }

    fn service(&self, host: &str, service: &ServiceHost, port: Option<u16>, subset: Option<&str>) -> Target {
        let labels = match subset {
            None => None,
            Some(subset) => match self.subsets.get(&(host.to_owned(), subset.to_owned())) {
                Some(labels) => Some(labels),
                None => return Target::Unknown,
            },
        };
        let at = |port: &ServicePort| match &service.workloads {
            None => self.address(host, port.number).map_or_else(none, |to| self.external(vec![to])),
            Some(workloads) => workloads
                .iter()
                .filter(|workload| labels.is_none_or(|labels| has_labels(workload, labels)))
                .filter_map(|workload| endpoint(workload, &port.target))
                .collect::<Arc<[_]>>()
                .into(),
        };
        match (port, service.ports.as_slice()) {
            (Some(number), ports) => {
                ports.iter().find(|port| port.number == number).map_or(Target::Unknown, at)
            }
            (None, [only]) => at(only),
            (None, ports) => {
                let targets = ports.iter().map(|port| (port.number, at(port))).collect();
                Target::ByListenerPort(Arc::new(targets))
            }
        }
    }

    fn entry(&self, host: &str, entry: &EntryHost, port: Option<u16>) -> Target {
        let ports: Vec<u16> = entry.addresses.keys().copied().collect();
        let at = |port: u16| {
            if let Some(address) = self.address(host, port) {
                return self.external(vec![address]);
            }
            match entry.workloads.get(&port).filter(|endpoints| !endpoints.is_empty()) {
                Some(endpoints) => Target::Workloads(endpoints.clone().into()),
                None => match entry.addresses.get(&port) {
                    Some(addresses) => {
                        let leads = |address: &&SocketAddr| {
                            !is_of_the_node(address.ip()) || self.by_upstream.contains_key(*address)
                        };
                        self.external(addresses.iter().filter(leads).copied().collect())
                    }
                    None => Target::Unknown,
                },
            }
        };
        match (port, ports.as_slice()) {
            (Some(port), _) => at(port),
            (None, [only]) => at(*only),
            (None, ports) => {
                Target::ByListenerPort(Arc::new(ports.iter().map(|port| (*port, at(*port))).collect()))
            }
        }
    }

    /// A name that no manifest bears: only the settings can say where it is.
    fn outside(&self, host: &str, port: Option<u16>) -> Target {
        if let Some(port) = port {
            return match self.address(host, port) {
                Some(address) => self.external(vec![address]),
                None => Target::Unknown,
            };
        }
        let targets: BTreeMap<u16, Target> = self
            .upstreams
            .iter()
            .filter_map(|(name, address)| {
                let (named, port) = name.rsplit_once(':')?;
                (named == host).then(|| Some((port.parse().ok()?, self.external(vec![*address]))))?
            })
            .collect();
        if targets.is_empty() { Target::Unknown } else { Target::ByListenerPort(Arc::new(targets)) }
    }

    fn address(&self, host: &str, port: u16) -> Option<SocketAddr> {
        self.upstreams.get(&format!("{host}:{port}")).copied()
    }

    /// Addresses outside the mesh; where one is a workload's, the workloads among them alone.
    fn external(&self, mut addresses: Vec<SocketAddr>) -> Target {
        let workloads: Vec<Endpoint> =
            addresses.iter().filter_map(|address| self.endpoint_at(address)).collect();
        if !workloads.is_empty() {
            return Target::Workloads(workloads.into());
        }
        addresses.retain(|address| address.ip().is_loopback() || !self.contested.contains(&address.ip()));
        Target::External(addresses.into())
    }

    fn endpoint_at(&self, address: &SocketAddr) -> Option<Endpoint> {
        if let Some(endpoint) = self.by_upstream.get(address) {
            return Some(endpoint.clone());
        }
        let workload = self.by_ip.get(&address.ip()).filter(|_| !address.ip().is_loopback())?;
        Some(Endpoint { workload: Arc::clone(workload), port: address.port() })
    }
}

impl From<Arc<[Endpoint]>> for Target {
    fn from(endpoints: Arc<[Endpoint]>) -> Self {
        Self::Workloads(endpoints)
    }
}

/// Whether an address means the host that connects to it, or its link: what listens there (upstreams,
/// admin servers, a cloud's metadata) is for whoever runs the host, and no manifest's to hand out.
fn is_of_the_node(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    ip.is_loopback() || ip.is_unspecified() || link_local
}

fn none() -> Target {
    Target::Workloads(Arc::from([]))
}

fn has_labels(workload: &Workload, labels: &BTreeMap<String, String>) -> bool {
    labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
}

/// A named port leads only to workloads that have it.
pub(crate) fn endpoint(workload: &Arc<Workload>, target: &TargetPort) -> Option<Endpoint> {
    let port = target.number(&workload.ports)?;
    Some(Endpoint { workload: Arc::clone(workload), port })
}
