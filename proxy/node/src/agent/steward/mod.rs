//! The one that owns the kernel's side and decides: a thread of its own, so that nothing it does
//! blocks those who talk, and that needs no lock (invariant 9).
//!
//! It answers what it is asked first, then does one step of what is to be done, then looks again. A
//! look compares what is there with what should be, once a second and whenever manifests change.

mod report;
mod requests;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque, btree_map::Entry},
    net::IpAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use mesh::{Snapshot, files::SourceStatus};
use tokio::sync::{oneshot, watch};

use super::{
    fleet::{Fleet, ProxyId},
    hands::{Hands, Spot, Taken, Untaken},
    plan::{self, Held, Known, Place, Take, Verdict},
    protocol::{Admission, Ask, Peer, PodInfo, PodKey, Reason, Reply},
    roster::Roster,
    sources::{Candidate, Source, node_namespaces},
};
use requests::Pending;

pub(super) use report::Figures;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// The list of pods is published no more often than this while there is more to do.
const PUBLISH: Duration = Duration::from_millis(100);
/// Most orders that are carried out before a step is done.
const ORDERS_A_STEP: usize = 64;
/// Most pods that are tended between two looks.
const TENDED_A_LOOK: usize = 128;
/// How long a failed enrolment is left alone: at first, and at most; it doubles.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);

/// What the steward is told to do.
pub(super) enum Order {
    /// A proxy has said hello.
    Join {
        /// Its connection.
        proxy: ProxyId,
        /// Who it is.
        peer: Peer,
        /// When it was started.
        started: u64,
        /// What it serves already.
        serving: Vec<PodKey>,
        /// Becomes true when another takes over.
        superseded: watch::Sender<bool>,
        /// The welcome and the maps.
        answer: oneshot::Sender<Answer>,
    },
    /// A connection asks.
    Ask {
        /// Its connection; none: an operator's.
        proxy: Option<ProxyId>,
        /// What.
        ask: Ask,
        /// The answers.
        answer: oneshot::Sender<Vec<Answer>>,
    },
    /// A connection has ended. Its place is given back once this is dealt with, so that the orders
    /// that wait here are bounded by the number of connections.
    Part {
        /// Which.
        proxy: ProxyId,
        /// Its place.
        admission: Option<Admission>,
    },
    /// The figures for the metrics.
    Figures(oneshot::Sender<Figures>),
    /// Manifests have changed.
    Look,
    /// End, leaving everything in place.
    Stop,
}

/// What goes back to a connection.
#[derive(Debug)]
pub(super) struct Answer {
    /// The message.
    pub(super) reply: Reply,
    /// What goes beside it.
    pub(super) descriptors: Vec<OwnedFd>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, descriptors: Vec::new() }
    }
}

/// What everybody is told.
#[derive(Debug, Clone)]
pub(super) struct Feeds {
    /// The enrolled pods; none until the first look has been carried out.
    pub(super) pods: watch::Sender<Option<Arc<Vec<PodInfo>>>>,
    /// The node's addresses.
    pub(super) node: watch::Sender<Arc<Vec<IpAddr>>>,
}

/// What the steward works with.
pub(super) struct Tools {
    pub(super) hands: Box<dyn Hands>,
    pub(super) sources: Vec<Box<dyn Source>>,
    pub(super) snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    pub(super) manifests: watch::Receiver<SourceStatus>,
    pub(super) feeds: Feeds,
    pub(super) own_cgroup: Option<PathBuf>,
    pub(super) pins: PathBuf,
    pub(super) end_old_connections: bool,
    pub(super) transparent: bool,
    /// How long connections of a pod that is left may go on.
    pub(super) drain: Duration,
}

/// An enrolled pod.
#[derive(Debug)]
struct Pod {
    key: PodKey,
    held: Held,
    uid: Option<String>,
    cgroup: PathBuf,
    /// Leads to its namespace; none until it has been found again after a restart.
    netns: Option<PathBuf>,
    addresses: Vec<IpAddr>,
    remarks: Vec<String>,
    /// Connections from before its enrolment are no more.
    old_ended: bool,
    /// Which enrolment of this agent's it is; 0: an earlier agent's, whose listeners stand.
    enrolment: u64,
    /// Since when its programs are gone; connections that are under way end before its routes do.
    leaving: Option<Instant>,
}

/// A step of the plan.
enum Step {
    /// A slot; at once where another pod is to have its namespace or cgroup.
    Leave(u32, bool),
    Take(Take),
}

