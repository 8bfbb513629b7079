//! What is shared by callers with the same identity, from the same pod, towards the same identity at the same
//! address, and by nobody else.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use ahash::RandomState;
use mesh::TunnelWay;
use policy::SpiffeId;

use crate::capture::PodId;

const SHARDS: usize = 16;
/// Origins and destinations kept per shard. Beyond, a lane ends with its users.
const MOST: usize = 1024;

/// From where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct From {
    /// The captured pod that calls; none: the proxy itself, for a gateway or listener.
    pub(crate) pod: Option<PodId>,
    /// Which of the caller's certificates and bundles.
    pub(crate) generation: u64,
    /// How.
    pub(crate) way: TunnelWay,
    /// Where to.
    pub(crate) to: SocketAddr,
}

/// Who speaks with whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Between<'a> {
    /// The caller.
    pub(crate) own: &'a SpiffeId,
    /// The identity that the destination must show.
    pub(crate) expected: &'a SpiffeId,
    /// The server name that is asked for: policy may ask for it too.
    pub(crate) sni: Option<&'a str>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    shards: [Mutex<Shard<T>>; SHARDS],
    hasher: RandomState,
}

type Shard<T> = HashMap<From, Vec<Entry<T>>, RandomState>;

#[derive(Debug)]
struct Entry<T> {
    own: SpiffeId,
    expected: SpiffeId,
    sni: Option<Box<str>>,
    lane: Arc<T>,
}

impl<T> Entry<T> {
    fn is(&self, between: Between<'_>) -> bool {
        self.own == *between.own && self.expected == *between.expected && self.sni.as_deref() == between.sni
    }
}

impl<T> Lanes<T> {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }

    /// The lane, made where there is none.
    pub(crate) fn lane(&self, from: From, between: Between<'_>, make: impl FnOnce() -> T) -> Arc<T> {
        let index = usize::try_from(self.hasher.hash_one(from)).unwrap_or(0) % SHARDS;
        let Some(shard) = self.shards.get(index) else { return Arc::new(make()) };
        let mut table = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = table.get(&from).and_then(|entries| entries.iter().find(|one| one.is(between))) {
            return Arc::clone(&entry.lane);
        }
        let lane = Arc::new(make());
        if table.len() < MOST {
            table.entry(from).or_default().push(Entry {
                own: between.own.clone(),
                expected: between.expected.clone(),
                sni: between.sni.map(Into::into),
                lane: Arc::clone(&lane),
            });
        }
        lane
    }

    /// Keeps the lanes that are used or wanted.
    pub(crate) fn sweep(&self, is_empty: impl Fn(&T) -> bool) {
        self.keep(|_, lane| !(is_empty(lane) && Arc::strong_count(lane) == 1));
    }

    /// Forgets a pod's; what is under way keeps its connection.
    pub(crate) fn forget(&self, pod: PodId) {
        self.keep(|from, _| from.pod != Some(pod));
    }

    fn keep(&self, keep: impl Fn(&From, &Arc<T>) -> bool) {
        for shard in &self.shards {
            let mut table = shard.lock().unwrap_or_else(PoisonError::into_inner);
            table.retain(|from, entries| {
                entries.retain(|entry| keep(from, &entry.lane));
                !entries.is_empty()
            });
        }
    }
}
