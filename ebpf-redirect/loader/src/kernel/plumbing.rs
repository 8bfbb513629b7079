//! What enrolment changes inside a pod's network namespace, so that servers in the pod see the
//! client's address: their answers to it carry the mark of the proxy's socket and go back to it by `lo`.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{Family, Netns, netlink::route};

/// Sysctls that have to be 1, with the flag that says that it was 0 before. Accepted sockets take the
/// mark of the SYN (`tcp_fwmark_accept`), and so do the resets of closed ports (`fwmark_reflect`):
/// Documentation/networking/ip-sysctl.rst.
const SYSCTLS: [(&str, u32); 3] = [
    ("/proc/sys/net/ipv4/tcp_fwmark_accept", 1),
    ("/proc/sys/net/ipv4/fwmark_reflect", 2),
    ("/proc/sys/net/ipv6/fwmark_reflect", 4),
];

/// All flags of [`SYSCTLS`].
pub(super) const FLAGS: u32 = 7;

/// The flags of those that are to be changed. `/proc/sys/net` is the calling thread's namespace's.
pub(super) fn unset() -> io::Result<u32> {
    let mut flags = 0;
    for (path, flag) in SYSCTLS {
        match fs::read_to_string(path) {
            Ok(value) if value.trim() == "0" => flags |= flag,
            Ok(_) => {}
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(flags)
}

/// Inside the calling thread's namespace. Done already is done.
pub(super) fn lay(flags: u32) -> io::Result<()> {
    write(flags, "1")?;
    route::add_mark_route(Family::V4)?;
    route::add_mark_route(Family::V6)?;
    Ok(())
}

/// Undoes [`lay`]: `flags` are those of the sysctls that were 0 before.
pub(super) fn remove(flags: u32) -> io::Result<()> {
    route::remove_mark_route(Family::V6)?;
    route::remove_mark_route(Family::V4)?;
    write(flags, "0")
}

fn write(flags: u32, value: &str) -> io::Result<()> {
    for (path, flag) in SYSCTLS {
        if flags & flag != 0 {
            fs::write(path, value)
                .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
        }
    }
    Ok(())
}

/// A path to a namespace of which only the numbers are known, after a restart: that of a process in it,
/// or that of `ip netns`. None: only sockets hold it, or it is gone.
pub(super) fn find(cookie: u64, inode: u64) -> Option<Netns> {
    let named = files(Path::new("/run/netns")).into_iter();
    let processes = files(Path::new("/proc")).into_iter().filter(|path| is_process(path));
    let candidates = named.chain(processes.map(|path| path.join("ns/net")));
    candidates
        .filter(|path| fs::metadata(path).is_ok_and(|data| data.ino() == inode))
        .filter_map(|path| Netns::open(path).ok())
        .find(|netns| netns.cookie() == cookie)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

fn is_process(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}