/// Where a look went wrong, and when to try again.
struct Failure {
    reason: Reason,
    detail: String,
    wait: Duration,
    again: Instant,
}

/// Counts of what was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) enrolled: u64,
    pub(super) unenrolled: u64,
    pub(super) collected: u64,
    pub(super) failed: u64,
    pub(super) ended_connections: u64,
    pub(super) sockets: u64,
    pub(super) refused: u64,
    pub(super) superseded: u64,
}

/// See the module.
pub(super) struct Steward {
    tools: Tools,
    started: Instant,
    roster: Option<(u64, Roster)>,
    pods: BTreeMap<u32, Pod>,
    candidates: Vec<Candidate>,
    verdicts: Vec<Verdict>,
    troubles: Vec<String>,
    steps: VecDeque<Step>,
    failures: HashMap<Place, Failure>,
    fleet: Fleet,
    superseded: HashMap<ProxyId, watch::Sender<bool>>,
    pending: HashMap<(ProxyId, PodKey), Pending>,
    tally: Tally,
    /// Reasons as they were last told in the log, by what names a pod.
    told: HashMap<(String, PathBuf), Reason>,
    /// Where tending goes on.
    tended: u32,
    /// Something of the list of pods has changed since it was published.
    changed: bool,
    published: Option<Instant>,
    looked: bool,
}

impl Steward {
    /// With the pods that are pinned already.
    ///
    /// # Errors
    /// When the pins cannot be read.
    pub(super) fn new(tools: Tools) -> Result<Self, String> {
        let mut steward = Self {
            tools,
            started: Instant::now(),
            roster: None,
            pods: BTreeMap::new(),
            candidates: Vec::new(),
            verdicts: Vec::new(),
            troubles: Vec::new(),
            steps: VecDeque::new(),
            failures: HashMap::new(),
            fleet: Fleet::default(),
            superseded: HashMap::new(),
            pending: HashMap::new(),
            tally: Tally::default(),
            told: HashMap::new(),
            tended: 0,
            changed: true,
            published: None,
            looked: false,
        };
        steward.adopt()?;
        Ok(steward)
    }

    /// Takes in what is pinned and not known of.
    fn adopt(&mut self) -> Result<(), String> {
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

    /// Works until told to stop, or until nobody is left to tell.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        let mut next_look = Instant::now();
        loop {
            if Instant::now() >= next_look {
                self.look();
                next_look = Instant::now() + LOOK;
            }
            if let Some(step) = self.steps.pop_front() {
                self.do_step(step);
            }
            self.publish();
            for turn in 0..ORDERS_A_STEP {
                // With nothing to do, an order or the next look is all that can come.
                let wait = if turn == 0 && self.steps.is_empty() {
                    next_look.saturating_duration_since(Instant::now())
                } else {
                    Duration::ZERO
                };
                match orders.recv_timeout(wait) {
                    Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Ok(Order::Look) => next_look = Instant::now(),
                    Ok(order) => self.carry_out(order),
                    Err(RecvTimeoutError::Timeout) => break,
                }
            }
        }
    }

    /// Compares what is there with what should be.
    pub(super) fn look(&mut self) {
        self.read_manifests();
        self.collect();
        self.expire_pending();
        let node = node_namespaces();
        let (mut candidates, mut troubles) = (Vec::new(), Vec::new());
        for source in &mut self.tools.sources {
            let seen = source.look(&node);
            candidates.extend(seen.pods);
            troubles.extend(seen.troubles);
        }
        if troubles != self.troubles {
            for trouble in &troubles {
                tracing::warn!("pods cannot be looked at: {trouble}");
            }
        }
        let (leaving, staying): (Vec<&Pod>, Vec<&Pod>) =
            self.pods.values().partition(|pod| pod.leaving.is_some());
        let held: Vec<Held> = staying.into_iter().map(|pod| pod.held.clone()).collect();
        let leaving: Vec<(u32, Place)> =
            leaving.into_iter().map(|pod| (pod.key.slot, pod.held.place)).collect();
        let plan = plan::plan(&Known {
            roster: self.roster.as_ref().map(|(_, roster)| roster),
            pods: &candidates,
            whole: troubles.is_empty(),
            held: &held,
            own_cgroup: self.tools.own_cgroup.as_deref(),
        });
        self.candidates = candidates;
        self.troubles = troubles;
        self.verdicts = plan.told;
        let left = plan.leave.iter().filter_map(|slot| Some((*slot, self.pods.get(slot)?.held.place)));
        self.steps = leave_steps(left.chain(leaving), &plan.take);
        let now = Instant::now();
        let places: BTreeSet<Place> = plan.take.iter().map(|take| take.place).collect();
        self.failures.retain(|place, _| places.contains(place));
        let due = |take: &Take| self.failures.get(&take.place).is_none_or(|failure| failure.again <= now);
        self.steps.extend(plan.take.into_iter().filter(due).map(Step::Take));
        self.follow_paths();
        self.tend();
        self.tell();
        self.looked = true;
    }

