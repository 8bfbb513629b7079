//! The session with the agent: reaches it, again and again, and does what it says.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use dataplane::capture::{Change, PodId};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    fleet::{Fleet, Member},
    memory::OpenMemory,
    recruit::Recruiter,
    roll::Roll,
    standing::Standing,
    stock::{Empty, Presence, Stock, Wish},
};
use crate::agent::protocol::{
    Ask, Client, ConnectError, FamilyListeners, Hello, LinkError, News, PodKey, Refusal, Role, Sender,
    VERSION,
};

/// First and longest pause between attempts to reach the agent.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Most questions that wait for an answer.
const MOST_QUESTIONS: usize = 32;
/// How often stocks are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Who the agent is and where, and how long it is waited for.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) socket: PathBuf,
    /// The user that it runs as: root, but in tests.
    pub(super) user: u32,
    pub(super) open: OpenMemory,
    /// When this proxy was started, milliseconds of CLOCK_BOOTTIME.
    pub(super) started: u64,
    /// Longest wait for an answer, before the agent is taken for dead.
    pub(super) answer_limit: Duration,
    /// How long a pod that was let go keeps its stocks and DNS sockets, for requests under way.
    pub(super) linger: Duration,
}

/// Everything that outlives one connection to the agent.
pub(super) struct Session {
    pub(super) address: Address,
    pub(super) fleet: Arc<Fleet>,
    pub(super) recruiter: Recruiter,
    pub(super) changes: mpsc::Sender<Change>,
    pub(super) wishes: mpsc::Receiver<Wish>,
    pub(super) presence: watch::Sender<Presence>,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) roll: Roll,
    /// The proxy drains: no pod is taken on any more.
    pub(super) stop: CancellationToken,
    /// The drain is over.
    pub(super) last: CancellationToken,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the agent handed over something else than its maps: {0}")]
    Maps(std::io::Error),
    #[error("the agent has not answered for {0:?}")]
    Silent(Duration),
}

/// What was asked.
#[derive(Debug, Clone, Copy)]
enum Question {
    Listen(PodKey),
    Serving(PodKey),
    Stock(Wish),
}

/// One connection.
struct Line {
    sender: Sender,
    questions: HashMap<u64, (Question, Instant)>,
    /// Not asked yet, for too many wait for answers.
    waiting: VecDeque<Question>,
    next: u64,
}

impl Session {
    /// Runs until the drain is over.
    pub(super) async fn run(mut self) {
        let last = self.last.clone();
        tokio::select! {
            () = self.keep_connected() => {}
            () = last.cancelled() => {}
        }
    }

    async fn keep_connected(&mut self) {
        let mut pause = FIRST_PAUSE;
        let mut told = String::new();
        loop {
            let connected = Instant::now();
            let lost = match self.converse().await {
                Ok(()) => return,
                Err(lost) => lost.to_string(),
            };
            if matches!(*self.presence.borrow(), Presence::Here) {
                self.presence.send_replace(Presence::AwaySince(Instant::now()));
            }
            self.roll.unanswered();
            self.each_stock(|stock| stock.unanswered(false));
            // Once for each reason: an agent that stays away does not fill the log.
            if lost != told {
                tracing::warn!(problem = lost, "no agent; what is served goes on being served");
                told.clone_from(&lost);
            }
            self.publish(Some(lost));
            if self.standing.borrow().superseded {
                return;
            }
            if connected.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
                told.clear();
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection, until it is lost. `Ok`: there is nothing left to do.
    async fn converse(&mut self) -> Result<(), Lost> {
        let Address { socket, user, open, started, .. } = self.address.clone();
        // While it drains its listeners are closed.
        let serving = if self.stop.is_cancelled() { Vec::new() } else { self.roll.keys_serving() };
        let hello = Hello { version: VERSION, role: Role::Proxy, started, serving };
        let Client { sender, mut receiver, welcome, maps } = Client::connect_to(&socket, hello, user).await?;
        let maps = maps.ok_or_else(|| Lost::Maps(std::io::Error::other("nothing")))?;
        self.fleet.recall.set(open(maps).map_err(Lost::Maps)?);
        self.fleet.tallies.agent_connects.one();
        self.presence.send_replace(Presence::Here);
        tracing::info!("the agent is here");
        if !self.tell(Change::NodeAddresses(welcome.node_addresses)).await {
            return Ok(());
        }
        self.publish(None);
        // Wishes from while it was away: every stock is looked at anew.
        while self.wishes.try_recv().is_ok() {}
        self.each_stock(|stock| {
            stock.unanswered(false);
            stock.refill();
        });
        let mut line = Line { sender, questions: HashMap::new(), waiting: VecDeque::new(), next: 1 };
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                news = receiver.next() => {
                    let (to, news) = news?;
                    if !self.take(&mut line, to, news).await? {
                        return Ok(());
                    }
                }
                Some(wish) = self.wishes.recv() => line.waiting.push_back(Question::Stock(wish)),
                _ = tick.tick() => self.tick(&mut line)?,
            }
            line.ask(&self.fleet).await?;
        }
    }

