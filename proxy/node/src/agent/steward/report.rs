//! What the steward tells: the log, `fhirward status`, metrics.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use super::{Answer, Steward, Tally};
use crate::{
    agent::{
        plan::{Place, Verdict},
        protocol::{AgentStatus, MAX_STATUS, PodStatus, Reason, Reply, State, StatusPart},
        sources::{Candidate, Whereabouts},
    },
    problems,
};

/// Bytes of a status' pods in one message; the rest of it is for the frame.
const PART: usize = 48 * 1024;
/// Most lines of any list in the agent's own status, and most bytes of a line.
const LINES: usize = 20;
const LINE: usize = 500;

/// The figures for the metrics.
#[derive(Debug, Clone, Default)]
pub(in crate::agent) struct Figures {
    pub(in crate::agent) pods: BTreeMap<(&'static str, &'static str), u64>,
    pub(in crate::agent) tally: Tally,
    pub(in crate::agent) proxies: u64,
    pub(in crate::agent) troubles: u64,
    pub(in crate::agent) snapshot: u64,
    pub(in crate::agent) problems: u64,
    pub(in crate::agent) counters: Vec<(&'static str, u64)>,
}

impl Candidate {
    /// Its place and the path that leads there.
    pub(super) fn here(&self) -> Option<(Place, &PathBuf)> {
        match (&self.netns, self.cgroup_id) {
            (Whereabouts::At { path, inode }, Some(cgroup)) => Some((Place { netns: *inode, cgroup }, path)),
            _ => None,
        }
    }
}

impl Steward {
    /// Logs how each pod stands, where that has changed.
    pub(super) fn tell(&mut self) {
        let mut told = HashMap::with_capacity(self.verdicts.len());
        for verdict in &self.verdicts {
            let who = (verdict.name.clone(), verdict.cgroup.clone());
            let (reason, detail) = self.reason(verdict);
            if self.told.get(&who) != Some(&reason) {
                let (pod, cgroup) = (&verdict.name, verdict.cgroup.display());
                let held = verdict.slot.is_some();
                tracing::info!(pod, uid = verdict.uid, %cgroup, held, reason = reason.name(), "pod: {detail}");
            }
            told.insert(who, reason);
        }
        self.told = told;
    }

    /// The plan's reason, or why the plan could not be carried out.
    fn reason<'a>(&'a self, verdict: &'a Verdict) -> (Reason, &'a str) {
        let failure = verdict.place.and_then(|place| self.failures.get(&place));
        failure.map_or((verdict.reason, verdict.detail), |failure| (failure.reason, &failure.detail))
    }

    fn statuses(&self) -> Vec<PodStatus> {
        let by_place: HashMap<Place, u32> =
            self.pods.values().map(|pod| (pod.held.place, pod.key.slot)).collect();
        let status = |verdict: &Verdict| {
            let slot = verdict.slot.or_else(|| by_place.get(&verdict.place?).copied());
            let pod = slot.and_then(|slot| self.pods.get(&slot));
            let (reason, detail) = self.reason(verdict);
            let leaving = pod.is_some_and(|pod| pod.leaving.is_some());
            let mut detail = detail.to_owned();
            if leaving {
                detail.push_str("; connections through the proxy are ending");
            }
            for remark in pod.iter().flat_map(|pod| &pod.remarks) {
                detail.push_str("; ");
                detail.push_str(remark);
            }
            let state = match pod {
                None => State::NotEnrolled,
                Some(_) if leaving => State::NotEnrolled,
                Some(pod) if self.fleet.is_served(pod.key) => State::Serving,
                Some(_) => State::Waiting,
            };
            PodStatus {
                name: cut(&verdict.name),
                uid: verdict.uid.clone(),
                key: pod.map(|pod| pod.key),
                cgroup: cut(&pod.map_or(&verdict.cgroup, |pod| &pod.cgroup).display().to_string()),
                addresses: pod
                    .map(|pod| pod.addresses.iter().copied().take(LINES).collect())
                    .unwrap_or_default(),
                state,
                reason,
                detail: cut(&detail),
            }
        };
        self.verdicts.iter().take(MAX_STATUS).map(status).collect()
    }

    fn agent_status(&self) -> AgentStatus {
        let manifests = self.tools.manifests.borrow();
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            pins: self.tools.pins.display().to_string(),
            snapshot: self.roster.as_ref().map_or(0, |(version, _)| *version),
            problems: manifests
                .problems
                .iter()
                .take(LINES)
                .map(|problem| cut(&problems::line(problem)))
                .collect(),
            sources: self.troubles.iter().take(LINES).map(|trouble| cut(trouble)).collect(),
            proxies: self.fleet.status(),
            counters: self.counters().into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.tools.hands.counters().unwrap_or_else(|error| {
            tracing::warn!("the counters cannot be read: {error}");
            Vec::new()
        })
    }

    /// The whole status, in as many messages as it takes.
    pub(super) fn status(&self) -> Vec<Answer> {
        let mut parts = vec![StatusPart { more: false, agent: Some(self.agent_status()), pods: Vec::new() }];
        let mut room = 0;
        for pod in self.statuses() {
            let size = serde_json::to_string(&pod).map_or(PART, |text| text.len() + 1);
            if size > room {
                parts.push(StatusPart { more: false, agent: None, pods: Vec::new() });
                room = PART;
            }
            room = room.saturating_sub(size);
            if let Some(part) = parts.last_mut() {
                part.pods.push(pod);
            }
        }
        let last = parts.len() - 1;
        let answer = |(index, part): (usize, StatusPart)| {
            Answer::from(Reply::Status(StatusPart { more: index < last, ..part }))
        };
        parts.into_iter().enumerate().map(answer).collect()
    }

    pub(super) fn figures(&self) -> Figures {
        let mut pods = BTreeMap::new();
        for status in self.statuses() {
            *pods.entry((status.state.name(), status.reason.name())).or_insert(0) += 1;
        }
        Figures {
            pods,
            tally: self.tally,
            proxies: self.fleet.status().len() as u64,
            troubles: self.troubles.len() as u64,
            snapshot: self.roster.as_ref().map_or(0, |(version, _)| *version),
            problems: self.tools.manifests.borrow().problems.len() as u64,
            counters: self.counters(),
        }
    }
}

/// At most [`LINE`] bytes of a text.
fn cut(text: &str) -> String {
    match text.char_indices().find(|(at, character)| at + character.len_utf8() > LINE) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
    }
}
