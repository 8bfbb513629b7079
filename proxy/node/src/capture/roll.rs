//! The roll of enrolled pods as the agent tells it: which are served, and which are to be.

use std::{collections::BTreeMap, time::Duration};

use dataplane::capture::PodId;
use tokio::time::Instant;

use super::standing::{PodStanding, PodState};
use crate::agent::protocol::{PodInfo, PodKey};

/// Pause before the agent is asked again for listeners that it could not make.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// All enrolled pods.
#[derive(Debug, Default)]
pub(super) struct Roll {
    entries: BTreeMap<PodKey, Entry>,
    generations: u32,
    /// The agent has told of its pods at least once.
    told: bool,
}

#[derive(Debug)]
struct Entry {
    info: PodInfo,
    id: PodId,
    state: PodState,
    step: Step,
}

/// What is to be done for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Ask for listeners, not before this.
    Ask(Instant),
    /// They were asked for, or wait to be put in service.
    Asked,
    Nothing,
}

impl Roll {
    /// Takes the agent's list; gives the pods that are no longer on it.
    pub(super) fn update(&mut self, pods: Vec<PodInfo>) -> Vec<PodId> {
        self.told = true;
        let now: BTreeMap<PodKey, PodInfo> = pods.into_iter().map(|info| (info.key, info)).collect();
        let mut gone = Vec::new();
        self.entries.retain(|key, entry| {
            // Another workload in the same namespace is another pod: its connections are not handed on.
            let stays = now.get(key).is_some_and(|info| info.workload == entry.info.workload);
            if !stays {
                gone.push(entry.id);
            }
            stays
        });
        for (key, info) in now {
            if let Some(entry) = self.entries.get_mut(&key) {
                // 0: of an earlier agent, which has lost no listeners since.
                if info.enrolment == 0 {
                    entry.info.enrolment = 0;
                }
                if entry.info != info {
                    // New facts are taken up with new listeners; the old ones serve until then.
                    entry.info = info;
                    entry.step = Step::Ask(Instant::now());
                }
                continue;
            }
            self.generations = self.generations.wrapping_add(1);
            let id = PodId { slot: key.slot, generation: self.generations };
            let step = Step::Ask(Instant::now());
            self.entries.insert(key, Entry { info, id, state: PodState::Waiting, step });
        }
        gone
    }

    /// Pods whose listeners are to be asked for now.
    pub(super) fn to_ask(&self) -> Vec<PodKey> {
        let now = Instant::now();
        let due = |entry: &Entry| matches!(entry.step, Step::Ask(when) if when <= now);
        self.entries.iter().filter(|(_, entry)| due(entry)).map(|(key, _)| *key).collect()
    }

    pub(super) fn asked(&mut self, key: PodKey) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.step = Step::Asked;
        }
    }

    /// A pod on the roll.
    pub(super) fn pod(&self, key: PodKey) -> Option<(PodId, PodInfo)> {
        self.entries.get(&key).map(|entry| (entry.id, entry.info.clone()))
    }

    /// Its listeners are in service.
    pub(super) fn serving(&mut self, key: PodKey) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.state = PodState::Serving;
            // Its facts may have changed meanwhile.
            if entry.step == Step::Asked {
                entry.step = Step::Nothing;
            }
        }
    }

    /// The agent could not: again after a pause.
    pub(super) fn refused(&mut self, key: PodKey) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.state = PodState::Failed;
            entry.step = Step::Ask(Instant::now() + REFUSED_PAUSE);
        }
    }

    /// The connection is lost with all questions; the agent that comes may count enrolments anew.
    pub(super) fn unanswered(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.info.enrolment = 0);
        for entry in self.entries.values_mut().filter(|entry| entry.step == Step::Asked) {
            entry.step = Step::Ask(Instant::now());
        }
    }

    /// Pods whose listeners are in service.
    pub(super) fn keys_serving(&self) -> Vec<PodKey> {
        let serving = self.entries.iter().filter(|(_, entry)| entry.state == PodState::Serving);
        serving.map(|(key, _)| *key).collect()
    }

    /// The agent has told of its pods, and each was served or could not be.
    pub(super) fn is_complete(&self) -> bool {
        self.told && self.entries.values().all(|entry| entry.state != PodState::Waiting)
    }

    pub(super) fn standing(&self) -> Vec<PodStanding> {
        let one = |entry: &Entry| PodStanding { info: entry.info.clone(), state: entry.state };
        self.entries.values().map(one).collect()
    }
}
