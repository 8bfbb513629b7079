//! What the agent does in the kernel, behind a trait so that everything above it can be tested without
//! root.

use std::{
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use abi::DnsPorts;
use loader::{EnrolError, Family, Kernel, Listeners, LoadError, Netns, PodFacts, Slot};

use super::{
    plan::{Held, Place, Take},
    protocol::{FamilyListeners, MapDescriptors, PodKey, SocketKind},
};

/// Does the agent's work in the kernel. Every call blocks, for milliseconds.
pub(super) trait Hands: Send {
    /// The pods found pinned.
    fn adopted(&self) -> Result<Vec<Found>, String>;
    /// Enrols, or enrols again.
    fn enrol(&mut self, pod: &Take) -> Result<Taken, Untaken>;
    /// Removes every trace of a pod.
    fn unenrol(&mut self, slot: u32) -> Result<(), String>;
    /// Takes a pod's programs away; what the proxy's connections under way need stays.
    fn detach(&mut self, slot: u32) -> Result<(), String>;
    /// How many connections of the proxy's there are inside a pod.
    fn under_way(&self, slot: u32) -> Result<usize, String>;
    /// Removes what is left of pods that are gone; gives their slots.
    fn collect(&mut self) -> Result<Vec<u32>, String>;
    /// Guards new interfaces; gives the pod's addresses and what to remark about it.
    fn tend(&mut self, pod: &Spot) -> Result<Tended, String>;
    /// Fresh listeners: IPv4, and IPv6 where the pod has it.
    fn listeners(&self, slot: u32) -> Result<(FamilyListeners, Option<FamilyListeners>), String>;
    /// Fresh sockets, at least one.
    fn sockets(&self, slot: u32, kind: SocketKind, count: usize) -> Result<Vec<OwnedFd>, String>;
    /// Ends connections that were opened before enrolment; gives how many.
    fn end_old(&mut self, slot: u32) -> Result<u32, String>;
    /// Puts listeners in service and lets the pod connect.
    fn serve(&mut self, slot: u32, v4: &FamilyListeners, v6: Option<&FamilyListeners>) -> Result<(), String>;
    /// The maps that a proxy reads.
    fn maps(&self) -> Result<MapDescriptors, String>;
    /// What the programs have counted.
    fn counters(&self) -> Result<Vec<(&'static str, u64)>, String>;
    /// The node's own addresses.
    fn node_addresses(&self) -> Result<Vec<IpAddr>, String>;
}

/// A pod found pinned.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) key: PodKey,
    pub(super) held: Held,
    /// Every program is there.
    pub(super) whole: bool,
    /// It may connect: its connections from before enrolment were ended then.
    pub(super) ready: bool,
}

/// What enrolment made.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) key: PodKey,
    /// Not merely found as it should be.
    pub(super) fresh: bool,
    pub(super) remarks: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
}

/// Why a pod is not enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Untaken {
    /// No slot is free.
    Full(String),
    /// The kernel, or the pod's state, is against it; its traffic goes as before.
    Failed(String),
    /// Half done and not undone: its connections are refused.
    Closed(String),
}

/// Where an enrolled pod is.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) slot: u32,
    pub(super) netns: PathBuf,
    pub(super) inode: u64,
}

/// What a look at an enrolled pod gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tended {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) remarks: Vec<String>,
}

/// The real ones.
#[derive(Debug)]
pub(super) struct KernelHands {
    pub(super) kernel: Kernel,
}

/// The most addresses of one pod that are told. It may be able to give itself as many as it likes, and
/// what all pods' lists travel in has room for so much.
const MAX_ADDRESSES: usize = 64;

