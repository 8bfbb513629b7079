//! Pools of connections inside pods. Each belongs to one client of one pod, so there may be as many as
//! there are clients: a table that is copied with each change would cost its square.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use ahash::RandomState;
use tokio::time::Instant;

use super::{
    inside::{Inside, InsideKey},
    pool::{Pool, Reach},
};
use crate::{Limits, capture::PodId};

const SHARDS: usize = 16;
/// Pools kept per shard. Beyond, a connection's pool ends with it.
const MOST: usize = 512;

type Shard = HashMap<InsideKey, Arc<Pool>, RandomState>;

/// See the module.
#[derive(Debug)]
pub(super) struct Rooms {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

impl Rooms {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }

    /// The pool of a client's connections to an address inside a pod.
    pub(super) fn pool(&self, inside: &Arc<Inside>, address: SocketAddr, limits: &Arc<Limits>) -> Arc<Pool> {
        let key = inside.key(address);
        let fresh = || Arc::new(Pool::new(address, Reach::Inside(Arc::clone(inside)), Arc::clone(limits)));
        let index = usize::try_from(self.hasher.hash_one(key)).unwrap_or(0) % SHARDS;
        let Some(shard) = self.shards.get(index) else { return fresh() };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = shard.get(&key) {
            return Arc::clone(pool);
        }
        let pool = fresh();
        if shard.len() < MOST {
            shard.insert(key, Arc::clone(&pool));
        }
        pool
    }

    /// Closes idle connections and forgets the pools that nobody uses.
    pub(super) fn sweep(&self, now: Instant) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, pool| !(pool.sweep(now) && Arc::strong_count(pool) == 1));
        }
    }

    /// Forgets a pod that is no longer ours; what is under way keeps its connection.
    pub(super) fn forget(&self, pod: PodId) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|key, _| key.pod != pod);
        }
    }
}