    /// Does what the agent says. False: the proxy is over.
    async fn take(&mut self, line: &mut Line, to: Option<u64>, news: News) -> Result<bool, LinkError> {
        let question = to.and_then(|id| line.questions.remove(&id)).map(|(question, _)| question);
        match news {
            News::Pods(pods) => {
                for id in self.roll.update(pods) {
                    if !self.release(id).await {
                        return Ok(false);
                    }
                }
                self.recruit(line);
            }
            News::Node(addresses) => return Ok(self.tell(Change::NodeAddresses(addresses)).await),
            News::Listeners { pod, v4, v6 } => {
                let families = [v4, v6].into_iter().flatten().collect();
                return Ok(self.take_listeners(line, pod, families).await);
            }
            News::Sockets { pod, kind, sockets } => {
                // A pod that has gone meanwhile: they close.
                if let Some(member) = self.member(pod)
                    && member.stock(kind).put(sockets)
                {
                    line.waiting.push_back(Question::Stock(Wish { id: member.pod.id, pod, kind }));
                }
                return Ok(true);
            }
            News::Ready(pod) => {
                self.roll.serving(pod);
                let (id, info) = self.roll.pod(pod).unzip();
                tracing::info!(
                    pod = id.map(tracing::field::display),
                    workload = info.map(|i| i.workload),
                    "serving"
                );
            }
            News::Superseded => {
                tracing::info!("another proxy has taken over");
                self.standing.send_modify(|standing| standing.superseded = true);
                self.stop.cancel();
            }
            News::Refused(reason, detail) => self.refused(question, reason, &detail),
            News::Welcome(..) | News::Status(_) => {
                return Err(LinkError::Malformed("an answer to nothing that was asked".to_owned()));
            }
        }
        self.publish(None);
        Ok(true)
    }

    async fn take_listeners(&mut self, line: &mut Line, key: PodKey, families: Vec<FamilyListeners>) -> bool {
        let Some((id, info)) = self.roll.pod(key) else { return true };
        if self.stop.is_cancelled() {
            return true;
        }
        let (member, take) = match self.recruiter.recruit(id, info, families, &self.fleet.depot) {
            Ok(recruited) => recruited,
            Err(error) => {
                tracing::warn!(pod = %id, %error, "its listeners cannot be used");
                self.roll.refused(key);
                return true;
            }
        };
        let member = Arc::new(member);
        let mut members = HashMap::clone(&self.fleet.members());
        if let Some(old) = members.insert(id, Arc::clone(&member)) {
            retire(old, self.address.linger);
        }
        self.fleet.set(members);
        // In this order: the first connection finds sockets.
        member.stocks().iter().for_each(Stock::refill);
        while let Ok(wish) = self.wishes.try_recv() {
            line.waiting.push_back(Question::Stock(wish));
        }
        line.waiting.push_back(Question::Serving(key));
        self.tell(take).await
    }