fn bounded(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn slot(number: u32) -> Result<Slot, String> {
    Slot::new(number).ok_or_else(|| format!("there is no slot {number}"))
}

impl Hands for KernelHands {
    fn adopted(&self) -> Result<Vec<Found>, String> {
        let found = |pod: loader::Adopted| Found {
            key: PodKey { slot: pod.slot.get(), netns: pod.netns_cookie },
            held: Held {
                slot: pod.slot.get(),
                place: Place { netns: pod.netns_inode, cgroup: pod.cgroup },
                workload: pod.name,
                accelerated: None,
            },
            whole: pod.complete,
            ready: pod.ready,
        };
        Ok(self.kernel.adopted().map_err(text)?.into_iter().map(found).collect())
    }

    fn enrol(&mut self, pod: &Take) -> Result<Taken, Untaken> {
        let failed = |error: String| Untaken::Failed(error);
        let netns =
            Netns::open(&pod.netns).map_err(|error| failed(format!("its network namespace: {error}")))?;
        // Between the look and now a path may have come to lead elsewhere.
        if netns.inode() != pod.place.netns {
            return Err(failed("its network namespace has changed meanwhile".to_owned()));
        }
        match loader::cgroup_id(&pod.cgroup) {
            Ok(id) if id == pod.place.cgroup => {}
            Ok(_) => return Err(failed("its cgroup has changed meanwhile".to_owned())),
            Err(error) => return Err(failed(format!("its cgroup: {error}"))),
        }
        let facts = PodFacts {
            name: pod.workload.clone(),
            netns: netns.clone(),
            cgroup: pod.cgroup.clone(),
            accelerated: pod.accelerated,
        };
        let made = self.kernel.enrol(&facts).map_err(|error| match error {
            EnrolError::Full(_) => Untaken::Full(error.to_string()),
            EnrolError::Closed { .. } => Untaken::Closed(error.to_string()),
            _ => failed(error.to_string()),
        })?;
        Ok(Taken {
            key: PodKey { slot: made.slot.get(), netns: netns.cookie() },
            fresh: made.fresh,
            remarks: made.remarks,
            // They are looked at again each second.
            addresses: netns.addresses().map(bounded).unwrap_or_default(),
        })
    }

    fn unenrol(&mut self, number: u32) -> Result<(), String> {
        self.kernel.unenrol(slot(number)?).map_err(text)
    }

    fn detach(&mut self, number: u32) -> Result<(), String> {
        self.kernel.detach(slot(number)?).map_err(text)
    }

    fn under_way(&self, number: u32) -> Result<usize, String> {
        self.kernel.under_way(slot(number)?).map_err(text)
    }

    fn collect(&mut self) -> Result<Vec<u32>, String> {
        let collected = self.kernel.collect().map_err(text)?;
        Ok(collected.into_iter().map(|pod| pod.slot.get()).collect())
    }

    fn tend(&mut self, pod: &Spot) -> Result<Tended, String> {
        let remarks = self.kernel.reconcile(slot(pod.slot)?).map_err(text)?;
        let netns = Netns::open(&pod.netns).map_err(text)?;
        if netns.inode() != pod.inode {
            return Err("its network namespace is no longer where it was".to_owned());
        }
        Ok(Tended { addresses: netns.addresses().map(bounded).map_err(text)?, remarks })
    }

    fn listeners(&self, number: u32) -> Result<(FamilyListeners, Option<FamilyListeners>), String> {
        let slot = slot(number)?;
        let v4 = self.family(slot, Family::V4).map_err(text)?;
        let v6 = match self.family(slot, Family::V6) {
            Ok(v6) => Some(v6),
            Err(error) if is_without_family(&error) => None,
            Err(error) => return Err(text(error)),
        };
        Ok((v4, v6))
    }

    fn sockets(&self, number: u32, kind: SocketKind, count: usize) -> Result<Vec<OwnedFd>, String> {
        use loader::SocketKind as Kind;
        let kind = match kind {
            SocketKind::Egress4 => Kind::Egress(Family::V4),
            SocketKind::Egress6 => Kind::Egress(Family::V6),
            SocketKind::Ingress4 => Kind::Ingress(Family::V4),
            SocketKind::Ingress6 => Kind::Ingress(Family::V6),
            SocketKind::Dns4 => Kind::DnsEgress(Family::V4),
            SocketKind::Dns6 => Kind::DnsEgress(Family::V6),
        };
        let made = self.kernel.sockets(slot(number)?, kind, count).map_err(text)?;
        if made.is_empty() { Err("no socket could be made".to_owned()) } else { Ok(made) }
    }

    fn end_old(&mut self, number: u32) -> Result<u32, String> {
        self.kernel.end_old_connections(slot(number)?).map_err(text)
    }

    fn serve(
        &mut self,
        number: u32,
        v4: &FamilyListeners,
        v6: Option<&FamilyListeners>,
    ) -> Result<(), String> {
        let slot = slot(number)?;
        let mut dns = DnsPorts::default();
        let families = [(Some(v4), &mut dns.v4), (v6, &mut dns.v6)];
        for (listeners, ports) in families {
            for (socket, port) in listeners.into_iter().flat_map(|family| &family.dns).zip(ports) {
                *port = loader::local_port(socket).map_err(text)?;
            }
        }
        let listeners = Listeners {
            in4: v4.inbound.as_fd(),
            in6: v6.map(|family| family.inbound.as_fd()),
            out4: v4.outbound.as_fd(),
            out6: v6.map(|family| family.outbound.as_fd()),
        };
        self.kernel.serve(slot, &listeners, dns).map_err(text)?;
        self.kernel.ready(slot).map_err(text)
    }

    fn maps(&self) -> Result<MapDescriptors, String> {
        let maps = self.kernel.proxy_maps().map_err(text)?;
        Ok(MapDescriptors { origins: maps.origins, dns_origins: maps.dns_origins, counters: maps.counters })
    }

    fn counters(&self) -> Result<Vec<(&'static str, u64)>, String> {
        let counters = self.kernel.counters().map_err(text)?;
        Ok(counters.into_iter().map(|(counter, value)| (counter.name(), value)).collect())
    }

    fn node_addresses(&self) -> Result<Vec<IpAddr>, String> {
        Netns::own().and_then(|netns| netns.addresses()).map_err(text)
    }
}

impl KernelHands {
    fn family(&self, slot: Slot, family: Family) -> Result<FamilyListeners, LoadError> {
        let make = |kind, count| self.kernel.sockets(slot, kind, count);
        let missing = || LoadError::NotEnrolled(slot.get());
        let mut listeners = make(loader::SocketKind::Listener(family), 2)?.into_iter();
        let dns = make(loader::SocketKind::Dns(family), abi::DNS_SERVERS)?;
        Ok(FamilyListeners {
            inbound: listeners.next().ok_or_else(missing)?,
            outbound: listeners.next().ok_or_else(missing)?,
            dns: dns.try_into().map_err(|_| missing())?,
        })
    }
}

/// Whether sockets cannot be made because the pod has no such address family: no `::1`, or no IPv6.
fn is_without_family(error: &LoadError) -> bool {
    let LoadError::Io { source, .. } = error else { return false };
    matches!(source.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT))
}
