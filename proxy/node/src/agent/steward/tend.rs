//! What the steward looks after while nothing is to be done: paths, addresses, new interfaces.

use std::sync::Arc;

use super::{Step, Steward, TENDED_A_LOOK};
use crate::agent::{hands::Spot, plan::Take};

impl Steward {
    /// A pod's namespace may be reached by another path than before: another of its processes.
    pub(super) fn follow_paths(&mut self) {
        for step in &self.steps {
            if let Step::Take(Take { slot: Some(slot), .. }) = step
                && let Some(pod) = self.pods.get_mut(slot)
            {
                pod.netns = None;
            }
        }
        for candidate in &self.candidates {
            let Some((place, path)) = candidate.here() else { continue };
            let Some(pod) = self.pods.values_mut().find(|pod| pod.held.place == place) else { continue };
            if let Some(known) = &pod.netns
                && known != path
            {
                self.steps.push_back(Step::Take(Take {
                    place,
                    workload: pod.held.workload.clone(),
                    uid: pod.uid.clone(),
                    netns: path.to_owned(),
                    cgroup: candidate.cgroup.clone(),
                    accelerated: pod.held.accelerated == Some(true),
                    slot: Some(pod.key.slot),
                }));
            }
        }
    }

    /// Looks at some of the enrolled pods: new interfaces are guarded, addresses are followed.
    pub(super) fn tend(&mut self) {
        let after = self.pods.range(self.tended..).chain(self.pods.range(..self.tended));
        let spots: Vec<Spot> = after
            .filter(|(_, pod)| pod.leaving.is_none())
            .filter_map(|(slot, pod)| {
                Some(Spot { slot: *slot, netns: pod.netns.clone()?, inode: pod.held.place.netns })
            })
            .take(TENDED_A_LOOK)
            .collect();
        for spot in spots {
            self.tended = spot.slot.saturating_add(1);
            let tended = self.tools.hands.tend(&spot);
            let Some(pod) = self.pods.get_mut(&spot.slot) else { continue };
            match tended {
                Ok(tended) => {
                    self.changed |= tended.addresses != pod.addresses;
                    pod.addresses = tended.addresses;
                    if !tended.remarks.is_empty() && tended.remarks != pod.remarks {
                        tracing::warn!(slot = spot.slot, workload = pod.held.workload, remarks = ?tended.remarks, "guard");
                        pod.remarks = tended.remarks;
                    }
                }
                // It may be on its way out; the next look knows.
                Err(error) => tracing::debug!(slot = spot.slot, "cannot be tended: {error}"),
            }
        }
        match self.tools.hands.node_addresses() {
            Ok(addresses) => {
                self.tools.feeds.node.send_if_modified(|known| {
                    let differ = **known != addresses;
                    if differ {
                        *known = Arc::new(addresses);
                    }
                    differ
                });
            }
            Err(error) => tracing::warn!("the node's addresses cannot be read: {error}"),
        }
    }
}
