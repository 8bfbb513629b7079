//! What is held of one provider at a moment: immutable, published whole by its one task.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{Health, keys::KeySet};

/// A moment of a key source.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// The last good keys.
    pub(crate) keys: Option<Arc<KeySet>>,
    /// A hash of the keys ([`KeySet::generation`]): equal for equal keys, whoever fetched them.
    pub(crate) generation: u64,
    /// When the provider last confirmed the keys, Unix seconds. `None`: they never age (`jwks` in
    /// the manifest).
    pub(crate) confirmed_at: Option<i64>,
    /// Read from disk and not confirmed since.
    pub(crate) from_disk: bool,
    pub(crate) health: Health,
    /// Attempts that have ended.
    pub(crate) finished: u64,
    /// When the last of them ended.
    pub(crate) ended_at: Option<Instant>,
    /// Why the last attempt failed.
    pub(crate) last_error: Option<Arc<str>>,
}

impl State {
    /// Nothing yet.
    pub(crate) fn empty(health: Health) -> Self {
        Self {
            keys: None,
            generation: 0,
            confirmed_at: None,
            from_disk: false,
            health,
            finished: 0,
            ended_at: None,
            last_error: None,
        }
    }

    /// Seconds since the provider confirmed the keys. A clock that was set back makes them young,
    /// not old.
    pub(crate) fn age(&self, now: i64) -> Option<u64> {
        self.confirmed_at.map(|at| u64::try_from(now.saturating_sub(at)).unwrap_or(0))
    }

    /// The keys, unless they are older than the limit (0: no limit).
    pub(crate) fn usable(&self, now: i64, max_age: u64) -> Option<&Arc<KeySet>> {
        let too_old = max_age != 0 && self.age(now).is_some_and(|age| age > max_age);
        self.keys.as_ref().filter(|_| !too_old)
    }

    /// Takes freshly fetched keys; the same ones as before keep their generation, and with it the
    /// verified tokens.
    pub(crate) fn take(&mut self, fresh: KeySet, now: i64) {
        let generation = fresh.generation();
        if self.keys.is_none() || self.generation != generation {
            self.keys = Some(Arc::new(fresh));
            self.generation = generation;
        }
        self.confirm(now);
    }

    /// Drops keys whose private part was published: whoever read it can sign with them
    /// (CVE-2026-31837). Tokens that they verified are not taken from the cache any more.
    pub(crate) fn revoke(&mut self, exposed: &[String]) -> bool {
        let Some(left) = self.keys.as_ref().and_then(|keys| keys.without(exposed)) else { return false };
        self.generation = left.generation();
        self.keys = (left.len() > 0).then(|| Arc::new(left));
        true
    }

    /// The provider says that the keys held are the present ones.
    pub(crate) fn confirm(&mut self, now: i64) {
        self.confirmed_at = Some(now);
        self.from_disk = false;
    }
}
