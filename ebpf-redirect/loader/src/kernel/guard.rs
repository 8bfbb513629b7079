//! The guards at the pod's interfaces: `guard` inside, `host_guard` where the veth pair ends on the
//! node.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use super::{Kernel, Slot};
use crate::{
    Interface, LoadError, Netns,
    netlink::route,
    object::{GUARD, HOST_GUARD},
    sys::{self, Place, Target},
};

/// The most interfaces of one pod that are guarded: those that lead to the node, then those that are guarded
/// already. A pod that may make more (CAP_NET_ADMIN) reaches the outside by these alone; their numbers it
/// may choose.
const MAX_INTERFACES: usize = 64;
/// The most that are newly guarded by one call, so that no pod holds up what others wait for.
const NEW_AT_ONCE: usize = 8;

impl Kernel {
    /// Guards interfaces that the pod has gained and forgets those that it has lost; returns what cannot
    /// be guarded on the node's side. Call it once a second.
    pub fn reconcile(&mut self, slot: Slot) -> Result<Vec<String>, LoadError> {
        let netns = self.place(slot)?;
        let remarks = self.guard(slot, &netns, false);
        self.places.insert(slot, netns);
        remarks.map_err(LoadError::io(format!("guard the interfaces of the pod in slot {slot}")))
    }

    /// `renew` puts programs of this build in the place of those that are attached.
    pub(super) fn guard(&self, slot: Slot, netns: &Netns, renew: bool) -> io::Result<Vec<String>> {
        let own = self.own.file()?;
        let (interfaces, own_id) = netns.run(|| -> io::Result<_> {
            // In this order: listing gives ids to the namespaces at the other ends.
            let interfaces = route::interfaces()?;
            Ok((interfaces, route::netns_id(own.as_fd()).ok().flatten()))
        })??;
        let known = self.pins.link_names(slot)?;
        let (interfaces, mut remarks) = bounded(interfaces, own_id, &known);
        let mut left = if renew { MAX_INTERFACES } else { NEW_AT_ONCE };
        let mut wanted = Vec::new();
        for interface in &interfaces {
            if !known.contains(&format!("{}_{}", GUARD.0, interface.index)) {
                // The next call goes on with them.
                let Some(less) = left.checked_sub(1) else { continue };
                left = less;
            }
            wanted.push(self.guard_inside(slot, netns, interface, renew)?);
            match peer(interface, own_id) {
                Ok(None) => {}
                Ok(Some(index)) => match self.guard_outside(slot, interface, index, renew) {
                    Ok(name) => wanted.push(name),
                    // The pair is going away; the next call sees.
                    Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                    Err(error) => return Err(error),
                },
                Err(remark) => remarks.push(remark),
            }
        }
        self.forget_guards(slot, &wanted)?;
        Ok(remarks)
    }

    fn guard_inside(
        &self,
        slot: Slot,
        netns: &Netns,
        interface: &Interface,
        renew: bool,
    ) -> io::Result<String> {
        let name = format!("{}_{}", GUARD.0, interface.index);
        self.guard_one(slot, &name, (interface.index, netns), GUARD, renew)?;
        Ok(name)
    }

    fn guard_outside(&self, slot: Slot, interface: &Interface, peer: u32, renew: bool) -> io::Result<String> {
        let name = format!("{}_{}", HOST_GUARD.0, interface.index);
        self.guard_one(slot, &name, (peer, &self.own), HOST_GUARD, renew)?;
        Ok(name)
    }

    fn guard_one(
        &self,
        slot: Slot,
        name: &str,
        (index, netns): (u32, &Netns),
        (program, attach_type): (&str, u32),
        renew: bool,
    ) -> io::Result<()> {
        let program = self.shared.fd(program).map_err(io::Error::other)?;
        match self.attached(slot, name, Target(u64::from(index)))? {
            Some(link) if renew => return sys::link_update(link.as_fd(), program),
            Some(_) => return Ok(()),
            None => {}
        }
        let made = netns.run(|| sys::link_create(program, Place::Interface(index), attach_type))?;
        let link: OwnedFd = match made {
            // This very program is there, by the pin of a number that the interface had before.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => return Ok(()),
            made => made?,
        };
        self.pin(slot, name, link.as_fd())
    }

    /// Removes the pins of guards whose interface is gone. One that leads to the node and was moved to
    /// another namespace of the pod's making leads there from it too: its guards stay while it is there.
    fn forget_guards(&self, slot: Slot, wanted: &[String]) -> io::Result<()> {
        for name in self.pins.link_names(slot)? {
            if is_guard(&name) && !wanted.contains(&name) && !self.leads_to_the_node(slot, &name)? {
                self.pins.remove_link(slot, &name)?;
            }
        }
        Ok(())
    }

    /// Whether the node's end of this guard's interface is there.
    fn leads_to_the_node(&self, slot: Slot, guard: &str) -> io::Result<bool> {
        let number = guard.rsplit('_').next().unwrap_or_default();
        let outside = self.link(slot, &format!("{}_{number}", HOST_GUARD.0))?;
        Ok(outside.is_some_and(|(_, target)| target != Target(0)))
    }
}

