//! Enrolment: a pod's traffic comes under the proxy, with no instant in which a connection goes round.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use abi::PodEntry;
use rustix::fs::statfs;

use super::{Enrolled, Kernel, PodFacts, Slot, links::target_of, plumbing};
use crate::{
    EnrolError, LoadError, cgroup_id,
    object::{Constants, Hook, POD_PROGRAMS, PodProgram, Programs},
    own_cgroup,
    sys::{self, Place},
    wire,
};

/// `CGROUP2_SUPER_MAGIC` (linux/magic.h).
const CGROUP2: u64 = 0x6367_7270;

/// In `PodEntry::flags`, above the flags of `plumbing`: `Constants::stamp`.
const STAMP_SHIFT: u32 = 8;

impl Kernel {
    /// Attaches every program, in the order that leaves no instant in which a connection goes round,
    /// and no connection is let through until [`Kernel::ready`]. A pod that is there already is mended
    /// where something is missing or older than this build, and otherwise left alone. Blocks for some
    /// milliseconds.
    ///
    /// # Errors
    /// They say what state the pod was left in; in none of them is it believed to be captured.
    pub fn enrol(&mut self, pod: &PodFacts) -> Result<Enrolled, EnrolError> {
        let (entry, constants, existing) = self.plan(pod)?;
        let mut enrolled = match existing {
            Some((slot, old)) => self.mend(slot, pod, &old, entry, &constants)?,
            None => self.enrol_new(pod, entry, &constants)?,
        };
        self.places.insert(enrolled.slot, pod.netns.clone());
        if pod.accelerated
            && let Err(error) = self.accelerate()
        {
            enrolled.remarks.push(format!("without acceleration: {error}"));
        }
        Ok(enrolled)
    }

    /// What the pod's entry should be, and the one it has. Changes nothing.
    #[expect(clippy::type_complexity, reason = "three parts of one answer, taken apart at once")]
    fn plan(&self, pod: &PodFacts) -> Result<(PodEntry, Constants, Option<(Slot, PodEntry)>), EnrolError> {
        let refused = |what: &str| EnrolError::Refused(format!("{}: {what}", pod.name));
        let cgroup =
            pod_cgroup(pod).map_err(|error| refused(&format!("cgroup {}: {error}", pod.cgroup.display())))?;
        if pod.netns.cookie() == self.own.cookie() {
            return Err(refused("its network namespace is the agent's own (hostNetwork)"));
        }
        if self.settings.allowed_cgroups.contains(&cgroup) || is_around_us(&pod.cgroup) {
            return Err(refused("the agent itself is in its cgroup"));
        }
        let addresses =
            pod.netns.addresses().map_err(|error| refused(&format!("network namespace: {error}")))?;
        let pods = self.maps.pods().map_err(|error| refused(&format!("map PODS: {error}")))?;
        let existing = pods.iter().find(|(_, other)| other.netns_cookie == pod.netns.cookie()).copied();
        let taken =
            pods.iter().find(|(_, other)| other.cgroup == cgroup && other.netns_cookie != pod.netns.cookie());
        if let Some((slot, _)) = taken {
            return Err(refused(&format!(
                "its cgroup belongs to the pod in slot {slot}: un-enrol that first"
            )));
        }
        let slot = match existing {
            Some((slot, _)) => slot,
            None => free_slot(&pods).ok_or(EnrolError::Full(abi::MAX_PODS))?,
        };
        let constants = Constants::new(slot.get(), pod.netns.cookie(), &addresses, pod.accelerated);
        let (name, name_length) = wire::name_bytes(&pod.name);
        let (netns_cookie, netns_inode) = (pod.netns.cookie(), pod.netns.inode());
        let flags = constants.stamp() << STAMP_SHIFT;
        Ok((PodEntry { netns_cookie, netns_inode, cgroup, flags, name_length, name }, constants, existing))
    }

