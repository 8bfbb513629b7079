//! Cgroups, of version 2.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::Error;

/// How long killed processes may take to leave their cgroup.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// The folder at which cgroup v2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` where
/// version 1 stands beside it.
///
/// # Errors
/// When it is mounted nowhere.
pub fn v2_root() -> Result<PathBuf, Error> {
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").map_err(Error::io("read /proc/self/mountinfo"))?;
    mount_point(&mounts).map(PathBuf::from).ok_or(Error::NoCgroup2)
}

/// `ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [FIELDS] - TYPE SOURCE OPTIONS` (proc(5)).
fn mount_point(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next()? == "cgroup2").then(|| left.split(' ').nth(4))?
    })
}

/// A cgroup. When dropped, the processes in it and below it are killed and it is removed.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup and those above it.
    ///
    /// # Errors
    /// When it is there already or cannot be made.
    pub fn new(path: PathBuf) -> Result<Self, Error> {
        let doing = || format!("make the cgroup {}", path.display());
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).map_err(Error::io(doing()))?;
        }
        fs::create_dir(&path).map_err(Error::io(doing()))?;
        Ok(Self { path })
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a cgroup below it, which goes with it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn child(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        fs::create_dir(&path).map_err(Error::io(format!("make the cgroup {}", path.display())))?;
        Ok(path)
    }

    /// Kills every process in it and below it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<(), Error> {
        kill(&self.path).map_err(Error::io(format!("kill what is in {}", self.path.display())))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn kill(path: &Path) -> io::Result<()> {
    fs::write(path.join("cgroup.kill"), "1")
}

/// Kills and removes, as far as it goes.
pub(super) fn remove(path: &Path) {
    let until = Instant::now() + EMPTY_WITHIN;
    while path.exists() && Instant::now() < until {
        let _ = kill(path);
        if remove_tree(path).is_ok() {
            return;
        }
        thread::sleep(POLL);
    }
}

/// A cgroup's files cannot be unlinked, its folders go from the innermost outwards.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::mount_point;

    #[test]
    fn the_mount_point_is_found_beside_version_1() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
";
        assert_eq!(mount_point(hybrid), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount_point("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
    }
}
