//! Everything the agent keeps in the kernel.

use std::{
    fmt,
    os::fd::{BorrowedFd, OwnedFd},
    path::PathBuf,
};

use abi::{Counter, DnsPorts};

use crate::{EnrolError, LoadError, Netns, SocketKind};

/// A pod's number on this node, below [`abi::MAX_PODS`]; used again after the pod is un-enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u32);

impl Slot {
    /// None where there is no such slot.
    pub const fn new(number: u32) -> Option<Self> {
        if number < abi::MAX_PODS { Some(Self(number)) } else { None }
    }

    /// As the programs and the maps have it.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the pins are and what the programs allow.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder in a BPF file system; `fhirward` is made below it.
    pub bpffs: PathBuf,
    /// Ids of the cgroups whose sockets may open connections out of pods: the agent's. Earlier ones
    /// stay allowed as long as their cgroup is there.
    pub allowed_cgroups: Vec<u64>,
    /// Connections between the application's `connect` and the proxy's `accept`; takes effect when
    /// nothing is pinned yet.
    pub origins: u32,
}

/// What is known of a pod that is to be enrolled.
#[derive(Clone, Debug)]
pub struct PodFacts {
    /// Workload as `namespace/name`, for messages and `status`.
    pub name: String,
    /// Its network namespace; never the agent's own.
    pub netns: Netns,
    /// Folder of its cgroup; everything below counts as the pod's.
    pub cgroup: PathBuf,
    /// Whether servers in the pod see the client's address.
    pub transparent: bool,
    /// Whether sockets of the pod and of the proxy are joined by sk_msg.
    pub accelerated: bool,
}

/// What `enrol` made.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The pod's slot.
    pub slot: Slot,
    /// False: it was there already and whole, and its listeners and readiness still stand.
    pub fresh: bool,
    /// For the log and `status`, such as an interface whose other end could not be guarded.
    pub remarks: Vec<String>,
}

/// A pod found in the pins.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// Its slot.
    pub slot: Slot,
    /// Its name as it was enrolled, cut to [`abi::NAME_LENGTH`] bytes.
    pub name: String,
    /// Cookie of its network namespace.
    pub netns_cookie: u64,
    /// Inode of its network namespace.
    pub netns_inode: u64,
    /// Id of its cgroup.
    pub cgroup: u64,
    /// Whether every program is attached. If not, the pod has no connections until it is enrolled
    /// again or un-enrolled.
    pub complete: bool,
    /// Programs that are not attached, or whose cgroup, namespace or interface is gone.
    pub missing: Vec<String>,
    /// Programs that are attached, as their pins are called.
    pub programs: Vec<String>,
    /// Whether the pod may open connections.
    pub ready: bool,
    /// Whether its network namespace is still there, held perhaps by the proxy's sockets alone.
    pub netns_alive: bool,
    /// Whether its cgroup is still there.
    pub cgroup_alive: bool,
}

/// A pod whose pins were removed because it is gone.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The slot that is free again.
    pub slot: Slot,
    /// Name as it was enrolled; empty where only half a pin was left.
    pub name: String,
}

/// The proxy's listeners of one pod. A family without listener is refused.
#[derive(Clone, Copy, Debug)]
pub struct Listeners<'a> {
    /// Arriving connections, IPv4.
    pub in4: BorrowedFd<'a>,
    /// Arriving connections, IPv6.
    pub in6: Option<BorrowedFd<'a>>,
    /// Connections the pod opens, IPv4.
    pub out4: BorrowedFd<'a>,
    /// Connections the pod opens, IPv6.
    pub out6: Option<BorrowedFd<'a>>,
}

/// What the proxy needs, for [`crate::proxy`].
#[derive(Debug)]
pub struct ProxyMaps {
    /// `ORIGINS`.
    pub origins: OwnedFd,
    /// `DNS_ORIGINS`.
    pub dns_origins: OwnedFd,
    /// `COUNTERS`.
    pub counters: OwnedFd,
}

/// The programs, maps and pins of this node. One per node: a lock makes sure.
#[derive(Debug)]
pub struct Kernel {
    settings: Settings,
}

impl Kernel {
    /// Makes or adopts the maps. Adopts no pod: see [`Kernel::adopted`] and [`Kernel::enrol`].
    pub fn open(settings: &Settings) -> Result<Self, LoadError> {
        let kernel = Self { settings: settings.clone() };
        Err(kernel.unbuilt())
    }

    fn unbuilt(&self) -> LoadError {
        LoadError::NotBpffs { path: self.settings.bpffs.clone() }
    }

    /// The pods found in the pins, whole or not.
    pub fn adopted(&self) -> Result<Vec<Adopted>, LoadError> {
        Err(self.unbuilt())
    }

    /// Attaches every program, in the order that leaves no instant in which a connection goes round,
    /// and no connection is let through until [`Kernel::ready`]. A pod that is there already is mended
    /// where something is missing and otherwise left alone. Blocks for some milliseconds.
    pub fn enrol(&mut self, pod: &PodFacts) -> Result<Enrolled, EnrolError> {
        let _ = pod;
        Err(EnrolError::Refused("not built yet".to_owned()))
    }

    /// Fresh sockets inside the pod's network namespace, at most 64 at a time.
    pub fn sockets(&self, slot: Slot, kind: SocketKind, count: usize) -> Result<Vec<OwnedFd>, LoadError> {
        let _ = (slot, kind, count);
        Err(self.unbuilt())
    }

    /// Gives the pod's connections to these listeners, and its DNS queries to these ports. The
    /// listeners before them get no new ones.
    pub fn serve(&mut self, slot: Slot, listeners: &Listeners<'_>, dns: DnsPorts) -> Result<(), LoadError> {
        let _ = (slot, listeners, dns);
        Err(self.unbuilt())
    }

    /// Ends TCP connections that leave the pod and are not the proxy's, and UDP sockets connected to
    /// a DNS server. Returns how many.
    pub fn end_old_connections(&self, slot: Slot) -> Result<u32, LoadError> {
        let _ = slot;
        Err(self.unbuilt())
    }

    /// Lets the pod open connections: to the proxy.
    pub fn ready(&mut self, slot: Slot) -> Result<(), LoadError> {
        let _ = slot;
        Err(self.unbuilt())
    }

    /// Refuses the pod's connections with EPERM.
    pub fn unready(&mut self, slot: Slot) -> Result<(), LoadError> {
        let _ = slot;
        Err(self.unbuilt())
    }

    /// Removes every trace of the pod, in the reverse order of [`Kernel::enrol`].
    pub fn unenrol(&mut self, slot: Slot) -> Result<(), LoadError> {
        let _ = slot;
        Err(self.unbuilt())
    }

    /// Guards interfaces that the pod has gained; returns what cannot be guarded. Once a second.
    pub fn reconcile(&mut self, slot: Slot) -> Result<Vec<String>, LoadError> {
        let _ = slot;
        Err(self.unbuilt())
    }

    /// Removes the pins of pods whose network namespace is gone, and original destinations that no
    /// proxy has taken for five minutes.
    pub fn collect(&mut self) -> Result<Vec<Collected>, LoadError> {
        Err(self.unbuilt())
    }

    /// What the programs have counted since the maps were made.
    pub fn counters(&self) -> Result<Vec<(Counter, u64)>, LoadError> {
        Err(self.unbuilt())
    }

    /// File descriptors for the proxy.
    pub fn proxy_maps(&self) -> Result<ProxyMaps, LoadError> {
        Err(self.unbuilt())
    }
}
