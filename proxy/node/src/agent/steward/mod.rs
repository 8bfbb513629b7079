//! The one that owns the kernel's side and decides: a thread of its own, so that nothing it does
//! blocks those who talk, and that needs no lock (invariant 9).
//!
//! It answers what it is asked first, then does one step of what is to be done, then looks again. A
//! look compares what is there with what should be, once a second and whenever manifests change.

mod report;
mod requests;
mod steps;
mod tend;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
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
    hands::Hands,
    plan::{self, Held, Known, Place, Take, Verdict},
    protocol::{Admission, Ask, Peer, PodInfo, PodKey, Reason, Reply},
    roster::Roster,
    sources::{Candidate, Source, node_namespaces},
};
use requests::Pending;
use steps::leave_steps;

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