    fn refused(&mut self, question: Option<Question>, reason: Refusal, detail: &str) {
        self.fleet.tallies.agent_refusals.one();
        tracing::debug!(?question, ?reason, detail, "the agent refuses");
        match question {
            Some(Question::Listen(pod) | Question::Serving(pod)) => {
                tracing::warn!(slot = pod.slot, ?reason, detail, "a pod cannot be served");
                self.roll.refused(pod);
            }
            Some(Question::Stock(Wish { pod, kind, .. })) => {
                let Some(member) = self.member(pod) else { return };
                if reason == Refusal::Family {
                    member.stock(kind).close(Empty::NoFamily);
                } else {
                    member.stock(kind).unanswered(true);
                }
            }
            None => {}
        }
    }

    /// A pod that is no longer enrolled.
    async fn release(&mut self, id: PodId) -> bool {
        let Some(member) = self.fleet.members().get(&id).cloned() else { return true };
        tracing::info!(pod = %id, workload = %member.pod.name, "released");
        retire(member, self.address.linger);
        self.tell(Change::Release { id }).await
    }

    /// Asks for the listeners of pods that have none of ours.
    fn recruit(&mut self, line: &mut Line) {
        if self.stop.is_cancelled() {
            return;
        }
        for pod in self.roll.to_ask() {
            self.roll.asked(pod);
            line.waiting.push_back(Question::Listen(pod));
        }
    }

    fn tick(&mut self, line: &mut Line) -> Result<(), Lost> {
        self.recruit(line);
        self.each_stock(Stock::tick);
        let members = self.fleet.members();
        if members.values().any(|member| member.is_closed()) {
            let open = members.iter().filter(|(_, member)| !member.is_closed());
            self.fleet.set(open.map(|(id, member)| (*id, Arc::clone(member))).collect());
        }
        let limit = self.address.answer_limit;
        let silent = |(_, asked): &(Question, Instant)| asked.elapsed() > limit;
        if line.questions.values().any(silent) { Err(Lost::Silent(limit)) } else { Ok(()) }
    }

    fn member(&self, key: PodKey) -> Option<Arc<Member>> {
        let (id, _) = self.roll.pod(key)?;
        self.fleet.members().get(&id).cloned()
    }

    fn each_stock(&self, act: impl Fn(&Stock)) {
        self.fleet.members().values().flat_map(|member| member.stocks()).for_each(act);
    }

    /// Tells the data plane, which does not listen any more while it drains; false when it is over
    /// without that.
    async fn tell(&self, change: Change) -> bool {
        tokio::select! {
            sent = self.changes.send(change) => sent.is_ok() || self.stop.is_cancelled(),
            () = self.stop.cancelled() => true,
        }
    }

    fn publish(&self, problem: Option<String>) {
        self.standing.send_if_modified(|standing| {
            let now = Standing {
                agent: problem.is_none(),
                problem,
                complete: standing.complete || self.roll.is_complete(),
                superseded: standing.superseded,
                pods: self.roll.standing(),
            };
            let changed = *standing != now;
            *standing = now;
            changed
        });
    }
}

impl Line {
    /// Asks what waits, as much as may be asked at a time.
    async fn ask(&mut self, fleet: &Fleet) -> Result<(), LinkError> {
        while self.questions.len() < MOST_QUESTIONS
            && let Some(question) = self.waiting.pop_front()
        {
            let ask = match question {
                Question::Listen(pod) => Ask::Listen { pod },
                Question::Serving(pod) => Ask::Serving { pod },
                Question::Stock(Wish { id, pod, kind }) => {
                    match fleet.members().get(&id).map_or(0, |member| member.stock(kind).wanted()) {
                        0 => continue,
                        count => Ask::Stock { pod, kind, count },
                    }
                }
            };
            let id = self.next;
            self.next += 1;
            self.questions.insert(id, (question, Instant::now()));
            self.sender.ask(id, ask).await?;
        }
        Ok(())
    }
}

/// Closes a pod's stocks and DNS sockets after requests under way have had their time.
fn retire(member: Arc<Member>, after: Duration) {
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        member.close();
    });
}