    fn enrol_new(
        &self,
        pod: &PodFacts,
        entry: PodEntry,
        constants: &Constants,
    ) -> Result<Enrolled, EnrolError> {
        let slot = Slot::new(constants.slot).ok_or(EnrolError::Full(abi::MAX_PODS))?;
        let built = self.build(slot, pod, entry, constants);
        match built {
            Ok(remarks) => Ok(Enrolled { slot, fresh: true, remarks }),
            Err(error) => match self.remove(slot, &entry, Some(&pod.netns)) {
                Ok(()) => Err(EnrolError::Undone(error)),
                Err(_) => Err(EnrolError::Closed { error }),
            },
        }
    }

    fn build(
        &self,
        slot: Slot,
        pod: &PodFacts,
        entry: PodEntry,
        constants: &Constants,
    ) -> Result<Vec<String>, LoadError> {
        // Loading is what fails when anything does, so it comes before the first change.
        let programs = Programs::of_pod(&self.pins.maps(), self.settings.origins, constants)?;
        self.close(slot, &entry).map_err(LoadError::io("clear the slot"))?;
        let entry = self.record(slot, pod, entry)?;
        let remarks = self.attach(slot, pod, &entry, &programs)?;
        pod.netns
            .run(|| plumbing::lay(entry.flags & plumbing::FLAGS))
            .flatten()
            .map_err(LoadError::io("route marked packets in the pod"))?;
        Ok(remarks)
    }

    /// Mends a pod that is not whole, and puts programs of this build in the place of others.
    fn mend(
        &self,
        slot: Slot,
        pod: &PodFacts,
        old: &PodEntry,
        mut entry: PodEntry,
        constants: &Constants,
    ) -> Result<Enrolled, EnrolError> {
        let kept = |error| EnrolError::Kept { error };
        let missing = self.missing(slot, &entry).map_err(LoadError::io("read the pins")).map_err(kept)?;
        let current = old.flags >> STAMP_SHIFT == entry.flags >> STAMP_SHIFT;
        let is_ready = self.maps.is_ready(entry.netns_cookie, slot);
        let ready = is_ready.map_err(LoadError::io("read the map READY")).map_err(kept)?;
        // What was changed in the namespace before is still to be undone at the end.
        entry.flags |= old.flags & plumbing::FLAGS;
        if missing.is_empty() && current {
            let remarks =
                self.guard(slot, &pod.netns, false).map_err(LoadError::io("guard the pod's interfaces"));
            let remarks = remarks.map_err(kept)?;
            self.lay_again(slot, pod, entry).map_err(kept)?;
            return Ok(Enrolled { slot, fresh: !ready, remarks });
        }
        let whole = missing.is_empty();
        let failed = |error| if whole { EnrolError::Kept { error } } else { EnrolError::Closed { error } };
        if !whole {
            // Closed until it is.
            self.close(slot, &entry).map_err(LoadError::io("close the pod")).map_err(failed)?;
        }
        let remarks = self.renew(slot, pod, entry, constants).map_err(failed)?;
        Ok(Enrolled { slot, fresh: !(whole && ready), remarks })
    }

    fn renew(
        &self,
        slot: Slot,
        pod: &PodFacts,
        entry: PodEntry,
        constants: &Constants,
    ) -> Result<Vec<String>, LoadError> {
        let programs = Programs::of_pod(&self.pins.maps(), self.settings.origins, constants)?;
        // Without the stamp until all are of this build, so that an interrupted renewal is begun again.
        let mut recorded = entry;
        recorded.flags &= plumbing::FLAGS;
        let mut recorded = self.record(slot, pod, recorded)?;
        let remarks = self.attach(slot, pod, &recorded, &programs)?;
        recorded.flags |= constants.stamp() << STAMP_SHIFT;
        self.lay_again(slot, pod, recorded)?;
        Ok(remarks)
    }

    /// Writes the pod's entry with the sysctls that are to be changed back one day, before they change.
    fn record(&self, slot: Slot, pod: &PodFacts, mut entry: PodEntry) -> Result<PodEntry, LoadError> {
        let unset = pod.netns.run(plumbing::unset).flatten();
        entry.flags |= unset.map_err(LoadError::io("read the sysctls of the pod"))?;
        self.maps.set_pod(slot, &entry).map_err(LoadError::io("write the map PODS"))?;
        let folder = self.pins.links(slot);
        fs::create_dir_all(&folder)
            .map_err(LoadError::io(format!("make the folder {}", folder.display())))?;
        Ok(entry)
    }

