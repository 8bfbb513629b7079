//! The object with the BPF programs: once for what all pods share, once per pod with its constants.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{Ebpf, EbpfLoader, programs::Program};

use crate::LoadError;

/// Built by `cargo xtask bpf` and committed, so that no BPF toolchain is needed here.
#[cfg(target_arch = "x86_64")]
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../fhirward-x86_64.o");
#[cfg(not(target_arch = "x86_64"))]
compile_error!("build the BPF object of this architecture with cargo xtask bpf and name it here");

/// What the programs of one pod know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Constants {
    pub(crate) slot: u32,
    pub(crate) netns: u64,
    /// In network order as it lies in memory; zero: none.
    pub(crate) ip4: u32,
    pub(crate) ip6: [u8; 16],
    pub(crate) accelerate: u32,
}

impl Constants {
    /// The first address of each family is the pod's, as it is for a Pod's `status.podIPs`.
    pub(crate) fn new(slot: u32, netns: u64, addresses: &[IpAddr], accelerated: bool) -> Self {
        let ip4 = addresses.iter().find_map(|ip| match ip {
            IpAddr::V4(ip) => Some(u32::from_ne_bytes(ip.octets())),
            IpAddr::V6(_) => None,
        });
        let ip6 = addresses.iter().find_map(|ip| match ip {
            IpAddr::V6(ip) => Some(*ip),
            IpAddr::V4(_) => None,
        });
        Self {
            slot,
            netns,
            ip4: ip4.unwrap_or(0),
            ip6: ip6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets(),
            accelerate: u32::from(accelerated),
        }
    }

    /// 24 bits that tell whether attached programs are of this object and have these constants.
    pub(crate) fn stamp(&self) -> u32 {
        let mut hasher = DefaultHasher::new();
        OBJECT.hash(&mut hasher);
        self.hash(&mut hasher);
        u32::try_from(hasher.finish() >> 40).unwrap_or(0)
    }
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Cgroup,
    Netns,
}

/// A program of each pod, in the order of enrolment: after each step, nothing gets past that did not
/// before, and the connections that `connect` will redirect are not let through until all is there.
pub(crate) struct PodProgram {
    pub(crate) name: &'static str,
    pub(crate) hook: Hook,
    /// Of `enum bpf_attach_type` in linux/bpf.h.
    pub(crate) attach_type: u32,
}

const fn cgroup(name: &'static str, attach_type: u32) -> PodProgram {
    PodProgram { name, hook: Hook::Cgroup, attach_type }
}

/// See [`PodProgram`]. The guards come before them.
pub(crate) const POD_PROGRAMS: [PodProgram; 13] = [
    cgroup("cgroup_guard", 1),
    PodProgram { name: INBOUND, hook: Hook::Netns, attach_type: 36 },
    cgroup("sock_ops", 3),
    cgroup("sendmsg4", 14),
    cgroup("sendmsg6", 15),
    cgroup("recvmsg4", 19),
    cgroup("recvmsg6", 20),
    cgroup("getpeername4", 29),
    cgroup("getpeername6", 30),
    cgroup("getsockname4", 31),
    cgroup("getsockname6", 32),
    cgroup("connect4", 10),
    cgroup("connect6", 11),
];

/// Its link tells whether the pod's network namespace is alive.
pub(crate) const INBOUND: &str = "inbound";
/// Attached to the pod's interfaces, outgoing (`BPF_TCX_EGRESS`).
pub(crate) const GUARD: (&str, u32) = ("guard", 47);
/// Attached to the node's ends of them, incoming (`BPF_TCX_INGRESS`).
pub(crate) const HOST_GUARD: (&str, u32) = ("host_guard", 46);
/// Attached to the map `FAST`.
pub(crate) const ACCELERATE: &str = "accelerate";
/// Attached to the agent's cgroup (`BPF_CGROUP_SOCK_OPS`), whose sockets are the proxy's.
pub(crate) const ACCELERATE_PROXY: (&str, u32) = ("accelerate_proxy", 3);

