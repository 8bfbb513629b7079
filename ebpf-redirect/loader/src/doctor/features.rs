//! What only trying tells.

use std::{
    fs, io,
    net::SocketAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_res_gid, set_thread_res_uid},
};

use super::Check;
use crate::{
    LoadError,
    maps::share,
    netlink::diag,
    object::{Constants, GUARD, HOST_GUARD, INBOUND, POD_PROGRAMS, Programs},
    proxy::Origins,
    sys::{self, Place},
};

/// Programs, what they need, and the kernel that has it.
const NEEDS: [(&[&str], &str, &str); 7] = [
    (&["connect4", "connect6"], "redirecting connections, with socket storage and netns cookies", "5.8"),
    (&["sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6"], "redirecting DNS queries", "5.7"),
    (
        &["getpeername4", "getpeername6", "getsockname4", "getsockname6"],
        "addresses as the application knows them",
        "5.8",
    ),
    (&["sock_ops"], "handing over original destinations", "5.3"),
    (&["cgroup_guard"], "guarding the pod's cgroup", "5.2"),
    (&[INBOUND], "steering arriving connections (sk_lookup)", "5.9"),
    (&[GUARD.0, HOST_GUARD.0], "guarding the pod's interfaces", "5.3"),
];

/// A folder that is removed with all that is in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> io::Result<Self> {
        let folder = parent.join(format!("fhirward-doctor-{}", std::process::id()));
        match fs::create_dir(&folder) {
            // Of a doctor with the same number that was killed.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Self(folder)),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A cgroup's files cannot and need not be removed.
        for pin in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_file(pin.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// One answer for each, also where they cannot be tried.
pub(super) fn probe(bpffs: &Path, cgroups: Option<&Path>) -> Vec<Check> {
    let mut checks = Vec::new();
    match tried(bpffs) {
        Ok((scratch, programs)) => {
            checks.extend(NEEDS.iter().map(|need| loaded(&programs, need)));
            checks.push(tcx(&programs));
            checks.push(sk_lookup(&programs));
            checks.push(cgroup_link(&programs, cgroups));
            checks.push(unprivileged(&scratch.0));
        }
        Err(error) => {
            let remedy = "first mend what is missing above, then ask again";
            checks.push(Check::new("BPF programs", false, error.to_string(), remedy));
        }
    }
    checks.push(ending());
    checks.push(marks());
    checks
}

fn tried(bpffs: &Path) -> Result<(Scratch, Programs), LoadError> {
    let scratch =
        Scratch::new(bpffs).map_err(LoadError::io(format!("make a folder in {}", bpffs.display())))?;
    let constants = Constants::new(0, 0, &[], false);
    let programs = Programs::try_all(&scratch.0, &constants)?;
    Ok((scratch, programs))
}

fn loaded(programs: &Programs, (names, what, kernel): &(&[&str], &str, &str)) -> Check {
    let failed = names.iter().find_map(|name| programs.fd(name).err().map(|error| (name, error)));
    let remedy = format!("boot kernel {kernel} or later, with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF");
    let names = names.join(", ");
    match failed {
        None => Check::new(*what, true, format!("{names} load (kernel {kernel})"), remedy),
        Some((_, error)) => Check::new(*what, false, error.to_string(), remedy),
    }
}

/// Does `work` in a network namespace made for it.
fn in_a_fresh_netns<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let visit = || {
        sys::new_netns()?;
        work()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, visit)?;
        thread.join().map_err(|_| io::Error::other("the thread panicked"))?
    })
}

fn attached(name: &str, found: &str, result: io::Result<()>, remedy: &str) -> Check {
    match result {
        Ok(()) => Check::new(name, true, found, ""),
        Err(error) => Check::new(name, false, error.to_string(), remedy),
    }
}

fn fd<'a>(programs: &'a Programs, name: &str) -> io::Result<std::os::fd::BorrowedFd<'a>> {
    programs.fd(name).map_err(io::Error::other)
}

