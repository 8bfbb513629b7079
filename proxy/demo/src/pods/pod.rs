//! One pod.

use std::{
    ffi::OsStr,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
};

use super::{Error, Namespace, Network, Node, ROUTER, cgroup, interface_number, tool};

/// The longest name of a pod, in bytes: a namespace's file name holds it and the run's.
const NAME_MAX: usize = 60;

/// Which addresses a pod has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Dual,
}

impl Stack {
    const fn v4(self) -> bool {
        matches!(self, Self::V4 | Self::Dual)
    }

    const fn v6(self) -> bool {
        matches!(self, Self::V6 | Self::Dual)
    }
}

/// A pod: a network namespace with an `eth0`, and a cgroup. Dropping it kills its processes and
/// removes both.
pub struct Pod {
    name: String,
    stack: Stack,
    // Dropped in this order: processes first, then what they stood in.
    cgroup: PodCgroup,
    namespace: Namespace,
    network: Network,
}

impl Pod {
    pub(super) fn new(node: &Node, name: &str, stack: Stack, cgroup: &str) -> Result<Self, Error> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(fits) {
            return Err(Error::Name(name.to_owned()));
        }
        let network = node.network()?;
        let namespace = Namespace::new(&format!("{}.{name}", node.name()))?;
        let cgroup = PodCgroup::new(node.cgroup().join(cgroup))?;
        let pod = Self { name: name.to_owned(), stack, cgroup, namespace, network };
        pod.wire(node)?;
        Ok(pod)
    }

    /// The veth, its addresses and the routes.
    fn wire(&self, node: &Node) -> Result<(), Error> {
        let host = self.interface();
        let network = &self.network;
        let mut outside = format!(
            "link add {host} index {} type veth peer name eth0 netns {}\n",
            interface_number(),
            self.namespace.name()
        );
        let mut inside = "link set lo up\nlink set eth0 up\n".to_owned();
        if self.stack.v4() {
            let (gateway, own) = (network.v4(1), network.v4(2));
            outside += &format!("addr add {gateway}/30 dev {host}\n");
            inside += &format!("addr add {own}/30 dev eth0\nroute add default via {gateway}\n");
        }
        if self.stack.v6() {
            let (gateway, own) = (network.v6(1), network.v6(2));
            outside += &format!("addr add {gateway}/64 dev {host} nodad\n");
            outside += &format!("addr add {ROUTER}/64 dev {host} nodad\n");
            inside += &format!("addr add {own}/64 dev eth0 nodad\nroute add default via {gateway}\n");
        }
        outside += &format!("link set {host} up\n");
        node.namespace().ip(&outside)?;
        self.namespace.ip(&inside)?;
        Ok(())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its cgroup, for `capture.pods[].cgroup`.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup.path
    }

    /// The name of the node's end of its veth.
    #[must_use]
    pub fn interface(&self) -> String {
        self.network.interface()
    }

    /// Its addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.v4().map(IpAddr::V4).into_iter().chain(self.v6().map(IpAddr::V6)).collect()
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn v4(&self) -> Option<Ipv4Addr> {
        self.stack.v4().then(|| self.network.v4(2))
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn v6(&self) -> Option<Ipv6Addr> {
        self.stack.v6().then(|| self.network.v6(2))
    }

    /// The node's IPv4 address on the network with this pod.
    #[must_use]
    pub fn gateway_v4(&self) -> Option<Ipv4Addr> {
        self.stack.v4().then(|| self.network.v4(1))
    }

    /// The node's IPv6 address on the network with this pod.
    #[must_use]
    pub fn gateway_v6(&self) -> Option<Ipv6Addr> {
        self.stack.v6().then(|| self.network.v6(1))
    }

    /// `program` in the pod. The process that is started becomes the program itself, so its id is
    /// the program's; what outlives its parent is killed with the pod.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        tool::command(&self.namespace, &self.cgroup.path, program.as_ref())
    }

    /// `program` in the pod's namespace and in the cgroup `child` below the pod's, which is made where
    /// it is missing: what a container runtime or the pod's own root may do.
    ///
    /// # Errors
    /// When the cgroup cannot be made.
    pub fn command_below(&self, child: &str, program: impl AsRef<OsStr>) -> Result<Command, Error> {
        let path = self.cgroup.path.join(child);
        fs::create_dir_all(&path).map_err(Error::io(format!("make the cgroup {}", path.display())))?;
        Ok(tool::command(&self.namespace, &path, program.as_ref()))
    }
}

/// The pod's cgroup; the folders above it stay until the node goes.
struct PodCgroup {
    path: PathBuf,
}

impl PodCgroup {
    fn new(path: PathBuf) -> Result<Self, Error> {
        let doing = || format!("make the cgroup {}", path.display());
        if path.exists() {
            return Err(Error::io(doing())(std::io::ErrorKind::AlreadyExists.into()));
        }
        fs::create_dir_all(&path).map_err(Error::io(doing()))?;
        Ok(Self { path })
    }
}

impl Drop for PodCgroup {
    fn drop(&mut self) {
        cgroup::remove(&self.path);
    }
}
