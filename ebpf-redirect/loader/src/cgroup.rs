//! Cgroup v2: where it is mounted and what id a folder has.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Where cgroup v2 is mounted, from `/proc/self/mountinfo`: on nodes `/sys/fs/cgroup`, on hybrid
/// ones `/sys/fs/cgroup/unified`.
pub fn cgroup_root() -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    mount_point(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup v2 is mounted (mount -t cgroup2)"))
}

/// The mount point of the first `cgroup2` line; proc(5) gives the fields.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next() == Some("cgroup2")).then_some(())?;
        let path = left.split(' ').nth(4)?;
        Some(PathBuf::from(path.replace("\\040", " ")))
    })
}

/// Id of a cgroup as BPF programs see it: the inode of its folder (cgroup v2, kernel 5.5 and later).
pub fn cgroup_id(folder: &Path) -> io::Result<u64> {
    let data = fs::metadata(folder)?;
    if !data.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "a cgroup is a folder"));
    }
    Ok(data.ino())
}

/// Folder of the cgroup this process is in, under [`cgroup_root`].
pub fn own_cgroup() -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = text
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "this process is in no cgroup v2"))?;
    Ok(cgroup_root()?.join(path.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::mount_point;

    #[test]
    fn the_mount_point_of_cgroup2_is_found_on_hybrid_nodes_too() {
        let hybrid = "35 24 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      36 24 0:31 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(hybrid).unwrap().to_str(), Some("/sys/fs/cgroup/unified"));
        let spaced = "36 24 0:31 / /mnt/a\\040b rw - cgroup2 none rw\n";
        assert_eq!(mount_point(spaced).unwrap().to_str(), Some("/mnt/a b"));
        assert_eq!(mount_point("1 2 0:3 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
