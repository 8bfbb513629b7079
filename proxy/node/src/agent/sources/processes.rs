//! The processes of a pod's cgroup and their network namespaces.

use std::{
    collections::{BTreeSet, VecDeque},
    fs, io,
    path::{Path, PathBuf},
};

use super::{inode_if_there, is_absence};

/// Most cgroups of one pod that are looked through.
const MAX_CGROUPS: usize = 256;
/// Most processes of one pod that are looked at. A pod with more is not judged by a part of them: it could
/// hide its oldest process behind a crowd in a namespace that it made itself.
pub(super) const MAX_PROCESSES: usize = 16_384;

/// What a pod's processes are in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A namespace of the pod's own.
    Namespace {
        /// Through a process in it.
        path: PathBuf,
        /// Its inode.
        inode: u64,
    },
    /// All of them in the node's.
    Node,
    /// There is no process.
    Nothing,
}

/// Finds a pod's network namespace: the one it had before (`known`) while a process is in it, else
/// that of its oldest process. Processes in the node's namespace do not count: a container's first
/// process is there before it enters the pod's, and helpers of the runtime stay there. No process
/// can make one that is older than itself, so a pod cannot choose.
pub(super) fn namespace(
    cgroup: &Path,
    node: &BTreeSet<u64>,
    known: Option<u64>,
    proc: &Path,
) -> io::Result<Found> {
    let mut oldest: Option<(u64, PathBuf, u64)> = None;
    let mut on_node = false;
    for process in processes(cgroup)? {
        let folder = proc.join(process.to_string());
        let path = folder.join("ns/net");
        let Some(inode) = inode_if_there(&path)? else { continue };
        if node.contains(&inode) {
            on_node = true;
            continue;
        }
        if known == Some(inode) {
            return Ok(Found::Namespace { path, inode });
        }
        let Some(started) = started(&folder)? else { continue };
        if oldest.as_ref().is_none_or(|(before, ..)| started < *before) {
            oldest = Some((started, path, inode));
        }
    }
    Ok(match oldest {
        Some((_, path, inode)) => Found::Namespace { path, inode },
        None if on_node => Found::Node,
        None => Found::Nothing,
    })
}

/// Whether there is no process in a cgroup and those below it, or no such cgroup.
pub(super) fn is_idle(cgroup: &Path) -> io::Result<bool> {
    let Some(text) = text_if_there(&cgroup.join("cgroup.events"))? else { return Ok(true) };
    Ok(text.lines().any(|line| line == "populated 0"))
}

/// The processes of a cgroup and those below it.
fn processes(cgroup: &Path) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    let mut folders = VecDeque::from([cgroup.to_owned()]);
    let mut looked = 0;
    while let Some(folder) = folders.pop_front() {
        looked += 1;
        let text = text_if_there(&folder.join("cgroup.procs"))?.unwrap_or_default();
        // 0 stands for a process in another process namespace.
        found
            .extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|process| *process != 0));
        if found.len() > MAX_PROCESSES {
            return Err(io::Error::other(format!("it has more than {MAX_PROCESSES} processes")));
        }
        for child in super::discovered::folders(&folder)? {
            if looked + folders.len() < MAX_CGROUPS {
                folders.push_back(child.path);
            }
        }
    }
    Ok(found)
}

/// When a process started, in the kernel's ticks since boot: field 22 of `/proc/PID/stat` (proc(5)).
/// The second field is a name in parentheses that may hold anything, parentheses too.
fn started(process: &Path) -> io::Result<Option<u64>> {
    let Some(text) = text_if_there(&process.join("stat"))? else { return Ok(None) };
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    Ok(after_name.split_ascii_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()))
}

fn text_if_there(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        // Names in it need not be UTF-8.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_absence(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}