    fn read_manifests(&mut self) {
        let Some(snapshot) = self.tools.snapshots.borrow_and_update().clone() else { return };
        if self.roster.as_ref().is_none_or(|(version, _)| *version != snapshot.version) {
            self.roster = Some((snapshot.version, Roster::of(&snapshot)));
        }
    }

    fn collect(&mut self) {
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

    fn forget(&mut self, slot: u32) {
        let Some(pod) = self.pods.remove(&slot) else { return };
        self.fleet.forget(pod.key);
        self.pending.retain(|(_, key), _| *key != pod.key);
        self.changed = true;
        tracing::info!(slot, workload = pod.held.workload, "it was gone; what was left of it is removed");
    }

    /// A pod's namespace may be reached by another path than before: another of its processes.
    fn follow_paths(&mut self) {
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
    fn tend(&mut self) {
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

    fn do_step(&mut self, step: Step) {
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
    fn leave(&mut self, slot: u32, at_once: bool) -> Result<(), String> {
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

    fn take(&mut self, take: Take) {
        match self.tools.hands.enrol(&take) {
            Ok(taken) => self.taken(take, taken),
            Err(untaken) => self.not_taken(&take, untaken),
        }
    }

    fn taken(&mut self, take: Take, taken: Taken) {
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

    fn not_taken(&mut self, take: &Take, untaken: Untaken) {
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

    /// Tells everybody of the enrolled pods, where something has changed.
    fn publish(&mut self) {
        // Not before what was pinned has been taken up, which comes first: sockets can be had then.
        let takes_up =
            matches!(self.steps.front(), Some(Step::Take(Take { slot: Some(_), .. }) | Step::Leave(..)));
        let first_is_done = self.looked && (self.published.is_some() || !takes_up);
        let soon = self.published.is_some_and(|at| at.elapsed() < PUBLISH) && !self.steps.is_empty();
        if !self.changed || !first_is_done || soon {
            return;
        }
        let enrolled = self.pods.values().filter(|pod| pod.leaving.is_none());
        let infos = enrolled.map(|pod| PodInfo {
            key: pod.key,
            workload: pod.held.workload.clone(),
            uid: pod.uid.clone(),
            addresses: pod.addresses.clone(),
            transparent: self.tools.transparent,
            accelerated: pod.held.accelerated == Some(true),
            enrolment: pod.enrolment,
        });
        let infos: Vec<PodInfo> = infos.collect();
        self.fleet.keep_only(&infos.iter().map(|info| info.key).collect());
        self.tools.feeds.pods.send_replace(Some(Arc::new(infos)));
        self.changed = false;
        self.published = Some(Instant::now());
        self.supersede();
    }

    /// Tells proxies that were taken over.
    fn supersede(&mut self) {
        if self.published.is_none() {
            return;
        }
        let enrolled = self.pods.values().filter(|pod| pod.leaving.is_none()).map(|pod| pod.key);
        for proxy in self.fleet.supersede(enrolled) {
            self.tally.superseded += 1;
            tracing::info!(proxy, "another proxy has taken over");
            self.pending.retain(|(owner, _), _| *owner != proxy);
            if let Some(superseded) = self.superseded.get(&proxy) {
                superseded.send_replace(true);
            }
        }
    }
}

/// What to leave, where it is not the very pod that is to be enrolled (again).
fn leave_steps(slots: impl Iterator<Item = (u32, Place)>, takes: &[Take]) -> VecDeque<Step> {
    let touches = |place: &Place| {
        takes.iter().any(|take| take.place.netns == place.netns || take.place.cgroup == place.cgroup)
    };
    let returns = |place: &Place| takes.iter().any(|take| take.place == *place);
    slots
        .filter(|(_, place)| !returns(place))
        .map(|(slot, place)| Step::Leave(slot, touches(&place)))
        .collect()
}