/// The interfaces that are guarded, and a remark where there are more. `known` are names of pins.
fn bounded(
    mut interfaces: Vec<Interface>,
    own_id: Option<i32>,
    known: &[String],
) -> (Vec<Interface>, Vec<String>) {
    interfaces.retain(|interface| !interface.loopback);
    interfaces.sort_by_cached_key(|interface| {
        let leads = matches!(peer(interface, own_id), Ok(Some(_)));
        (!leads, !known.contains(&format!("{}_{}", GUARD.0, interface.index)), interface.index)
    });
    let mut remarks = Vec::new();
    if interfaces.len() > MAX_INTERFACES {
        remarks.push(format!(
            "it has more than {MAX_INTERFACES} interfaces; those that came last are not guarded"
        ));
        interfaces.truncate(MAX_INTERFACES);
    }
    (interfaces, remarks)
}

/// Whether a pin is that of a guard.
pub(super) fn is_guard(name: &str) -> bool {
    name.starts_with("guard_") || is_host_guard(name)
}

/// Whether a pin is that of a guard on the node's side.
pub(super) fn is_host_guard(name: &str) -> bool {
    name.starts_with("host_guard_")
}

/// Index of the interface's other end in the agent's namespace; none: what leaves by it stays in the
/// pod, or leaves by another of its interfaces. The error says what is not guarded.
fn peer(interface: &Interface, own_id: Option<i32>) -> Result<Option<u32>, String> {
    let Interface { name, kind, peer, peer_netns, .. } = interface;
    let unguarded = |why: &str| {
        Err(format!(
            "{name} ({}): {why}, so frames sent with PACKET_QDISC_BYPASS or AF_XDP are not stopped there; \
             drop CAP_NET_RAW from the pod",
            if kind.is_empty() { "hardware" } else { kind }
        ))
    };
    match (kind.as_str(), peer_netns) {
        ("veth", Some(netns)) if Some(*netns) == own_id => Ok(*peer),
        (_, Some(_)) => unguarded("its other end is not in the agent's network namespace"),
        ("", None) => unguarded("it has no other end on this node"),
        (_, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn interface(kind: &str, peer: Option<u32>, peer_netns: Option<i32>) -> Interface {
        let (name, kind) = ("eth0".to_owned(), kind.to_owned());
        Interface { index: 2, name, loopback: false, up: true, peer, peer_netns, kind }
    }

    #[test]
    fn the_other_end_is_guarded_or_it_is_said_why_not() {
        assert_eq!(super::peer(&interface("veth", Some(9), Some(0)), Some(0)), Ok(Some(9)));
        assert_eq!(super::peer(&interface("veth", Some(9), None), Some(0)), Ok(None));
        assert_eq!(super::peer(&interface("dummy", None, None), None), Ok(None));
        for (kind, peer_netns) in [("veth", Some(1)), ("macvlan", Some(0)), ("ipvlan", Some(1)), ("", None)] {
            let remark = super::peer(&interface(kind, Some(9), peer_netns), Some(0)).unwrap_err();
            assert!(remark.contains("eth0") && remark.contains("CAP_NET_RAW"), "{remark}");
        }
        assert!(super::peer(&interface("veth", Some(9), Some(0)), None).is_err());
    }

    #[test]
    fn a_pods_first_interfaces_are_guarded_however_many_it_makes() {
        let made = |index: u32| Interface { index, ..interface("veth", None, None) };
        let lo = Interface { loopback: true, ..made(1) };
        let (few, remarks) = bounded(vec![lo.clone(), made(3), made(2)], None, &[]);
        assert_eq!((few, remarks), (vec![made(2), made(3)], Vec::new()));
        let (first, remarks) = bounded((1..=1000).rev().map(made).chain([lo]).collect(), None, &[]);
        assert_eq!(first.iter().map(|one| one.index).collect::<Vec<_>>(), (1..=64).collect::<Vec<_>>());
        assert_eq!(remarks.len(), 1);
    }

    #[test]
    fn bug_interfaces_with_lower_numbers_took_the_guard_from_the_one_that_leads_out() {
        let made = |index: u32| Interface { index, ..interface("dummy", None, None) };
        let eth0 = Interface { index: 900, ..interface("veth", Some(9), Some(0)) };
        let all: Vec<Interface> = (1..=500).map(made).chain([eth0.clone()]).collect();
        assert!(bounded(all, Some(0), &[]).0.contains(&eth0));
        // One of another kind keeps the guard that it has.
        let own = Interface { index: 900, ..interface("", None, None) };
        let all = (1..=500).map(made).chain([own.clone()]).collect();
        assert!(bounded(all, Some(0), &["guard_900".to_owned()]).0.contains(&own));
    }

    #[test]
    fn pins_of_guards_are_told_from_the_others() {
        assert!(is_guard("guard_2") && is_guard("host_guard_2") && is_host_guard("host_guard_2"));
        assert!(!is_guard("cgroup_guard") && !is_host_guard("guard_2"));
    }
}
