//! What the agent and this crate tell each other.

use std::{
    fmt,
    os::fd::{BorrowedFd, OwnedFd},
    path::PathBuf,
};

use crate::Netns;

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
    /// Whether sockets of the pod and of the proxy are joined by sk_msg.
    pub accelerated: bool,
}

/// What `enrol` made.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The pod's slot.
    pub slot: Slot,
    /// False: it was there already, whole and ready, and its listeners stand if the proxy lives. True:
    /// end its old connections, serve it, and say ready.
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
    /// Whether every program is attached. If not, the pod is not captured: it opens no connections, if
    /// it was cut off after the first guard, until it is enrolled again or un-enrolled.
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
