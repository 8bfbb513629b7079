//! Sockets inside a pod that wait for use: made ahead by the agent, so that no connection waits for
//! it.
//!
//! Each pod has one stock for each kind of socket. Its level follows the use: what two seconds took,
//! within the settings' bounds, so that an agent that restarts is not missed. All pods' stocks
//! together stay below a total, but for a few sockets that each pod is always granted.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use dataplane::capture::PodId;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use super::tally::SocketTally;
use crate::{
    agent::protocol::{MAX_STOCK, PodKey, SocketKind},
    settings::StockSettings,
};

/// How many seconds' use a stock holds.
const COVER_SECONDS: u32 = 2;
/// Pause before the agent is asked again for what it refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(250);

/// What all stocks share.
#[derive(Debug)]
pub(super) struct Depot {
    pub(super) settings: StockSettings,
    /// Sockets in all stocks.
    held: AtomicUsize,
    /// Stocks there are.
    stocks: AtomicUsize,
    wishes: mpsc::Sender<Wish>,
    /// Whether the agent is there.
    pub(super) agent: watch::Receiver<Presence>,
}

/// Whether the agent is there, and since when not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Here,
    AwaySince(Instant),
}

/// A stock that should be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) id: PodId,
    pub(super) pod: PodKey,
    pub(super) kind: SocketKind,
}

/// Why there is no socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Empty {
    #[error("no socket inside the pod is ready, and there is no agent to make one")]
    NoAgent,
    #[error("no socket inside the pod came in time")]
    Late,
    #[error("the pod has no such address family")]
    NoFamily,
    #[error("the pod is no longer captured")]
    Closed,
}

/// Sockets of one kind inside one pod.
#[derive(Debug)]
pub(super) struct Stock {
    wish: Wish,
    shelf: Mutex<Shelf>,
    arrived: Notify,
    depot: Arc<Depot>,
}

#[derive(Debug)]
struct Shelf {
    ready: Vec<OwnedFd>,
    /// How many there should be.
    level: u32,
    /// Taken since the last tick.
    taken: u32,
    /// The agent is being asked, or will be.
    asked: bool,
    /// One who came since the last filling found nothing.
    ran_dry: bool,
    /// No asking before.
    not_before: Option<Instant>,
    /// Nothing will come any more.
    over: Option<Empty>,
}

impl Depot {
    pub(super) fn new(
        settings: StockSettings,
        wishes: mpsc::Sender<Wish>,
        agent: watch::Receiver<Presence>,
    ) -> Arc<Self> {
        let (held, stocks) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { settings, held, stocks, wishes, agent })
    }

    /// Sockets that wait in all stocks.
    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// What every stock is granted, whatever the others hold: all of these together stay below the
    /// total, where there are not more stocks than that.
    fn granted(&self) -> u32 {
        let stocks = u32::try_from(self.stocks.load(Relaxed)).unwrap_or(u32::MAX).max(1);
        self.settings.initial.min((self.settings.total / stocks).max(1))
    }

    /// How many more may come into a stock that has `there`.
    fn room(&self, there: u32) -> u32 {
        let held = u32::try_from(self.held()).unwrap_or(u32::MAX);
        self.settings.total.saturating_sub(held).max(self.granted().saturating_sub(there))
    }

    /// Until when an empty stock is waited for: an agent that restarts is, one that stays away is not.
    fn deadline(&self) -> Instant {
        let wait = Duration::from_millis(self.settings.wait_ms);
        match *self.agent.borrow() {
            Presence::Here => Instant::now() + wait,
            Presence::AwaySince(since) => since + wait,
        }
    }
}

impl Stock {
    /// An empty stock; it is filled ahead of use where `ahead` says so.
    pub(super) fn new(wish: Wish, ahead: bool, depot: Arc<Depot>) -> Self {
        depot.stocks.fetch_add(1, Relaxed);
        let shelf = Shelf {
            ready: Vec::new(),
            level: if ahead { depot.settings.initial } else { 0 },
            taken: 0,
            asked: false,
            ran_dry: false,
            not_before: None,
            over: None,
        };
        Self { wish, shelf: Mutex::new(shelf), arrived: Notify::new(), depot }
    }

    /// Takes a socket: normally at once, else as soon as one comes.
    ///
    /// # Errors
    /// [`Empty`]: none is there and none came in time.
    pub(super) async fn take(&self, tally: &SocketTally) -> Result<OwnedFd, Empty> {
        if let Some(socket) = self.pop()? {
            tally.ready.one();
            return Ok(socket);
        }
        let taken = self.wait().await;
        if taken.is_ok() {
            tally.waited.one()
        } else {
            tally.refused.one()
        }
        taken
    }

