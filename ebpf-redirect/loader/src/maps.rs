//! The maps of the agent's side, by what they mean.

use std::{io, os::fd::OwnedFd, path::Path};

use abi::{Counter, DnsPorts, Origin, PodEntry};

use crate::{
    LoadError, Slot,
    proxy::Counters,
    sys::{self, Map, map_kind},
    wire,
};

/// All maps that the agent reads or writes.
#[derive(Debug)]
pub(crate) struct Maps {
    pods: Map,
    ready: Map,
    listen: Map,
    dns_ports: Map,
    cgroups: Map,
    origins: Map,
    dns_origins: Map,
    counters: Counters,
}

/// How many keys one walk looks at: no map has more.
const MAX_KEYS: usize = 1 << 20;

impl Maps {
    pub(crate) fn open(folder: &Path) -> Result<Self, LoadError> {
        let open = |name: &str, kind, key, value| {
            sys::pinned(&folder.join(name), 0)
                .and_then(|fd| Map::new(fd, kind, key, value))
                .map_err(LoadError::io(format!("open the map {name}")))
        };
        let size = size_of::<wire::OriginKeyBytes>();
        Ok(Self {
            pods: open("PODS", map_kind::HASH, 4, size_of::<wire::PodBytes>())?,
            ready: open("READY", map_kind::HASH, 8, 4)?,
            listen: open("LISTEN", map_kind::SOCKMAP, 4, 4)?,
            dns_ports: open("DNS_PORTS", map_kind::HASH, 8, size_of::<wire::DnsPortsBytes>())?,
            cgroups: open("ALLOWED_CGROUPS", map_kind::HASH, 8, 1)?,
            origins: open("ORIGINS", map_kind::HASH, size, size_of::<wire::OriginBytes>())?,
            dns_origins: open(
                "DNS_ORIGINS",
                map_kind::LRU_HASH,
                size_of::<wire::DnsKeyBytes>(),
                size_of::<wire::AddressBytes>(),
            )?,
            counters: sys::pinned(&folder.join("COUNTERS"), sys::READ_ONLY)
                .and_then(Counters::from_fd)
                .map_err(LoadError::io("open the map COUNTERS"))?,
        })
    }

    pub(crate) fn counters(&self) -> io::Result<Vec<(Counter, u64)>> {
        self.counters.read()
    }

    pub(crate) fn pod(&self, slot: Slot) -> io::Result<Option<PodEntry>> {
        let mut bytes: wire::PodBytes = [0; _];
        let found = self.pods.get(&slot.get().to_ne_bytes(), &mut bytes)?;
        Ok(found.then(|| wire::to_pod(&bytes)))
    }

    pub(crate) fn set_pod(&self, slot: Slot, pod: &PodEntry) -> io::Result<()> {
        self.pods.set(&slot.get().to_ne_bytes(), &wire::from_pod(pod))
    }

    pub(crate) fn remove_pod(&self, slot: Slot) -> io::Result<()> {
        self.pods.remove(&slot.get().to_ne_bytes()).map(drop)
    }

    /// In the order of the slots.
    pub(crate) fn pods(&self) -> io::Result<Vec<(Slot, PodEntry)>> {
        let mut found = Vec::new();
        for key in keys::<4>(&self.pods)? {
            let Some(slot) = Slot::new(u32::from_ne_bytes(key)) else { continue };
            found.extend(self.pod(slot)?.map(|pod| (slot, pod)));
        }
        found.sort_by_key(|(slot, _)| *slot);
        Ok(found)
    }

    pub(crate) fn is_ready(&self, netns: u64, slot: Slot) -> io::Result<bool> {
        let mut value = [0; 4];
        Ok(self.ready.get(&netns.to_ne_bytes(), &mut value)? && u32::from_ne_bytes(value) == slot.get())
    }

    pub(crate) fn set_ready(&self, netns: u64, slot: Slot) -> io::Result<()> {
        self.ready.set(&netns.to_ne_bytes(), &slot.get().to_ne_bytes())
    }

    pub(crate) fn remove_ready(&self, netns: u64) -> io::Result<()> {
        self.ready.remove(&netns.to_ne_bytes()).map(drop)
    }

    /// `listener` is one of `abi::slot`; the socket stays in the map until it is closed.
    pub(crate) fn set_listener(&self, slot: Slot, listener: u32, socket: i32) -> io::Result<()> {
        self.listen.set(&index(slot, listener), &socket.to_ne_bytes())
    }

    pub(crate) fn remove_listener(&self, slot: Slot, listener: u32) -> io::Result<()> {
        match self.listen.remove(&index(slot, listener)) {
            // A map of sockets says so of an empty place.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other.map(drop),
        }
    }

    pub(crate) fn set_dns_ports(&self, netns: u64, ports: &DnsPorts) -> io::Result<()> {
        self.dns_ports.set(&netns.to_ne_bytes(), &wire::from_dns_ports(ports))
    }

    pub(crate) fn remove_dns_ports(&self, netns: u64) -> io::Result<()> {
        self.dns_ports.remove(&netns.to_ne_bytes()).map(drop)
    }

    pub(crate) fn allow_cgroup(&self, cgroup: u64) -> io::Result<()> {
        self.cgroups.set(&cgroup.to_ne_bytes(), &[1])
    }

    pub(crate) fn forbid_cgroup(&self, cgroup: u64) -> io::Result<()> {
        self.cgroups.remove(&cgroup.to_ne_bytes()).map(drop)
    }

    pub(crate) fn allowed_cgroups(&self) -> io::Result<Vec<u64>> {
        Ok(keys::<8>(&self.cgroups)?.into_iter().map(u64::from_ne_bytes).collect())
    }

    /// Removes the original destinations for which `is_stale`.
    pub(crate) fn remove_origins(&self, is_stale: impl Fn(&Origin) -> bool) -> io::Result<u32> {
        let mut removed = 0;
        for key in keys::<{ size_of::<wire::OriginKeyBytes>() }>(&self.origins)? {
            let mut value: wire::OriginBytes = [0; _];
            if self.origins.get(&key, &mut value)? && is_stale(&wire::to_origin(&value)) {
                removed += u32::from(self.origins.remove(&key)?);
            }
        }
        Ok(removed)
    }

    /// Removes the DNS servers asked from a namespace.
    pub(crate) fn remove_dns_origins(&self, netns: u64) -> io::Result<()> {
        for key in keys::<{ size_of::<wire::DnsKeyBytes>() }>(&self.dns_origins)? {
            if key.starts_with(&netns.to_ne_bytes()) {
                self.dns_origins.remove(&key)?;
            }
        }
        Ok(())
    }
}

fn index(slot: Slot, listener: u32) -> [u8; 4] {
    (slot.get() * abi::SLOT_WIDTH + listener).to_ne_bytes()
}

/// All keys; those that come or go meanwhile may be missing or stale.
fn keys<const N: usize>(map: &Map) -> io::Result<Vec<[u8; N]>> {
    let mut found: Vec<[u8; N]> = Vec::new();
    let mut next = [0; N];
    // When the key is gone the kernel starts over: the bound ends that, the caller sees some keys twice.
    while found.len() < MAX_KEYS && map.next(found.last().map(<[u8; N]>::as_slice), &mut next)? {
        found.push(next);
    }
    Ok(found)
}

/// A map for the proxy; `flags` as [`sys::READ_ONLY`].
pub(crate) fn share(path: &Path, flags: u32) -> Result<OwnedFd, LoadError> {
    sys::pinned(path, flags).map_err(LoadError::io(format!("open {}", path.display())))
}
