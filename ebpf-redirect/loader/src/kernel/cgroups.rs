//! Which cgroups' sockets may open connections out of pods.

use std::{collections::HashSet, fs, io, os::unix::fs::MetadataExt, path::PathBuf};

use super::Kernel;
use crate::{LoadError, cgroup_root};

/// How many folders one walk of the cgroup tree looks at.
const MAX_FOLDERS: usize = 1 << 17;

/// Id of the root cgroup, in every kernel.
const ROOT: u64 = 1;

impl Kernel {
    /// Puts the settings' cgroups into the map. Earlier ones stay, since the proxy may hold sockets of
    /// theirs; when the map is full, those whose folder is gone make room.
    pub(super) fn allow_cgroups(&self) -> Result<(), LoadError> {
        if self.settings.allowed_cgroups.contains(&ROOT) {
            return Err(LoadError::RootCgroup);
        }
        for cgroup in &self.settings.allowed_cgroups {
            if self.maps.allow_cgroup(*cgroup).is_ok() {
                continue;
            }
            self.forget_cgroups().map_err(LoadError::io("look for cgroups that are gone"))?;
            let doing = format!("allow the agent's cgroup {cgroup} to open connections out of pods");
            self.maps.allow_cgroup(*cgroup).map_err(LoadError::io(doing))?;
        }
        Ok(())
    }

    fn forget_cgroups(&self) -> io::Result<()> {
        let alive = living()?;
        for cgroup in self.maps.allowed_cgroups()? {
            if !alive.contains(&cgroup) {
                self.maps.forbid_cgroup(cgroup)?;
            }
        }
        Ok(())
    }
}

/// Ids of all cgroups that have a folder.
fn living() -> io::Result<HashSet<u64>> {
    let mut found = HashSet::new();
    let mut open: Vec<PathBuf> = vec![cgroup_root()?];
    while let Some(folder) = open.pop() {
        if found.len() >= MAX_FOLDERS {
            return Err(io::Error::other("more cgroups than can be looked through"));
        }
        // A folder that has just gone is no error.
        let (Ok(data), Ok(entries)) = (fs::metadata(&folder), fs::read_dir(&folder)) else { continue };
        found.insert(data.ino());
        let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        open.extend(folders.map(|entry| entry.path()));
    }
    Ok(found)
}
