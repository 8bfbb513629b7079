//! Whether this node can capture, and what to do where it cannot.
//!
//! The minimum kernel is **6.6**, for `tcx`; everything else is older. Found in each feature's history:
//!
//! | feature | since | commit |
//! |---|---|---|
//! | `connect4`, `connect6` | 4.17 | d74bad4e74ee |
//! | `sendmsg4`, `sendmsg6` | 4.18 | 1cedee13d25a |
//! | `recvmsg4`, `recvmsg6` | 5.2 | 983695fa6765 |
//! | `getpeername4/6`, `getsockname4/6` | 5.8 | 1b66d253610c |
//! | `sock_ops` with socket storage | 5.3 | 1314ef561102 |
//! | socket storage in `connect4` and its like | 5.3 | fb85c4a730af |
//! | netns cookies in `connect4` and its like | 5.7 | f318903c0bf4 |
//! | `bpf_ktime_get_boot_ns` | 5.8 | 71d19214776e |
//! | `cgroup_skb` with socket storage | 5.2 | 6ac99e8f23d4 |
//! | `sk_lookup` | 5.9 | e9ddbb7707ff |
//! | `bpf_skb_cgroup_id` | 4.18 | cb20b08ead40 |
//! | `tcx` | 6.6 | e420bed02507 |
//! | links: create and update, detach | 5.7, 5.9 | af6eea57437a, 73b11c2ab072 |
//! | take (look up and delete) in hash maps | 5.14 | "bpf: Add lookup_and_delete_elem support to hashtab" |
//! | `SO_NETNS_COOKIE` | 5.14 | "net: retrieve netns cookie via getsocketopt" |
//! | netns cookies in `sk_msg` (acceleration only) | 5.15 | fab60e29fcc6 |
//! | maps used without privilege | 5.19 | c8644cd0efe7 |
//! | ending sockets (`CONFIG_INET_DIAG_DESTROY`), their cgroup | 4.5, 5.8 | "inet_diag: add cgroup id attribute" |

mod features;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{cgroup_root, pins};

/// The oldest kernel that has everything.
pub const MINIMUM_KERNEL: (u32, u32) = (6, 6);

/// What to look at.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The pin root of the settings.
    pub bpffs: PathBuf,
    /// Root of cgroup v2; none: found in `/proc/self/mountinfo`.
    pub cgroup_root: Option<PathBuf>,
}

/// One thing that capture needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Such as `kernel version`.
    pub name: String,
    /// Whether it is there.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where `ok`.
    pub remedy: String,
}

impl Check {
    fn new(name: impl Into<String>, ok: bool, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = if ok { String::new() } else { remedy.into() };
        Self { name: name.into(), ok, found: found.into(), remedy }
    }
}

/// Tries everything that capture needs. Changes nothing that outlives the call: what has to be attached
/// to be tried is attached to a network namespace and a cgroup made for it.
pub fn probe(probe: &Probe) -> Vec<Check> {
    let root = probe.cgroup_root.clone().map_or_else(cgroup_root, Ok);
    let mut checks = vec![kernel(), capabilities()];
    checks.push(match &root {
        Ok(root) => cgroup2(root),
        Err(error) => {
            Check::new("cgroup v2", false, error.to_string(), "mount -t cgroup2 cgroup2 /sys/fs/cgroup")
        }
    });
    checks.push(bpffs(&probe.bpffs));
    checks.extend(features::probe(&probe.bpffs, root.as_deref().ok()));
    checks
}

fn kernel() -> Check {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let (major, minor) = MINIMUM_KERNEL;
    let ok = version(&release).is_some_and(|version| version >= MINIMUM_KERNEL);
    Check::new("kernel version", ok, release, format!("boot a kernel of version {major}.{minor} or later"))
}

/// Major and minor version of `uname -r`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What the agent calls for, with its bit in `CapEff` (linux/capability.h).
const CAPABILITIES: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_PTRACE", 19), ("CAP_SYS_ADMIN", 21)];

fn capabilities() -> Check {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let missing = missing_capabilities(&status);
    let found = if missing.is_empty() { "all".to_owned() } else { format!("without {}", missing.join(", ")) };
    let remedy = "run the agent as root with these capabilities (in a container: privileged)";
    Check::new("capabilities", missing.is_empty(), found, remedy)
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    CAPABILITIES.iter().filter(|(_, bit)| effective & (1 << bit) == 0).map(|(name, _)| *name).collect()
}

fn cgroup2(root: &Path) -> Check {
    let ok = root.join("cgroup.controllers").is_file();
    let remedy =
        "set capture.cgroupRoot to where cgroup v2 is mounted (mount -t cgroup2 cgroup2 /sys/fs/cgroup)";
    Check::new("cgroup v2", ok, root.display().to_string(), remedy)
}

fn bpffs(folder: &Path) -> Check {
    let ok = pins::is_bpffs(folder);
    let remedy = format!("mount -t bpf bpf {} (in a container: mount the node's there)", folder.display());
    let found = if ok { folder.display().to_string() } else { format!("{} is none", folder.display()) };
    Check::new("BPF file system", ok, found, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_any_release() {
        assert_eq!(version("6.6.0-rc1"), Some((6, 6)));
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.15-generic"), Some((5, 15)));
        assert!(version("6.10.1") >= Some(MINIMUM_KERNEL) && version("6.1.0") < Some(MINIMUM_KERNEL));
        assert_eq!(version("odd"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing_capabilities("CapEff:\t000001ffffffffff\n"), Vec::<&str>::new());
        assert_eq!(missing_capabilities("CapEff:\t0000000000201000\n"), ["CAP_SYS_PTRACE"]);
        assert_eq!(missing_capabilities("").len(), CAPABILITIES.len());
    }

    #[test]
    fn what_is_missing_has_a_remedy() {
        let elsewhere = Probe { bpffs: "/proc".into(), cgroup_root: Some("/proc".into()) };
        let checks = probe(&elsewhere);
        for check in checks.iter().filter(|check| !check.ok) {
            assert!(!check.remedy.is_empty(), "{check:?}");
        }
        assert!(checks.iter().any(|check| check.name == "BPF file system" && !check.ok));
        assert!(checks.iter().any(|check| check.name == "cgroup v2" && !check.ok));
    }
}