    fn lay_again(&self, slot: Slot, pod: &PodFacts, entry: PodEntry) -> Result<(), LoadError> {
        let entry = self.record(slot, pod, entry)?;
        pod.netns
            .run(|| plumbing::lay(entry.flags & plumbing::FLAGS))
            .flatten()
            .map_err(LoadError::io("route marked packets in the pod"))
    }

    /// Guards first, then the pod's programs in their order. What is attached already is renewed.
    fn attach(
        &self,
        slot: Slot,
        pod: &PodFacts,
        entry: &PodEntry,
        programs: &Programs,
    ) -> Result<Vec<String>, LoadError> {
        let remarks =
            self.guard(slot, &pod.netns, true).map_err(LoadError::io("guard the pod's interfaces"))?;
        let cgroup = fs::File::open(&pod.cgroup).map_err(LoadError::io("open the pod's cgroup"))?;
        let netns = pod.netns.file().map_err(LoadError::io("open the pod's network namespace"))?;
        for program in &POD_PROGRAMS {
            let place = match program.hook {
                Hook::Cgroup => Place::Fd(cgroup.as_fd()),
                Hook::Netns => Place::Fd(netns.as_fd()),
            };
            self.attach_one(slot, entry, program, programs, place)?;
        }
        // The cgroup's path may have come to mean another one since it was looked at.
        match self.missing(slot, entry).map_err(LoadError::io("read the pins"))?.first() {
            None => Ok(remarks),
            Some(program) => {
                let reason = "the pod's cgroup or network namespace has changed meanwhile".to_owned();
                Err(LoadError::Bpf { doing: format!("attach program {program}"), reason })
            }
        }
    }

    fn attach_one(
        &self,
        slot: Slot,
        entry: &PodEntry,
        program: &PodProgram,
        programs: &Programs,
        place: Place<'_>,
    ) -> Result<(), LoadError> {
        let fd = programs.fd(program.name)?;
        let attach = || -> io::Result<()> {
            if let Some(link) = self.attached(slot, program.name, target_of(program, entry))? {
                return sys::link_update(link.as_fd(), fd);
            }
            let link = sys::link_create(fd, place, program.attach_type)?;
            self.pin(slot, program.name, link.as_fd())
        };
        attach().map_err(LoadError::io(format!("attach program {}", program.name)))
    }
}

/// Id of the pod's cgroup, which has to be one of cgroup v2.
fn pod_cgroup(pod: &PodFacts) -> io::Result<u64> {
    let id = cgroup_id(&pod.cgroup)?;
    let found = statfs(&pod.cgroup)?;
    if found.f_type.cast_unsigned() == CGROUP2 {
        Ok(id)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not in a cgroup v2 file system"))
    }
}

/// Whether this process is in the cgroup or below it: the pod's programs would hold it too, and with the
/// root of the tree the whole node.
fn is_around_us(cgroup: &Path) -> bool {
    let around = |ours: PathBuf| Ok::<_, io::Error>(ours.canonicalize()?.starts_with(cgroup.canonicalize()?));
    own_cgroup().and_then(around).unwrap_or(false)
}

/// The lowest slot that no pod has.
fn free_slot(pods: &[(Slot, PodEntry)]) -> Option<Slot> {
    let numbers = 0..abi::MAX_PODS;
    let mut taken = pods.iter().map(|(slot, _)| slot.get()).peekable();
    for number in numbers {
        if taken.peek() != Some(&number) {
            return Slot::new(number);
        }
        taken.next();
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_lowest_free_slot_is_taken() {
        let name = [0; abi::NAME_LENGTH];
        let entry = PodEntry { netns_cookie: 1, netns_inode: 2, cgroup: 3, flags: 0, name_length: 0, name };
        let pods =
            |numbers: &[u32]| -> Vec<_> { numbers.iter().map(|n| (Slot::new(*n).unwrap(), entry)).collect() };
        assert_eq!(free_slot(&[]), Slot::new(0));
        assert_eq!(free_slot(&pods(&[0, 1, 3])), Slot::new(2));
        let all: Vec<_> = (0..abi::MAX_PODS).collect();
        assert_eq!(free_slot(&pods(&all)), None);
    }
}
