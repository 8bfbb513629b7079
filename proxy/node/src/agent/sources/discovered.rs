//! Pods as the kubelet lays them out in the cgroup v2 tree.
//!
//! systemd driver: `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/…`, the
//! uid's hyphens as underscores; cgroupfs driver: `kubepods/burstable/pod<uid>/…`. Both may lie below
//! further folders (a node inside a container). The layouts are those of the kubelet's container
//! manager (`pkg/kubelet/cm`, Kubernetes 1.25 and later).

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    os::unix::fs::DirEntryExt as _,
    path::{Path, PathBuf},
};

use super::{
    Candidate, Identity, Seen, Source, Whereabouts, inode_if_there, is_absence,
    processes::{self, Found},
};

/// How far below the root a pod's folder may lie.
const MAX_DEPTH: usize = 12;
/// Most folders of the tree that are looked into, beside pods' own.
const MAX_FOLDERS: usize = 20_000;
/// Most pods that are looked at.
const MAX_FOUND: usize = 8192;

/// The pods of a Kubernetes node.
#[derive(Debug)]
pub(in crate::agent) struct Discovered {
    root: PathBuf,
    proc: PathBuf,
    /// By cgroup: a path to the pod's namespace that was good at the last look, and its inode.
    known: HashMap<u64, (PathBuf, u64)>,
}

/// A folder of the tree.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) id: u64,
    pub(super) name: String,
}

impl Discovered {
    /// Below the root of cgroup v2.
    pub(in crate::agent) fn new(root: PathBuf) -> Self {
        Self { root, proc: PathBuf::from("/proc"), known: HashMap::new() }
    }

    #[cfg(test)]
    pub(super) fn with_proc(root: &Path, proc: &Path) -> Self {
        Self { proc: proc.to_owned(), ..Self::new(root.to_owned()) }
    }

    fn whereabouts(&mut self, folder: &Folder, node: &BTreeSet<u64>) -> io::Result<Whereabouts> {
        let known = self.known.get(&folder.id);
        if let Some((path, inode)) = known
            && inode_if_there(path)? == Some(*inode)
        {
            return Ok(Whereabouts::At { path: path.clone(), inode: *inode });
        }
        let known = known.map(|(_, inode)| *inode);
        Ok(match processes::namespace(&folder.path, node, known, &self.proc)? {
            Found::Namespace { path, inode } => {
                self.known.insert(folder.id, (path.clone(), inode));
                Whereabouts::At { path, inode }
            }
            Found::Node => Whereabouts::Node,
            Found::Nothing => Whereabouts::Absent { idle: true },
        })
    }
}

impl Source for Discovered {
    fn look(&mut self, node: &BTreeSet<u64>) -> Seen {
        let mut seen = Seen::default();
        let pods = find(&self.root, &mut seen.troubles);
        for (uid, folder) in &pods {
            let netns = self.whereabouts(folder, node).unwrap_or_else(|error| {
                seen.troubles.push(format!("pod {uid}: {error}"));
                Whereabouts::Unsure
            });
            seen.pods.push(Candidate {
                identity: Identity::Uid(uid.clone()),
                cgroup: folder.path.clone(),
                cgroup_id: Some(folder.id),
                netns,
            });
        }
        let ids: BTreeSet<u64> = pods.iter().map(|(_, folder)| folder.id).collect();
        self.known.retain(|id, _| ids.contains(id));
        seen
    }
}

/// The pods' folders below a root. What cannot be looked into is told in `troubles`.
fn find(root: &Path, troubles: &mut Vec<String>) -> Vec<(String, Folder)> {
    let mut pods = Vec::new();
    let mut open = vec![(root.to_owned(), 0)];
    let mut looked = 0;
    if let Err(error) = fs::metadata(root) {
        troubles.push(format!("{}: {error}", root.display()));
    }
    while let Some((path, depth)) = open.pop() {
        looked += 1;
        if looked > MAX_FOLDERS || pods.len() > MAX_FOUND {
            troubles
                .push(format!("more than {MAX_FOLDERS} cgroups or {MAX_FOUND} pods: not all were looked at"));
            break;
        }
        match folders(&path) {
            Ok(children) => {
                for folder in children {
                    match pod_uid(&folder.name) {
                        Some(uid) => pods.push((uid, folder)),
                        None if depth < MAX_DEPTH => open.push((folder.path, depth + 1)),
                        None => {}
                    }
                }
            }
            Err(error) => troubles.push(format!("{}: {error}", path.display())),
        }
    }
    // The order of folders means nothing; that of pods decides between two that share something.
    pods.sort_by_key(|(_, folder)| folder.id);
    pods
}

/// The folders in a folder; none where it is not there.
pub(super) fn folders(path: &Path) -> io::Result<Vec<Folder>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if is_absence(&error) => break,
            Err(error) => return Err(error),
        };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            found.push(Folder { path: entry.path(), id: entry.ino(), name });
        }
    }
    Ok(found)
}

/// The uid in the name of a pod's folder, with hyphens; none where it is no pod's.
pub(super) fn pod_uid(folder: &str) -> Option<String> {
    let uid = match folder.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => folder.strip_prefix("pod")?.to_owned(),
    };
    is_uid(&uid).then_some(uid)
}

/// A UUID as Kubernetes writes it, or the 32 digits of a static pod.
fn is_uid(text: &str) -> bool {
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match text.len() {
        32 => text.bytes().all(hexadecimal),
        36 => text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => hexadecimal(byte),
        }),
        _ => false,
    }
}
