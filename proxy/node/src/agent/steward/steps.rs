//! What the steward does about pods: enrols, leaves, forgets.

use std::{
    collections::{VecDeque, btree_map::Entry},
    path::PathBuf,
    time::Instant,
};

use super::{AGAIN, AGAIN_AT_MOST, Failure, Pod, Step, Steward};
use crate::agent::{
    hands::{Taken, Untaken},
    plan::{Held, Place, Take},
    protocol::Reason,
};

impl Steward {
    /// Takes in what is pinned and not known of.
    pub(super) fn adopt(&mut self) -> Result<(), String> {
        for found in self.tools.hands.adopted()? {
            let Entry::Vacant(place) = self.pods.entry(found.key.slot) else { continue };
            let (slot, workload) = (found.key.slot, &found.held.workload);
            tracing::info!(slot, workload, whole = found.whole, ready = found.ready, "found a pod enrolled");
            place.insert(Pod {
                key: found.key,
                held: found.held,
                uid: None,
                cgroup: PathBuf::new(),
                netns: None,
                addresses: Vec::new(),
                remarks: Vec::new(),
                old_ended: found.ready,
                enrolment: 0,
                leaving: None,
            });
            self.changed = true;
        }
        Ok(())
    }

    pub(super) fn collect(&mut self) {
        match self.tools.hands.collect() {
            Ok(slots) => {
                for slot in slots {
                    self.tally.collected += 1;
                    self.forget(slot);
                }
            }
            Err(error) => tracing::warn!("what is left of pods that are gone cannot be removed: {error}"),
        }
    }

    pub(super) fn forget(&mut self, slot: u32) {
        let Some(pod) = self.pods.remove(&slot) else { return };
        self.fleet.forget(pod.key);
        self.pending.retain(|(_, key), _| *key != pod.key);
        self.changed = true;
        tracing::info!(slot, workload = pod.held.workload, "it was gone; what was left of it is removed");
    }

    pub(super) fn do_step(&mut self, step: Step) {
        match step {
            Step::Leave(slot, at_once) => {
                if let Err(error) = self.leave(slot, at_once) {
                    self.tally.failed += 1;
                    tracing::error!(slot, "cannot be un-enrolled, it is tried again: {error}");
                }
            }
            Step::Take(take) => self.take(take),
        }
    }

    /// First the programs, so that the pod's traffic goes as if we were not here; the rest when no
    /// connection through the proxy is left, or when they have had their time.
    pub(super) fn leave(&mut self, slot: u32, at_once: bool) -> Result<(), String> {
        let Some(pod) = self.pods.get_mut(&slot) else { return Ok(()) };
        if pod.leaving.is_none() {
            self.tools.hands.detach(slot)?;
            pod.leaving = Some(Instant::now());
            self.tally.unenrolled += 1;
            tracing::info!(slot, workload = pod.held.workload, "un-enrolled");
            let key = pod.key;
            self.fleet.forget(key);
            self.pending.retain(|(_, waiting), _| *waiting != key);
            self.changed = true;
        }
        let is_over = pod.leaving.is_some_and(|since| since.elapsed() >= self.tools.drain);
        // What cannot be looked at is on its way out.
        if at_once || is_over || self.tools.hands.under_way(slot).unwrap_or(0) == 0 {
            self.tools.hands.unenrol(slot)?;
            self.pods.remove(&slot);
            tracing::debug!(slot, "nothing of it is left");
        }
        Ok(())
    }

    pub(super) fn take(&mut self, take: Take) {
        match self.tools.hands.enrol(&take) {
            Ok(taken) => self.taken(take, taken),
            Err(untaken) => self.not_taken(&take, untaken),
        }
    }

    pub(super) fn taken(&mut self, take: Take, taken: Taken) {
        self.failures.remove(&take.place);
        let slot = taken.key.slot;
        let known = self.pods.remove(&slot).filter(|pod| pod.key == taken.key);
        let (mut old_ended, mut enrolment) = known.map_or((false, 0), |pod| (pod.old_ended, pod.enrolment));
        if taken.fresh {
            self.tally.enrolled += 1;
            // Listeners, if there were any, have to be put in service again.
            self.fleet.forget(taken.key);
            (old_ended, enrolment) = (false, self.tally.enrolled);
            tracing::info!(slot, workload = take.workload, uid = take.uid, remarks = ?taken.remarks,
                "enrolled; waits for the proxy");
        }
        let held =
            Held { slot, place: take.place, workload: take.workload, accelerated: Some(take.accelerated) };
        let pod = Pod {
            key: taken.key,
            held,
            uid: take.uid,
            cgroup: take.cgroup,
            netns: Some(take.netns),
            addresses: taken.addresses,
            remarks: taken.remarks,
            old_ended,
            enrolment,
            leaving: None,
        };
        self.pods.insert(slot, pod);
        self.changed = true;
    }

    pub(super) fn not_taken(&mut self, take: &Take, untaken: Untaken) {
        self.tally.failed += 1;
        let wait =
            self.failures.get(&take.place).map_or(AGAIN, |failure| failure.wait * 2).min(AGAIN_AT_MOST);
        let (reason, detail) = match untaken {
            Untaken::Full(detail) => (Reason::NoSlot, detail),
            Untaken::Failed(detail) | Untaken::Closed(detail) => (Reason::Failed, detail),
        };
        let (workload, again) = (&take.workload, wait.as_secs());
        tracing::error!(workload, uid = take.uid, reason = reason.name(), again, "not enrolled: {detail}");
        self.failures.insert(take.place, Failure { reason, detail, wait, again: Instant::now() + wait });
        // Something of it may be pinned all the same: it is ours to mend, or to remove.
        if let Err(error) = self.adopt() {
            tracing::error!("the pins cannot be read: {error}");
        }
    }
}

/// What to leave, where it is not the very pod that is to be enrolled (again).
pub(super) fn leave_steps(slots: impl Iterator<Item = (u32, Place)>, takes: &[Take]) -> VecDeque<Step> {
    let touches = |place: &Place| {
        takes.iter().any(|take| take.place.netns == place.netns || take.place.cgroup == place.cgroup)
    };
    let returns = |place: &Place| takes.iter().any(|take| take.place == *place);
    slots
        .filter(|(_, place)| !returns(place))
        .map(|(slot, place)| Step::Leave(slot, touches(&place)))
        .collect()
}