    async fn wait(&self) -> Result<OwnedFd, Empty> {
        let deadline = self.depot.deadline();
        loop {
            // Before looking: what arrives in between is not missed.
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            if let Some(socket) = self.pop()? {
                return Ok(socket);
            }
            if tokio::time::timeout_at(deadline, arrived).await.is_err() {
                return match *self.depot.agent.borrow() {
                    Presence::Here => Err(Empty::Late),
                    Presence::AwaySince(_) => Err(Empty::NoAgent),
                };
            }
        }
    }

    fn pop(&self) -> Result<Option<OwnedFd>, Empty> {
        let mut shelf = self.shelf();
        if let Some(over) = shelf.over {
            return Err(over);
        }
        let socket = shelf.ready.pop();
        if socket.is_some() {
            self.depot.held.fetch_sub(1, Relaxed);
            shelf.taken = shelf.taken.saturating_add(1);
        } else if !shelf.ran_dry {
            shelf.ran_dry = true;
            shelf.level = shelf.level.saturating_mul(2).clamp(1, self.depot.settings.most);
        }
        self.ask_if_low(&mut shelf);
        Ok(socket)
    }

    /// Wishes for more where less than half is left; at most one wish is under way.
    fn ask_if_low(&self, shelf: &mut Shelf) {
        let low = shelf.there() == 0 || shelf.there() < shelf.level / 2;
        let may = shelf.not_before.is_none_or(|when| Instant::now() >= when);
        if low && may && !shelf.asked && shelf.level > 0 {
            shelf.asked = self.depot.wishes.try_send(self.wish).is_ok();
        }
    }

    /// How many to ask the agent for now; 0: none, and the wish is over.
    pub(super) fn wanted(&self) -> u32 {
        let mut shelf = self.shelf();
        let there = shelf.there();
        let missing = shelf.level.saturating_sub(there).min(self.depot.room(there)).min(MAX_STOCK);
        shelf.asked = missing > 0 && shelf.over.is_none();
        if shelf.asked { missing } else { 0 }
    }

    /// Takes in what the agent made. True: it should be asked again at once.
    pub(super) fn put(&self, sockets: Vec<OwnedFd>) -> bool {
        let again = {
            let mut shelf = self.shelf();
            shelf.not_before = None;
            shelf.ran_dry = false;
            if shelf.over.is_none() {
                self.depot.held.fetch_add(sockets.len(), Relaxed);
                shelf.ready.extend(sockets);
            }
            shelf.asked = shelf.over.is_none() && shelf.there() < shelf.level;
            shelf.asked
        };
        self.arrived.notify_waiters();
        again
    }

    /// The agent refused, or is gone with the question.
    pub(super) fn unanswered(&self, refused: bool) {
        let mut shelf = self.shelf();
        shelf.asked = false;
        shelf.not_before = refused.then(|| Instant::now() + REFUSED_PAUSE);
    }

    /// Each second: the level follows the use, sockets too many go, and a low stock is wished for.
    pub(super) fn tick(&self) {
        let mut shelf = self.shelf();
        let used = shelf.taken.saturating_mul(COVER_SECONDS);
        shelf.taken = 0;
        let least = shelf.level.min(self.depot.granted());
        // Falls slowly, rises at once.
        let slowly = shelf.level - shelf.level / 8;
        shelf.level = used.max(slowly).clamp(least, self.depot.settings.most.max(least));
        let surplus = shelf.there().saturating_sub(shelf.level) / 2;
        for _ in 0..surplus {
            if shelf.ready.pop().is_some() {
                self.depot.held.fetch_sub(1, Relaxed);
            }
        }
        self.ask_if_low(&mut shelf);
    }

    /// Nothing more is given or taken.
    pub(super) fn close(&self, why: Empty) {
        {
            let mut shelf = self.shelf();
            shelf.over = Some(why);
            self.depot.held.fetch_sub(shelf.ready.len(), Relaxed);
            shelf.ready.clear();
        }
        self.arrived.notify_waiters();
    }

    /// Wishes for more at once, where it is low.
    pub(super) fn refill(&self) {
        self.ask_if_low(&mut self.shelf());
    }

    /// Sockets that wait.
    pub(super) fn len(&self) -> usize {
        self.shelf().ready.len()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Nothing panics while it is held, and nothing in it is ever half done.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn there(&self) -> u32 {
        u32::try_from(self.ready.len()).unwrap_or(u32::MAX)
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.close(Empty::Closed);
        self.depot.stocks.fetch_sub(1, Relaxed);
    }
}