fn tcx(programs: &Programs) -> Check {
    let result = fd(programs, GUARD.0).and_then(|guard| {
        in_a_fresh_netns(|| {
            sys::link_create(guard, Place::Interface(crate::netlink::route::LO), GUARD.1).map(drop)
        })
    });
    attached("tcx", "guard attaches (kernel 6.6)", result, "boot kernel 6.6 or later, with CONFIG_NET_XGRESS")
}

fn sk_lookup(programs: &Programs) -> Check {
    let attach_type =
        POD_PROGRAMS.iter().find(|program| program.name == INBOUND).map_or(0, |program| program.attach_type);
    let result = fd(programs, INBOUND).and_then(|inbound| {
        in_a_fresh_netns(|| {
            let netns = fs::File::open("/proc/thread-self/ns/net")?;
            sys::link_create(inbound, Place::Fd(netns.as_fd()), attach_type).map(drop)
        })
    });
    attached("sk_lookup links", "inbound attaches (kernel 5.9)", result, "boot kernel 5.9 or later")
}

fn cgroup_link(programs: &Programs, cgroups: Option<&Path>) -> Check {
    let try_it = || -> io::Result<()> {
        let root = cgroups.ok_or_else(|| io::Error::other("not tried without cgroup v2"))?;
        let scratch = Scratch::new(root)?;
        let cgroup = fs::File::open(&scratch.0)?;
        for program in POD_PROGRAMS.iter().filter(|program| program.name != INBOUND) {
            let link = sys::link_create(
                fd(programs, program.name)?,
                Place::Fd(cgroup.as_fd()),
                program.attach_type,
            )?;
            sys::link_detach(link.as_fd())?;
        }
        Ok(())
    };
    let remedy = "boot kernel 5.9 or later, with cgroup v2 writable for the agent";
    attached("cgroup links", "all attach to a cgroup of cgroup v2 (kernel 5.9)", try_it(), remedy)
}

/// As the proxy does it: without privilege, in one step.
fn unprivileged(maps: &Path) -> Check {
    let nobody = || -> io::Result<()> {
        let map = share(&maps.join("ORIGINS"), 0).map_err(io::Error::other)?;
        let (user, group) = (Uid::from_raw(65_532), Gid::from_raw(65_532));
        thread::scope(|scope| {
            let asking = || -> io::Result<()> {
                set_thread_res_gid(group, group, group)?;
                set_thread_res_uid(user, user, user)?;
                Origins::from_fd(map)?.try_take(1, SocketAddr::from(([127, 0, 0, 1], 1))).map(drop)
            };
            let thread = thread::Builder::new().spawn_scoped(scope, asking)?;
            thread.join().map_err(|_| io::Error::other("the thread panicked"))?
        })
    };
    let remedy = "boot kernel 5.19 or later; see that no security module forbids the bpf system call";
    attached("maps without privilege", "taken by user 65532 (kernel 5.19)", nobody(), remedy)
}

fn ending() -> Check {
    let name = "ending old connections";
    let remedy = "boot a kernel with CONFIG_INET_DIAG_DESTROY, or set capture.endOldConnections to false and \
                  restart pods after enrolment";
    match in_a_fresh_netns(diag::can_destroy) {
        Ok(true) => Check::new(name, true, "SOCK_DESTROY works (kernel 4.5)", remedy),
        Ok(false) => Check::new(name, false, "the kernel was built without SOCK_DESTROY", remedy),
        Err(error) => Check::new(name, false, error.to_string(), remedy),
    }
}

fn marks() -> Check {
    let path = "/proc/sys/net/ipv4/tcp_fwmark_accept";
    let result = fs::OpenOptions::new().write(true).open(path).map(drop);
    let remedy = "mount /proc/sys writable in the agent's container (privileged)";
    attached("sysctls of pods", "writable", result, remedy)
}
