//! Un-enrolment: the reverse of enrolment, and begun again where it was cut off.

use std::io;

use abi::PodEntry;

use super::{
    Kernel, Slot,
    guard::{is_guard, is_host_guard},
    plumbing,
};
use crate::{LoadError, Netns, object::POD_PROGRAMS};

impl Kernel {
    /// Removes every trace of the pod, in the reverse order of [`Kernel::enrol`]: its connections are
    /// refused until the last program is gone. Drain before, if connections under way shall end well.
    ///
    /// # Errors
    /// The pod is partly enrolled and stays in [`Kernel::adopted`]; call it again.
    pub fn unenrol(&mut self, slot: Slot) -> Result<(), LoadError> {
        let entry = self.entry(slot)?;
        self.remove(slot, &entry, self.place(slot).ok().as_ref())?;
        self.places.remove(&slot);
        Ok(())
    }

    /// The first half of [`Kernel::unenrol`]: takes the pod's programs away, in the same order, and leaves
    /// its slot and the routes of the proxy's packets, so that connections under way can end well.
    /// [`Kernel::enrol`] enrols it again, [`Kernel::unenrol`] finishes.
    ///
    /// # Errors
    /// As [`Kernel::unenrol`].
    pub fn detach(&mut self, slot: Slot) -> Result<(), LoadError> {
        let entry = self.entry(slot)?;
        self.close(slot, &entry).map_err(LoadError::io("close the pod"))?;
        self.remove_links(slot)
    }

    fn remove_links(&self, slot: Slot) -> Result<(), LoadError> {
        let names = self.pins.link_names(slot).map_err(LoadError::io("read the pins"))?;
        for name in in_reverse(names) {
            self.pins.remove_link(slot, &name).map_err(LoadError::io(format!("detach program {name}")))?;
        }
        self.pins.remove_folder(slot).map_err(LoadError::io("remove the folder of the pins"))
    }

    /// Un-enrols every pod and removes the maps too: as if no agent had ever run. For the end of an
    /// installation; a proxy that still runs has nothing left to serve.
    ///
    /// # Errors
    /// What could not be removed stays; open again and call it again.
    pub fn release(mut self) -> Result<(), LoadError> {
        for (slot, _) in self.maps.pods().map_err(LoadError::io("read the map PODS"))? {
            self.unenrol(slot)?;
        }
        self.pins.remove().map_err(LoadError::io("remove the pins"))
    }

    /// Refuses the pod's connections, in and out, and its DNS queries.
    pub(super) fn close(&self, slot: Slot, entry: &PodEntry) -> io::Result<()> {
        self.maps.remove_ready(entry.netns_cookie)?;
        for listener in 0..abi::SLOT_WIDTH {
            self.maps.remove_listener(slot, listener)?;
        }
        self.maps.remove_dns_ports(entry.netns_cookie)
    }

    /// Everything but `places`. Without a namespace, what was changed inside is gone or out of reach.
    pub(super) fn remove(
        &self,
        slot: Slot,
        entry: &PodEntry,
        netns: Option<&Netns>,
    ) -> Result<(), LoadError> {
        self.close(slot, entry).map_err(LoadError::io("close the pod"))?;
        // The entry in the map, not the caller's: it has the flags of what was changed.
        let recorded = self.maps.pod(slot).map_err(LoadError::io("read the map PODS"))?.unwrap_or(*entry);
        if let Some(netns) = netns {
            match netns.run(|| plumbing::remove(recorded.flags & plumbing::FLAGS)) {
                Ok(done) => done.map_err(LoadError::io("put the pod's network namespace back as it was"))?,
                Err(_) if !netns.is_there() => {}
                Err(error) => return Err(LoadError::io("go into the pod's network namespace")(error)),
            }
        }
        self.remove_links(slot)?;
        let forget = || -> io::Result<()> {
            self.maps.remove_origins(|origin| origin.netns == entry.netns_cookie)?;
            self.maps.remove_dns_origins(entry.netns_cookie)?;
            // Last: until here the slot is the pod's, and what is left is found again.
            self.maps.remove_pod(slot)
        };
        forget().map_err(LoadError::io("remove the pod from the maps"))
    }
}

/// Pins in the order in which they go: the reverse of enrolment. Unknown ones, of another build, go
/// before the guards.
fn in_reverse(mut names: Vec<String>) -> Vec<String> {
    let rank = |name: &str| {
        if is_host_guard(name) {
            return usize::MAX - 1;
        }
        if is_guard(name) {
            return usize::MAX;
        }
        let place = POD_PROGRAMS.iter().rev().position(|program| program.name == name);
        place.unwrap_or(POD_PROGRAMS.len())
    };
    names.sort_by_key(|name| rank(name));
    names
}

#[cfg(test)]
mod tests {
    use super::in_reverse;

    #[test]
    fn the_guards_go_last_and_the_nodes_before_the_pods() {
        let names = ["guard_2", "inbound", "connect6", "host_guard_2", "cgroup_guard", "connect4", "odd"];
        let order = in_reverse(names.map(str::to_owned).to_vec());
        assert_eq!(
            order,
            ["connect6", "connect4", "inbound", "cgroup_guard", "odd", "host_guard_2", "guard_2"]
        );
    }
}
