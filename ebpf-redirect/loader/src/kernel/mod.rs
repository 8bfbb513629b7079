//! Everything the agent keeps in the kernel.

mod cgroups;
mod collect;
mod enrol;
mod guard;
mod links;
mod plumbing;
mod serve;
mod types;
mod unenrol;

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use abi::Counter;

use crate::{
    LoadError, Netns, maps, maps::Maps, object, object::Programs, own_cgroup, pins::Pins, sys, sys::Place,
};

pub use types::{Adopted, Collected, Enrolled, Listeners, PodFacts, ProxyMaps, Settings, Slot};

/// The programs, maps and pins of this node. One per node: a lock makes sure.
#[derive(Debug)]
pub struct Kernel {
    settings: Settings,
    pins: Pins,
    maps: Maps,
    shared: Programs,
    /// The agent's own namespace, where the other ends of the pods' interfaces are.
    own: Netns,
    /// Where the namespaces of the pods enrolled by this process are.
    places: HashMap<Slot, Netns>,
    /// Keeps `accelerate_proxy` attached once a pod asks for it; accelerated pods go by TCP without.
    acceleration: Option<OwnedFd>,
}

impl Kernel {
    /// Makes or adopts the maps. Adopts no pod: see [`Kernel::adopted`] and [`Kernel::enrol`].
    ///
    /// # Errors
    /// [`LoadError::NotBpffs`], [`LoadError::Taken`], [`LoadError::Version`] and [`LoadError::RootCgroup`] name
    /// their remedy;
    /// [`LoadError::Bpf`] holds the verifier's words.
    pub fn open(settings: &Settings) -> Result<Self, LoadError> {
        let pins = Pins::open(&settings.bpffs)?;
        let shared = Programs::shared(&pins.maps(), settings.origins)?;
        let maps = Maps::open(&pins.maps())?;
        let own = Netns::own().map_err(LoadError::io("look at the agent's network namespace"))?;
        let kernel = Self {
            settings: settings.clone(),
            pins,
            maps,
            shared,
            own,
            places: HashMap::new(),
            acceleration: None,
        };
        kernel.allow_cgroups()?;
        kernel.remove_orphans()?;
        Ok(kernel)
    }

    /// The pods found in the pins, whole or not, in the order of their slots. Those that nobody wants
    /// any more must be un-enrolled; the others are mended by [`Kernel::enrol`].
    pub fn adopted(&self) -> Result<Vec<Adopted>, LoadError> {
        let pods = self.maps.pods().map_err(LoadError::io("read the map PODS"))?;
        pods.iter().map(|(slot, pod)| self.describe(*slot, pod)).collect()
    }

    /// What the programs have counted since the maps were made.
    pub fn counters(&self) -> Result<Vec<(Counter, u64)>, LoadError> {
        self.maps.counters().map_err(LoadError::io("read the map COUNTERS"))
    }

    /// File descriptors for the proxy; it can write to the first one only.
    pub fn proxy_maps(&self) -> Result<ProxyMaps, LoadError> {
        Ok(ProxyMaps {
            origins: maps::share(&self.pins.map("ORIGINS"), 0)?,
            dns_origins: maps::share(&self.pins.map("DNS_ORIGINS"), sys::READ_ONLY)?,
            counters: maps::share(&self.pins.map("COUNTERS"), sys::READ_ONLY)?,
        })
    }

    /// Attaches what joins sockets, for the first pod that asks for it. Twice is once.
    fn accelerate(&mut self) -> Result<(), LoadError> {
        if self.acceleration.is_some() {
            return Ok(());
        }
        let fast = maps::share(&self.pins.map("FAST"), 0)?;
        sys::attach_sk_msg(self.shared.fd(object::ACCELERATE)?, fast.as_fd())
            .map_err(LoadError::io("attach program accelerate"))?;
        let (name, attach_type) = object::ACCELERATE_PROXY;
        let program = self.shared.fd(name)?;
        let attach = || {
            let cgroup = File::open(own_cgroup()?)?;
            sys::link_create(program, Place::Fd(cgroup.as_fd()), attach_type)
        };
        self.acceleration = Some(attach().map_err(LoadError::io(format!("attach program {name}")))?);
        Ok(())
    }

    fn entry(&self, slot: Slot) -> Result<abi::PodEntry, LoadError> {
        let entry = self.maps.pod(slot).map_err(LoadError::io("read the map PODS"))?;
        entry.ok_or(LoadError::NotEnrolled(slot.get()))
    }

    /// Where the pod's namespace is now: the path by which it was enrolled may have died with its process.
    fn place(&self, slot: Slot) -> Result<Netns, LoadError> {
        if let Some(netns) = self.places.get(&slot).filter(|netns| netns.is_there()) {
            return Ok(netns.clone());
        }
        let entry = self.entry(slot)?;
        let gone = || io::Error::new(io::ErrorKind::NotFound, "no process and no file leads there");
        plumbing::find(entry.netns_cookie, entry.netns_inode)
            .ok_or_else(gone)
            .map_err(LoadError::io(format!("go into the network namespace of the pod in slot {slot}")))
    }
}
