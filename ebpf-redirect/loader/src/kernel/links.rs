//! The pins of one pod: what is attached and what is not.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use abi::PodEntry;

use super::{Adopted, Kernel, Slot, plumbing};
use crate::{
    LoadError,
    object::{Hook, INBOUND, POD_PROGRAMS, PodProgram},
    sys::{self, Target},
    wire,
};

/// Inodes of namespaces are 32 bits wide in the kernel's description of a link.
const INODE_BITS: u64 = 0xffff_ffff;

impl Kernel {
    /// The link behind a pin and what it is attached to; none: no such pin.
    pub(super) fn link(&self, slot: Slot, name: &str) -> io::Result<Option<(OwnedFd, Target)>> {
        match sys::pinned(&self.pins.links(slot).join(name), 0) {
            Ok(link) => {
                let target = sys::link_target(link.as_fd())?;
                Ok(Some((link, target)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The link, if it is attached where it should be.
    pub(super) fn attached(&self, slot: Slot, name: &str, wanted: Target) -> io::Result<Option<OwnedFd>> {
        Ok(self.link(slot, name)?.filter(|(_, target)| *target == wanted).map(|(link, _)| link))
    }

    /// Gives a new link its pin; what lay there before is detached first.
    pub(super) fn pin(&self, slot: Slot, name: &str, link: BorrowedFd<'_>) -> io::Result<()> {
        self.pins.remove_link(slot, name)?;
        sys::pin(link, &self.pins.links(slot).join(name))
    }

    /// The pod's own programs that are not attached where they should be.
    pub(super) fn missing(&self, slot: Slot, pod: &PodEntry) -> io::Result<Vec<&'static str>> {
        let mut missing = Vec::new();
        for program in &POD_PROGRAMS {
            if self.attached(slot, program.name, target_of(program, pod))?.is_none() {
                missing.push(program.name);
            }
        }
        Ok(missing)
    }

    /// Whether the namespace is alive, by the link that is attached to it.
    pub(super) fn netns_is_alive(&self, slot: Slot, pod: &PodEntry) -> io::Result<bool> {
        match self.link(slot, INBOUND)? {
            Some((_, target)) => Ok(target != Target(0)),
            None => Ok(plumbing::find(pod.netns_cookie, pod.netns_inode).is_some()),
        }
    }

    pub(super) fn describe(&self, slot: Slot, pod: &PodEntry) -> Result<Adopted, LoadError> {
        let name = wire::name_of(pod);
        let read = || -> io::Result<Adopted> {
            let missing: Vec<_> = self.missing(slot, pod)?.into_iter().map(str::to_owned).collect();
            let mut programs = Vec::new();
            for name in self.pins.link_names(slot)? {
                let is_attached = self.link(slot, &name)?.is_some_and(|(_, target)| target != Target(0));
                if is_attached && !missing.contains(&name) {
                    programs.push(name);
                }
            }
            programs.sort();
            let cgroup = self.link(slot, "connect4")?.map(|(_, target)| target);
            Ok(Adopted {
                slot,
                name: name.clone(),
                netns_cookie: pod.netns_cookie,
                netns_inode: pod.netns_inode,
                cgroup: pod.cgroup,
                complete: missing.is_empty(),
                missing,
                programs,
                ready: self.maps.is_ready(pod.netns_cookie, slot)?,
                netns_alive: self.netns_is_alive(slot, pod)?,
                cgroup_alive: cgroup != Some(Target(0)),
            })
        };
        read().map_err(LoadError::io(format!("read the pins of {name}")))
    }
}

/// What a program of this pod should be attached to.
pub(super) fn target_of(program: &PodProgram, pod: &PodEntry) -> Target {
    match program.hook {
        Hook::Cgroup => Target(pod.cgroup),
        Hook::Netns => Target(pod.netns_inode & INODE_BITS),
    }
}
