//! Who may ask a provider for newer keys because of a `kid` that is not known.
//!
//! Anyone can send tokens with made-up `kid`s, so: one fetch at a time, shared by all who wait for
//! it; at most one per interval, unless the last one brought the key that was looked for (then the
//! provider is rotating keys, and strangers cannot make that happen); and a `kid` that the provider
//! did not know is not asked for again for a while, so that an old client with an old token does
//! not use up the interval's one fetch.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::settings::KeySettings;

/// What a request with an unknown `kid` is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Wake the provider's task, then wait for this attempt to end.
    Ask(u64),
    /// Wait for this attempt to end; somebody has asked already.
    Join(u64),
    /// Refuse at once.
    Suppressed,
}

#[derive(Debug)]
pub(crate) struct Gate {
    interval: Duration,
    remember: Duration,
    most: usize,
    hasher: ahash::RandomState,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The attempt that was asked for last.
    asked: u64,
    asked_at: Option<Instant>,
    /// Hashes of `kid`s that the provider did not know, and when.
    unknown: HashMap<u64, Instant>,
}

impl Gate {
    pub(crate) fn new(settings: &KeySettings) -> Self {
        Self {
            interval: Duration::from_millis(settings.kid_refetch_interval_ms),
            remember: Duration::from_secs(settings.unknown_kid_seconds),
            most: settings.unknown_kids,
            hasher: ahash::RandomState::new(),
            inner: Mutex::default(),
        }
    }

    /// `started` and `finished`: attempts of the provider's task so far.
    pub(crate) fn pass(&self, kid: &str, started: u64, finished: u64, now: Instant) -> Pass {
        let mut inner = self.inner();
        let hash = self.hasher.hash_one(kid);
        if inner.unknown.get(&hash).is_some_and(|since| now - *since < self.remember) {
            return Pass::Suppressed;
        }
        if inner.asked > finished {
            return Pass::Join(inner.asked);
        }
        if inner.asked_at.is_some_and(|at| now - at < self.interval) {
            return Pass::Suppressed;
        }
        // One that is under way now may have been answered before the key was published.
        inner.asked = started + 1;
        inner.asked_at = Some(now);
        Pass::Ask(inner.asked)
    }

    /// The attempt brought the key: the next unknown `kid` may ask at once.
    pub(crate) fn fruitful(&self) {
        self.inner().asked_at = None;
    }

    /// The provider does not know this `kid` either.
    pub(crate) fn unknown(&self, kid: &str, now: Instant) {
        let mut inner = self.inner();
        if inner.unknown.len() >= self.most {
            let remember = self.remember;
            inner.unknown.retain(|_, since| now - *since < remember);
        }
        if inner.unknown.len() < self.most {
            let hash = self.hasher.hash_one(kid);
            inner.unknown.insert(hash, now);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(&KeySettings {
            kid_refetch_interval_ms: 5_000,
            unknown_kid_seconds: 30,
            unknown_kids: 2,
            ..KeySettings::default()
        })
    }

    #[test]
    fn one_asks_the_others_join_then_the_interval_holds() {
        let (gate, now) = (gate(), Instant::now());
        assert_eq!(gate.pass("a", 1, 1, now), Pass::Ask(2));
        assert_eq!(gate.pass("b", 1, 1, now), Pass::Join(2));
        assert_eq!(gate.pass("c", 2, 1, now), Pass::Join(2));
        assert_eq!(gate.pass("d", 2, 2, now + Duration::from_secs(4)), Pass::Suppressed);
        assert_eq!(gate.pass("d", 2, 2, now + Duration::from_secs(5)), Pass::Ask(3));
    }

    #[test]
    fn an_attempt_under_way_is_not_trusted_to_have_seen_the_new_key() {
        assert_eq!(gate().pass("a", 5, 4, Instant::now()), Pass::Ask(6));
    }

    #[test]
    fn a_fruitful_fetch_frees_the_next() {
        let (gate, now) = (gate(), Instant::now());
        assert_eq!(gate.pass("new", 1, 1, now), Pass::Ask(2));
        gate.fruitful();
        assert_eq!(gate.pass("newer", 2, 2, now), Pass::Ask(3));
    }

    #[test]
    fn an_unknown_kid_does_not_use_up_the_interval_and_memory_is_bounded() {
        let (gate, now) = (gate(), Instant::now());
        let later = now + Duration::from_secs(6);
        gate.unknown("old", now);
        assert_eq!(gate.pass("old", 1, 1, later), Pass::Suppressed);
        assert_eq!(gate.pass("new", 1, 1, later), Pass::Ask(2));
        for kid in 0..100 {
            gate.unknown(&kid.to_string(), now);
        }
        assert_eq!(gate.inner().unknown.len(), 2);
        gate.unknown("again", now + Duration::from_secs(31));
        assert_eq!(gate.inner().unknown.len(), 1);
    }
}