/// Programs in the kernel; they stay as long as this or a link of theirs.
#[derive(Debug)]
pub(crate) struct Programs {
    object: Ebpf,
    /// Why programs did not load.
    failed: HashMap<String, String>,
}

impl Programs {
    /// Those that all pods share. Makes and pins the maps that are not there yet.
    pub(crate) fn shared(maps: &Path, origins: u32) -> Result<Self, LoadError> {
        let mut loader = EbpfLoader::new();
        loader.default_map_pin_directory(maps).map_max_entries("ORIGINS", origins);
        load(&mut loader, maps, &[GUARD.0, HOST_GUARD.0, ACCELERATE, ACCELERATE_PROXY.0])
    }

    /// Those of one pod, on the shared maps.
    pub(crate) fn of_pod(maps: &Path, origins: u32, constants: &Constants) -> Result<Self, LoadError> {
        Self::of_pod_names(maps, origins, constants, &POD_PROGRAMS.each_ref().map(|program| program.name))
    }

    fn of_pod_names(
        maps: &Path,
        origins: u32,
        constants: &Constants,
        names: &[&str],
    ) -> Result<Self, LoadError> {
        let mut loader = EbpfLoader::new();
        loader
            .default_map_pin_directory(maps)
            .map_max_entries("ORIGINS", origins)
            .override_global("SLOT", &constants.slot, true)
            .override_global("NETNS", &constants.netns, true)
            .override_global("POD_IP4", &constants.ip4, true)
            .override_global("POD_IP6", &constants.ip6, true)
            .override_global("ACCELERATE", &constants.accelerate, true);
        load(&mut loader, maps, names)
    }

    /// All that load, for those that do not [`Programs::fd`] tells why.
    pub(crate) fn try_all(maps: &Path, constants: &Constants) -> Result<Self, LoadError> {
        let mut programs = Self::of_pod_names(maps, abi::MAX_ORIGINS, constants, &[])?;
        let names: Vec<String> = programs.object.programs().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            if let Err(error) = load_one(&mut programs.object, &name) {
                programs.failed.insert(name, error.to_string());
            }
        }
        Ok(programs)
    }

    pub(crate) fn fd(&self, name: &str) -> Result<BorrowedFd<'_>, LoadError> {
        if let Some(reason) = self.failed.get(name) {
            return Err(LoadError::Bpf { doing: format!("use program {name}"), reason: reason.clone() });
        }
        let program = self.object.program(name).ok_or_else(|| missing(name))?;
        Ok(program.fd().map_err(|error| LoadError::bpf(format!("use program {name}"), &error))?.as_fd())
    }
}

/// The maps that live on sockets; aya pins by name what the object marks so, and these it cannot mark.
const STORES: [&str; 3] = ["ORIGIN_STORE", "DNS_STORE", "FAST_STORE"];

fn load(loader: &mut EbpfLoader<'_>, maps: &Path, names: &[&str]) -> Result<Programs, LoadError> {
    for store in STORES {
        loader.map_pin_path(store, maps.join(store));
    }
    let mut object = loader
        .load(OBJECT)
        .map_err(|error| LoadError::bpf("load the object with the BPF programs", &error))?;
    for name in names {
        load_one(&mut object, name)?;
    }
    Ok(Programs { object, failed: HashMap::new() })
}

fn load_one(object: &mut Ebpf, name: &str) -> Result<(), LoadError> {
    let loaded = match object.program_mut(name).ok_or_else(|| missing(name))? {
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        Program::SkMsg(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => return Err(missing(name)),
    };
    loaded.map_err(|error| LoadError::bpf(format!("load program {name}"), &error))
}

fn missing(name: &str) -> LoadError {
    let reason = "the object holds no such program of a kind that is known".to_owned();
    LoadError::Bpf { doing: format!("find program {name}"), reason }
}
