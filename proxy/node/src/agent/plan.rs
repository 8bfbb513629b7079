//! From what is there, what the manifests say and what is enrolled: what to do. Pure.
//!
//! Fail closed decides what is unclear: a pod that is enrolled stays so unless it is known to have
//! opted out or to be gone. Manifests that do not know it, a namespace or cgroup that cannot be looked
//! at, a source that saw only a part: none of these opens its traffic.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use super::{
    protocol::Reason,
    roster::{Member, Roster},
    sources::{Candidate, Identity, Whereabouts},
};

/// Longest name of a workload that is enrolled.
const MAX_NAME: usize = 512;

/// What a pod is, to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    /// Inode of its network namespace.
    pub(super) netns: u64,
    /// Id of its cgroup.
    pub(super) cgroup: u64,
}

/// An enrolled pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) slot: u32,
    pub(super) place: Place,
    /// Its workload when it was enrolled.
    pub(super) workload: String,
    /// Whether it is accelerated; none: it was found pinned, and nothing is known of it but its place.
    pub(super) accelerated: Option<bool>,
}

/// What is known.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// None: the manifests have not been good yet.
    pub(super) roster: Option<&'a Roster>,
    pub(super) pods: &'a [Candidate],
    /// Whether `pods` are all that there are.
    pub(super) whole: bool,
    pub(super) held: &'a [Held],
    /// The agent's own cgroup.
    pub(super) own_cgroup: Option<&'a Path>,
}

/// What to do, and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Slots to un-enrol, first.
    pub(super) leave: Vec<u32>,
    /// Pods to enrol, or to enrol again: found pinned, or with other facts. Those that are held come first.
    pub(super) take: Vec<Take>,
    /// How every pod stands.
    pub(super) told: Vec<Verdict>,
}

/// A pod to enrol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Take {
    pub(super) place: Place,
    pub(super) workload: String,
    pub(super) uid: Option<String>,
    /// Leads to its network namespace.
    pub(super) netns: PathBuf,
    pub(super) cgroup: PathBuf,
    pub(super) accelerated: bool,
    /// Where it is held already.
    pub(super) slot: Option<u32>,
}

/// How a pod stands by the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) cgroup: PathBuf,
    pub(super) place: Option<Place>,
    /// Where it is held, and stays.
    pub(super) slot: Option<u32>,
    pub(super) reason: Reason,
    pub(super) detail: &'static str,
}

/// Makes the plan.
pub(super) fn plan(known: &Known<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut claims = Claims::new(known.own_cgroup);
    let mut matched = BTreeSet::new();
    let pairs: Vec<(&Candidate, Option<&Held>)> =
        known.pods.iter().map(|pod| (pod, holder(pod, known.held, &mut matched))).collect();
    for (pod, held) in &pairs {
        if let Some(held) = held {
            claims.claim(pod, Some(held.place));
        }
    }
    for (pod, held) in pairs {
        judge(known, pod, held, &mut claims, &mut plan);
    }
    for held in known.held.iter().filter(|held| !matched.contains(&held.slot)) {
        if known.whole && known.roster.is_some() {
            plan.leave.push(held.slot);
        } else {
            plan.told.push(unseen(known, held));
        }
    }
    plan.take.sort_by_key(|take| take.slot.is_none());
    plan
}

/// A held pod that no source showed, and that may be there all the same.
fn unseen(known: &Known<'_>, held: &Held) -> Verdict {
    let (reason, detail) = match known.roster {
        Some(_) => (Reason::OptedIn, "not all pods could be looked at; it stays enrolled"),
        None => (Reason::Adopted, NO_MANIFESTS),
    };
    Verdict {
        name: held.workload.clone(),
        uid: None,
        cgroup: PathBuf::new(),
        place: Some(held.place),
        slot: Some(held.slot),
        reason,
        detail,
    }
}

const NO_MANIFESTS: &str =
    "the manifests have not been good since the agent's start; what was enrolled stays so";

/// The enrolment that a pod has, if any; each is found once.
fn holder<'a>(pod: &Candidate, held: &'a [Held], matched: &mut BTreeSet<u32>) -> Option<&'a Held> {
    let is_it = |held: &&Held| match (&pod.netns, pod.cgroup_id) {
        (Whereabouts::At { inode, .. }, Some(cgroup)) => held.place == Place { netns: *inode, cgroup },
        (Whereabouts::At { inode, .. }, None) => held.place.netns == *inode,
        (_, Some(cgroup)) => held.place.cgroup == cgroup,
        (_, None) => false,
    };
    held.iter().filter(|held| !matched.contains(&held.slot)).find(is_it).inspect(|held| {
        matched.insert(held.slot);
    })
}

