//! Pods without Kubernetes: network namespaces and cgroups of this machine, for the demo, the tests
//! of capture and the benchmark.
//!
//! ```text
//!   namespace of the node (agent and proxy live here)          a pod's namespace
//!   v1 10.77.0.1/30, fd77:0:0:1::1/64  ------ veth ------  eth0 10.77.0.2/30, fd77:0:0:1::2/64
//!   v2 10.77.0.5/30, fd77:0:0:2::1/64  ------ veth ------  eth0 10.77.0.6/30, fd77:0:0:2::2/64
//! ```
//!
//! Everything of a run carries the run's name: the process that made it and when that process
//! started. So runs stand side by side, and what a killed run left is told from what is in use: the
//! next run removes it. Needs root, `ip` (iproute2) and `nsenter` (util-linux).
//!
//! Several nodes are joined by a [`Fabric`], a router between them in a namespace of its own. The pods of
//! the nth node, from 0, have addresses of 10.(77+n).0.0/16 and fd77:0:n::/48:
//!
//! ```text
//!   a node                                     the fabric
//!   fabric 10.100.n.2/30, fd77:1:n::2/64  -- veth --  n<n> 10.100.n.1/30, fd77:1:n::1/64
//! ```
//!
//! | of a run | is |
//! |---|---|
//! | `/run/netns/<run>.node`, `/run/netns/<run>.<pod>` | its network namespaces |
//! | `/run/netns/<run>.fabric` | the one between nodes, of the first node's run |
//! | `<cgroup v2>/<run>/agent`, `…/proxy`, `…/pods/<pod>` | its cgroups |
//! | `/run/<run>/bpf` | a BPF file system of its own: pins are gone when it is unmounted |

mod cgroup;
mod fabric;
mod namespace;
mod pod;
mod run;
mod tool;

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

pub use cgroup::{Cgroup, v2_root};
pub use fabric::Fabric;
pub use namespace::Namespace;
pub use pod::{Pod, Stack};

use run::Run;

/// The most pods of one node at a time: as many /30 networks as 10.77.0.0/16 holds, less the last.
pub const MAX_PODS: u32 = 16_383;
/// The most nodes of one [`Fabric`].
pub const MAX_NODES: u8 = 16;
/// The link-local address of what passes packets on to a pod or a node. Without one of its own a router looks for
/// a neighbour from the address that the kernel makes, which is not usable for up to two seconds (RFC 4862
/// section 5.4). What is sent meanwhile waits, and after three seconds fails.
const ROUTER: &str = "fe80::1";

/// The number of an interface that both its namespace and its peer's have not used. A veth whose number is by chance
/// its peer's is taken for one without a link below it, and the kernel may notice a second late that it is up.
fn interface_number() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(1_000);
    LAST.fetch_add(1, Ordering::Relaxed)
}

/// Why pods cannot be made here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces and cgroups are root's.
    #[error("pods as network namespaces need root")]
    NotRoot,
    /// No cgroup v2 is mounted.
    #[error("no cgroup v2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup")]
    NoCgroup2,
    /// A file or folder.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// `ip`, `mount` or `nsenter` failed.
    #[error("{program} failed: {said}")]
    Tool {
        /// The program with its arguments.
        program: String,
        /// What it wrote.
        said: String,
    },
    /// All networks are in use.
    #[error("there are {MAX_PODS} pods already")]
    TooManyPods,
    /// More nodes than there are networks for.
    #[error("there can be {MAX_NODES} nodes, numbered from 0")]
    TooManyNodes,
    /// A pod's name that cannot be a file's.
    #[error("{0:?} is no name for a pod: letters, digits and hyphens, at most 60")]
    Name(String),
}

impl Error {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing: doing.into(), source }
    }
}

/// Where a process of the node runs, beside the pods: its cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `fhirward agent`: the sockets it makes carry this cgroup.
    Agent,
    /// `fhirward node`.
    Proxy,
    /// Anything else of the node, such as a kubelet's probes.
    Other,
}

impl Place {
    const ALL: [Self; 3] = [Self::Agent, Self::Proxy, Self::Other];

    const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Proxy => "proxy",
            Self::Other => "other",
        }
    }
}

/// A node: its network namespace, its cgroups, and the networks its pods stand in.
///
/// Cheap to clone. Removed, with every process in its cgroups, when the last clone and the last
/// [`Pod`] are dropped.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    number: u8,
    // Dropped in this order: processes first, then what they stood in.
    cgroup: Cgroup,
    namespace: Namespace,
    run: Run,
    used: Mutex<BTreeSet<u32>>,
}

