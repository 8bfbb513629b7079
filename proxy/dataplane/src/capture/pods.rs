//! The pods that are captured now. One writer ([`super::manage`]), which publishes a whole new table.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ahash::RandomState;
use arc_swap::{ArcSwap, Guard};
use mesh::{Snapshot, Workload};
use policy::WorkloadName;
use tokio_util::sync::CancellationToken;

use super::{CaptureSettings, Plumbing, Pod, PodId};
use crate::{
    authorize::Permitted,
    dice::Dice,
    forward::{Door, Inside, Kernel, Passage},
    record::Labels,
    secure::{Certificates, Whose, WorkloadTls},
    serve::{Drain, Gauge},
};

/// Everything about captured pods that connections need.
pub(crate) struct Pods {
    table: ArcSwap<Table>,
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) settings: CaptureSettings,
    /// Of workloads, for the records that no decision begins.
    pub(super) labels: Labels,
    certificates: Option<Arc<Certificates>>,
}

/// A captured pod, held by its connections.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) pod: Arc<Pod>,
    pub(crate) drain: Arc<Drain>,
    /// Its workload's mTLS, where there are certificates.
    pub(crate) tls: Option<Arc<WorkloadTls>>,
    /// Its connections, both ways.
    pub(crate) connections: Gauge,
    /// Ends the taking of connections.
    pub(super) stop: CancellationToken,
    /// Where its listeners listen.
    pub(super) listeners: Vec<SocketAddr>,
}

/// One moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    held: HashMap<PodId, Arc<Held>, RandomState>,
    /// Those that have the address in their network namespaces, the oldest first.
    by_ip: HashMap<IpAddr, Vec<Arc<Held>>, RandomState>,
    by_name: HashMap<WorkloadName, Vec<Arc<Held>>, RandomState>,
    listeners: HashSet<SocketAddr, RandomState>,
    node: HashSet<IpAddr, RandomState>,
}

impl Pods {
    pub(crate) fn new(
        plumbing: Arc<dyn Plumbing>,
        settings: CaptureSettings,
        certificates: Option<Arc<Certificates>>,
    ) -> Self {
        let kernel = Arc::new(Kernel { plumbing, dice: Dice::new() });
        Self { table: ArcSwap::default(), kernel, settings, labels: Labels::default(), certificates }
    }

    /// The mTLS of a pod's workload.
    pub(super) fn tls(&self, pod: &Pod) -> Option<Arc<WorkloadTls>> {
        Some(self.certificates.as_ref()?.of(Whose::Workload(pod.name.clone())))
    }

    pub(crate) fn now(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// Changes the table. Called by the one writer.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = Table::clone(&self.table.load());
        let result = change(&mut table);
        table.index();
        self.table.store(Arc::new(table));
        result
    }

    /// The way into a captured pod for what the gateway, or a listener for a workload, sends on: its
    /// own connections would be captured on their way in, and judged once more.
    pub(crate) fn passage(&self, permitted: &Permitted) -> Option<Passage> {
        let door = self.door(permitted.workload.as_deref()?, permitted.upstream)?;
        Some(Passage { door, http2: None })
    }

    /// The way to a workload that is reached at this address, where its pod is captured here.
    pub(super) fn door(&self, workload: &Workload, upstream: SocketAddr) -> Option<Arc<Door>> {
        let table = self.now();
        let (held, address) = table.behind(workload, upstream)?;
        let kernel = Arc::clone(&self.kernel);
        let inside = Inside { kernel, pod: Arc::clone(&held.pod), from: None, client: None };
        Some(Arc::new(Door::new(inside, address)))
    }
}

impl Table {
    pub(super) fn insert(&mut self, held: Arc<Held>) -> Option<Arc<Held>> {
        self.held.insert(held.pod.id, held)
    }

    pub(super) fn remove(&mut self, id: PodId) -> Option<Arc<Held>> {
        self.held.remove(&id)
    }

    pub(super) fn set_node(&mut self, addresses: Vec<IpAddr>) {
        self.node = addresses.into_iter().map(|ip| ip.to_canonical()).collect();
    }

    fn index(&mut self) {
        let mut all: Vec<&Arc<Held>> = self.held.values().collect();
        // An address that was given anew is the newer pod's.
        all.sort_by_key(|held| (held.pod.id.generation, held.pod.id.slot));
        self.by_ip = HashMap::default();
        self.by_name = HashMap::default();
        self.listeners = HashSet::default();
        for held in all {
            for ip in &held.pod.addresses {
                self.by_ip.entry(ip.to_canonical()).or_default().push(Arc::clone(held));
            }
            self.by_name.entry(held.pod.name.clone()).or_default().push(Arc::clone(held));
            self.listeners.extend(&held.listeners);
        }
    }

    /// The pod that has this address, and may: a pod that can change its network namespace can put any
    /// address there. One that pods of several workloads have is nobody's; the network finds its owner.
    pub(crate) fn at(&self, ip: IpAddr, snapshot: &Snapshot) -> Option<&Arc<Held>> {
        let mut owners =
            self.by_ip.get(&ip)?.iter().rev().filter(|held| self.is_of(ip, &held.pod.name, snapshot));
        let newest = owners.next()?;
        owners.all(|other| other.pod.name == newest.pod.name).then_some(newest)
    }

    /// Whether nothing that is known speaks against a workload's pod having the address: it is not the
    /// node's, nor another workload's, and where all of its Pod objects have addresses it is among them.
    pub(super) fn is_of(&self, ip: IpAddr, name: &WorkloadName, snapshot: &Snapshot) -> bool {
        if self.is_node(ip) {
            return false;
        }
        if let Some(owner) = snapshot.workload_at(ip) {
            return owner.name == *name;
        }
        let Some(workload) = snapshot.workload(name) else { return true };
        let mut pods = workload.pods.iter().filter(|pod| !pod.finished).peekable();
        let is_told = |pod: &mesh::Pod| pod.ips.iter().any(|other| other.is_ipv4() == ip.is_ipv4());
        if pods.peek().is_none() || workload.pods.iter().any(|pod| !pod.finished && !is_told(pod)) {
            return true;
        }
        pods.any(|pod| pod.ips.contains(&ip))
    }

    /// The captured pods of a workload.
    pub(crate) fn of(&self, name: &WorkloadName) -> &[Arc<Held>] {
        self.by_name.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the address is the node's own.
    pub(crate) fn is_node(&self, ip: IpAddr) -> bool {
        self.node.contains(&ip)
    }

    /// Whether a listener of ours is there.
    pub(crate) fn is_listener(&self, address: SocketAddr) -> bool {
        self.listeners.contains(&address)
    }

    /// The captured pod behind the address at which a workload is reached: the one that has it, else
    /// one of the workload's own, unless the settings lead the port elsewhere.
    fn behind(&self, workload: &Workload, upstream: SocketAddr) -> Option<(&Arc<Held>, SocketAddr)> {
        let having = self.by_ip.get(&upstream.ip()).map(Vec::as_slice).unwrap_or_default();
        if let Some(held) = having.iter().rev().find(|held| held.pod.name == workload.name) {
            return Some((held, upstream));
        }
        if workload.upstream.values().any(|address| *address == upstream) {
            return None;
        }
        let held = self.of(&workload.name).first()?;
        let ip = held.pod.addresses.first()?;
        Some((held, SocketAddr::new(*ip, upstream.port())))
    }
}