fn judge(known: &Known<'_>, pod: &Candidate, held: Option<&Held>, claims: &mut Claims, plan: &mut Plan) {
    let member = known.roster.and_then(|roster| match &pod.identity {
        Identity::Workload(name, _) => roster.workload(name),
        Identity::Uid(uid) => roster.pod(uid),
    });
    let (stay, reason, detail) = verdict(known, pod, held, member, claims);
    let workload = match (member, &pod.identity, held) {
        (Some(member), ..) => member.workload.to_string(),
        (None, Identity::Workload(name, _), _) => name.to_string(),
        (None, Identity::Uid(_), Some(held)) => held.workload.clone(),
        (None, Identity::Uid(uid), None) => format!("pod {uid}"),
    };
    let uid = match &pod.identity {
        Identity::Uid(uid) => Some(uid.clone()),
        Identity::Workload(..) => None,
    };
    let slot = held.filter(|_| stay).map(|held| held.slot);
    if let Some(held) = held.filter(|_| !stay) {
        plan.leave.push(held.slot);
    }
    let accelerated = match &pod.identity {
        Identity::Workload(_, Some(wanted)) => *wanted,
        _ => member
            .map_or(held.is_some_and(|held| held.accelerated == Some(true)), |member| member.accelerated),
    };
    let place = pod.place();
    if let (true, Some(place), Whereabouts::At { path, .. }) = (stay, place, &pod.netns)
        && held.is_none_or(|held| held.accelerated != Some(accelerated))
    {
        plan.take.push(Take {
            place,
            workload: workload.clone(),
            uid: uid.clone(),
            netns: path.clone(),
            cgroup: pod.cgroup.clone(),
            accelerated,
            slot,
        });
    }
    plan.told.push(Verdict { name: workload, uid, cgroup: pod.cgroup.clone(), place, slot, reason, detail });
}

/// Whether a pod is to be (or stay) enrolled, and why.
fn verdict(
    known: &Known<'_>,
    pod: &Candidate,
    held: Option<&Held>,
    member: Option<&Member>,
    claims: &mut Claims,
) -> (bool, Reason, &'static str) {
    let is_held = held.is_some();
    let Some(member) = member else {
        return match (known.roster, is_held) {
            (None, true) => (true, Reason::Adopted, NO_MANIFESTS),
            (None, false) => {
                (false, Reason::NoManifests, "the manifests have not been good since the agent's start")
            }
            (Some(_), true) => (
                true,
                Reason::UnknownWorkload,
                "the manifests do not know it; it stays enrolled until it is gone",
            ),
            (Some(_), false) => (false, Reason::UnknownWorkload, "the manifests do not know it"),
        };
    };
    let listed = matches!(pod.identity, Identity::Workload(..));
    if member.host_network || (listed && pod.netns == Whereabouts::Node) {
        return (false, Reason::HostNetwork, "it is on the node's network, where pods cannot be told apart");
    }
    if !member.opted_in {
        return (false, Reason::NotOptedIn, "labels or settings leave it out of the mesh");
    }
    if member.workload.to_string().len() > MAX_NAME {
        return (is_held, Reason::Failed, "the workload's name is too long");
    }
    if pod.cgroup_id.is_none() {
        return (is_held && !pod.is_gone(), Reason::NoCgroup, "its cgroup is not there");
    }
    match &pod.netns {
        Whereabouts::At { .. } => {
            if !is_held && !claims.claim(pod, pod.place()) {
                return (false, Reason::Shared, "its network namespace or cgroup belongs to another");
            }
            (true, Reason::OptedIn, "labels or settings say so")
        }
        Whereabouts::Node => (is_held, Reason::NoNetns, "its processes are on the node's network so far"),
        Whereabouts::Absent { idle } => {
            // Discovered pods have their cgroup as long as they are; listed ones may keep theirs.
            (is_held && !(listed && *idle), Reason::NoNetns, "no network namespace of its own is there")
        }
        Whereabouts::Unsure => (is_held, Reason::NoNetns, "its network namespace cannot be looked at"),
    }
}

impl Candidate {
    fn place(&self) -> Option<Place> {
        match (&self.netns, self.cgroup_id) {
            (Whereabouts::At { inode, .. }, Some(cgroup)) => Some(Place { netns: *inode, cgroup }),
            _ => None,
        }
    }

    /// Neither namespace nor cgroup is there.
    fn is_gone(&self) -> bool {
        self.cgroup_id.is_none() && matches!(self.netns, Whereabouts::Absent { .. })
    }
}

/// What is taken: two pods with one namespace could not be told apart, and where one's cgroup lies in
/// the other's, the programs of both would run.
#[derive(Debug)]
struct Claims {
    namespaces: HashSet<u64>,
    cgroups: HashSet<PathBuf>,
    /// All folders above those.
    above: HashSet<PathBuf>,
}

impl Claims {
    fn new(own: Option<&Path>) -> Self {
        // The agent must not capture itself, but pods may lie below its cgroup.
        let above = own.into_iter().flat_map(Path::ancestors).map(Path::to_owned).collect();
        Self { namespaces: HashSet::new(), cgroups: HashSet::new(), above }
    }

    /// Whether it was free.
    fn claim(&mut self, pod: &Candidate, place: Option<Place>) -> bool {
        let Some(place) = place else { return true };
        let taken = self.namespaces.contains(&place.netns)
            || self.above.contains(&pod.cgroup)
            || pod.cgroup.ancestors().any(|folder| self.cgroups.contains(folder));
        if !taken {
            self.namespaces.insert(place.netns);
            self.cgroups.insert(pod.cgroup.clone());
            self.above.extend(pod.cgroup.ancestors().skip(1).map(Path::to_owned));
        }
        !taken
    }
}
