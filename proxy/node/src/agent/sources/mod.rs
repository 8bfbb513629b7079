//! Where pods come from: settings, and the cgroup tree of a Kubernetes node.
//!
//! A source says what is there now; it knows nothing of manifests. What it cannot look at for want of
//! file descriptors or the like it calls unsure, and unsure pods stay as they are: only what is
//! certainly gone is un-enrolled.

mod discovered;
mod listed;
mod processes;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use policy::WorkloadName;

pub(super) use discovered::Discovered;
pub(super) use listed::Listed;

/// A pod that is there, whether or not it is to be enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// By what the manifests know it.
    pub(super) identity: Identity,
    /// Its cgroup's folder.
    pub(super) cgroup: PathBuf,
    /// Its cgroup's id; none: it is not there.
    pub(super) cgroup_id: Option<u64>,
    /// Its network namespace.
    pub(super) netns: Whereabouts,
}

/// By what the manifests know a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// Listed: its workload, and whether the settings want it accelerated.
    Workload(WorkloadName, Option<bool>),
    /// Discovered: the Pod object's uid.
    Uid(String),
}

/// Where a pod's network namespace is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Here.
    At {
        /// A path that leads to it.
        path: PathBuf,
        /// Its inode.
        inode: u64,
    },
    /// It is the node's own.
    Node,
    /// Nowhere; `idle` where no process is left in the pod's cgroup either.
    Absent {
        /// No process is left.
        idle: bool,
    },
    /// It could not be looked at.
    Unsure,
}

/// What a source saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The pods.
    pub(super) pods: Vec<Candidate>,
    /// What could not be looked at. While there is any, a pod that is not among `pods` may still be
    /// there.
    pub(super) troubles: Vec<String>,
}

/// Somewhere that pods come from.
pub(super) trait Source: Send {
    /// Looks. `node`: inodes of the node's own network namespaces.
    fn look(&mut self, node: &BTreeSet<u64>) -> Seen;
}

/// The network namespaces that are the node's own: ours, and that of process 1, which is another one
/// where the agent's container has a network of its own.
pub(super) fn node_namespaces() -> BTreeSet<u64> {
    ["/proc/self/ns/net", "/proc/1/ns/net"].iter().filter_map(|path| inode(Path::new(path)).ok()).collect()
}

fn inode(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|found| found.ino())
}

/// Whether an error says that something is not there (any more), rather than that we cannot look:
/// a process that has ended gives ESRCH, a cgroup that is being removed ENODEV.
fn is_absence(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENODEV | libc::ENOTDIR))
}

/// The inode behind a path, or none where there is nothing.
fn inode_if_there(path: &Path) -> io::Result<Option<u64>> {
    match inode(path) {
        Ok(inode) => Ok(Some(inode)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