impl Node {
    /// Makes a node without pods. What dead runs left on this machine is removed first.
    ///
    /// # Errors
    /// Without root, without cgroup v2, or when a namespace, a cgroup or a BPF file system cannot be
    /// made.
    pub fn new() -> Result<Self, Error> {
        Self::numbered(0)
    }

    /// As [`Node::new`], for one of several: `number`, from 0, says which addresses its pods have.
    ///
    /// # Errors
    /// As [`Node::new`], and for a number that is not below [`MAX_NODES`].
    pub fn numbered(number: u8) -> Result<Self, Error> {
        if number >= MAX_NODES {
            return Err(Error::TooManyNodes);
        }
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let root = v2_root()?;
        run::collect(&root);
        let run = Run::new()?;
        let cgroup = Cgroup::new(root.join(run.name()))?;
        for folder in Place::ALL.map(Place::name).into_iter().chain(["pods"]) {
            cgroup.child(folder)?;
        }
        let namespace = Namespace::new(&format!("{}.node", run.name()))?;
        namespace.ip("link set lo up\n")?;
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            namespace.sysctl(name, "1")?;
        }
        Ok(Self { inner: Arc::new(Inner { number, cgroup, namespace, run, used: Mutex::default() }) })
    }

    /// The run's name, as in the names of its namespaces.
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.run.name()
    }

    /// The network namespace of the node.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.inner.namespace
    }

    /// The BPF file system of this run, for `capture.pinPath`.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.inner.run.bpf()
    }

    /// A folder of this run below `/run` that other users may look into, for sockets and settings.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.inner.run.folder()
    }

    /// The cgroup of this run below which all others stand, for `capture.cgroupRoot`.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        self.inner.cgroup.path()
    }

    /// The cgroup of `place`.
    #[must_use]
    pub fn cgroup_of(&self, place: Place) -> PathBuf {
        self.inner.cgroup.path().join(place.name())
    }

    /// `program` on the node: in its network namespace and the cgroup of `place`. The process that is
    /// started becomes the program itself, so its id is the program's.
    #[must_use]
    pub fn command(&self, place: Place, program: impl AsRef<std::ffi::OsStr>) -> Command {
        tool::command(&self.inner.namespace, &self.cgroup_of(place), program.as_ref())
    }

    /// `program` in any network namespace and any cgroup: what a privileged process may make of itself.
    #[must_use]
    pub fn command_in(
        &self,
        namespace: &Namespace,
        cgroup: &Path,
        program: impl AsRef<std::ffi::OsStr>,
    ) -> Command {
        tool::command(namespace, cgroup, program.as_ref())
    }

    /// Adds a pod; its cgroup is `pods/<name>` below the node's.
    ///
    /// # Errors
    /// When the name is none or taken, or the pod cannot be made.
    pub fn pod(&self, name: &str, stack: Stack) -> Result<Pod, Error> {
        self.pod_in(name, stack, &format!("pods/{name}"))
    }

    /// Adds a pod whose cgroup is `cgroup`, relative to the node's [`Node::cgroup`], such as
    /// `kubepods.slice/kubepods-pod<uid>.slice/cri-containerd-<id>.scope`. Folders above it are made.
    ///
    /// # Errors
    /// As [`Node::pod`].
    pub fn pod_in(&self, name: &str, stack: Stack, cgroup: &str) -> Result<Pod, Error> {
        Pod::new(self, name, stack, cgroup)
    }

    fn network(&self) -> Result<Network, Error> {
        let mut used = self.inner.used.lock().unwrap_or_else(PoisonError::into_inner);
        let index = (1..MAX_PODS).find(|index| !used.contains(index)).ok_or(Error::TooManyPods)?;
        used.insert(index);
        Ok(Network { node: self.clone(), index })
    }
}

/// The network between the node and one pod, given back when dropped.
struct Network {
    node: Node,
    index: u32,
}

impl Network {
    /// The host side of the veth, in the node's namespace.
    fn interface(&self) -> String {
        format!("v{}", self.index)
    }

    /// The first address of the /30 is the node's, the second the pod's.
    fn v4(&self, host: u32) -> Ipv4Addr {
        let first = Ipv4Addr::new(10, 77 + self.node.inner.number, 0, 0);
        Ipv4Addr::from_bits(first.to_bits() + (self.index - 1) * 4 + host)
    }

    fn v6(&self, host: u16) -> Ipv6Addr {
        // At most MAX_PODS, which fits.
        let index = u16::try_from(self.index).unwrap_or(u16::MAX);
        Ipv6Addr::new(0xfd77, 0, self.node.inner.number.into(), index, 0, 0, 0, host)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A namespace goes in its own time, and its end of the veth with it; the name is needed again.
        let _ = self.node.namespace().ip(&format!("link del {}\n", self.interface()));
        self.node.inner.used.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.index);
    }
}
