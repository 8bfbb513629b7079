//! Where a rule's keys come from: one source per issuer and address, shared by all workloads.
//!
//! Each remote source has one task of its own, which fetches, judges health and publishes a whole
//! new [`State`]; requests only read, and at most wait for an attempt to end. So no issuer can
//! delay another's tokens, and no request with a known `kid` ever waits.

mod disk;
mod gate;
mod health;
mod provider;
mod state;
mod task;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use self::gate::{Gate, Pass};
pub(crate) use self::{disk::DiskCache, provider::Provider, state::State, task::run};
use crate::{Health, IssuerStatus, counters::SourceCounters, keys::KeySet, settings::KeySettings};

/// The keys of one issuer from one place.
#[derive(Debug)]
pub(crate) struct Source {
    /// Issuer of the rules; may be empty.
    pub(crate) issuer: Arc<str>,
    /// Address of the keys, `discovery`, or `inline`.
    pub(crate) keys_from: String,
    /// Whether there is a provider to ask.
    remote: bool,
    pub(crate) settings: KeySettings,
    state: ArcSwap<State>,
    /// Attempts that have begun.
    started: AtomicU64,
    /// Attempts that have ended: for those who wait.
    finished: watch::Sender<u64>,
    wake: Notify,
    gate: Gate,
    waiters: AtomicUsize,
    /// Longest `timeout` of the rules that use it.
    timeout_ms: AtomicU64,
    pub(crate) counters: SourceCounters,
    /// Ends the task when no rule names the source any more.
    pub(crate) stop: CancellationToken,
}

/// A wait for keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    /// Attempt that must have ended.
    attempt: u64,
}

impl Source {
    /// Keys that never change: a manifest's own `jwks`, or an offline run's table.
    pub(crate) fn fixed(issuer: Arc<str>, keys_from: String, keys: Option<KeySet>, health: Health) -> Self {
        let generation = keys.as_ref().map_or(0, KeySet::generation);
        let state = State { keys: keys.map(Arc::new), generation, ..State::empty(health) };
        Self::new(issuer, keys_from, false, KeySettings::default(), state, CancellationToken::new())
    }

    /// Keys of a provider; [`run`] fetches them.
    pub(crate) fn remote(
        issuer: Arc<str>,
        keys_from: String,
        settings: KeySettings,
        stop: CancellationToken,
    ) -> Self {
        Self::new(issuer, keys_from, true, settings, State::empty(Health::Degraded), stop)
    }

    fn new(
        issuer: Arc<str>,
        keys_from: String,
        remote: bool,
        settings: KeySettings,
        state: State,
        stop: CancellationToken,
    ) -> Self {
        Self {
            issuer,
            keys_from,
            remote,
            gate: Gate::new(&settings),
            settings,
            state: ArcSwap::from_pointee(state),
            started: AtomicU64::new(0),
            finished: watch::Sender::new(0),
            wake: Notify::new(),
            waiters: AtomicUsize::new(0),
            timeout_ms: AtomicU64::new(0),
            counters: SourceCounters::default(),
            stop,
        }
    }

    /// What is held now.
    pub(crate) fn state(&self) -> Guard<Arc<State>> {
        self.state.load()
    }

    /// A rule with that `timeout` uses this source: one fetch may take as long.
    pub(crate) fn allow_timeout(&self, timeout: Duration) {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.timeout_ms.fetch_max(millis, Ordering::Relaxed);
    }

    /// How long one fetch may take.
    fn fetch_timeout(&self) -> Duration {
        let wanted = self.timeout_ms.load(Ordering::Relaxed);
        Duration::from_millis(wanted.min(self.settings.fetch_timeout_max_ms))
    }

    /// There are no keys in the state that was `seen`: what to wait for, if anything. The first
    /// attempt, or the one under way; else one is asked for, but not before the shortest pause
    /// after a failure has gone by.
    pub(crate) fn ask_for_first(&self, seen: &State) -> Option<Wait> {
        if !self.remote {
            return None;
        }
        let finished = self.state().finished;
        if finished > seen.finished {
            return Some(Wait { attempt: finished });
        }
        let started = self.started.load(Ordering::Acquire);
        if finished == 0 || started > finished {
            return Some(Wait { attempt: finished + 1 });
        }
        let pause = Duration::from_millis(self.settings.retry_min_ms);
        if self.state().ended_at.is_some_and(|ended| ended.elapsed() < pause) {
            return None;
        }
        self.wake.notify_one();
        Some(Wait { attempt: finished + 1 })
    }

    /// A `kid` is unknown in the state that was `seen` (or there is none and no key fits): whether
    /// to wait for newer keys.
    pub(crate) fn ask_for_newer(&self, seen: &State, kid: &str) -> Option<Wait> {
        if !self.remote {
            return None;
        }
        let started = self.started.load(Ordering::Acquire);
        let finished = self.state().finished;
        // They have come between the look and now: look again.
        if finished > seen.finished {
            return Some(Wait { attempt: finished });
        }
        match self.gate.pass(kid, started, finished, Instant::now()) {
            Pass::Ask(attempt) => {
                self.counters.kid_refetches.fetch_add(1, Ordering::Relaxed);
                self.wake.notify_one();
                Some(Wait { attempt })
            }
            Pass::Join(attempt) => Some(Wait { attempt }),
            Pass::Suppressed => {
                self.counters.refetches_suppressed.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Tells whether newer keys brought what was looked for. A provider that did not answer has
    /// not said that it does not know the `kid`.
    pub(crate) fn tell(&self, kid: &str, found: bool) {
        if found {
            self.gate.fruitful();
        } else if self.state().last_error.is_none() {
            self.gate.unknown(kid, Instant::now());
        }
    }

    /// Waits for an attempt to end; `false` where it did not in time or too many wait already.
    pub(crate) async fn wait(&self, wait: Wait, longest: Duration) -> bool {
        let _place = Waiter { waiters: &self.waiters };
        if self.waiters.fetch_add(1, Ordering::Relaxed) >= self.settings.waiters {
            return false;
        }
        let longest = longest.min(Duration::from_millis(self.settings.fetch_timeout_max_ms));
        let mut finished = self.finished.subscribe();
        let ended = timeout(longest, finished.wait_for(|ended| *ended >= wait.attempt)).await;
        matches!(ended, Ok(Ok(_)))
    }

    /// For `/metrics`, `/readyz`, `/config_dump`.
    pub(crate) fn status(&self, now: i64) -> IssuerStatus {
        let state = self.state();
        IssuerStatus {
            issuer: self.issuer.to_string(),
            keys_from: self.keys_from.clone(),
            health: state.health,
            keys: state.usable(now, self.settings.max_age_seconds).map_or(0, |keys| keys.len()),
            skipped_keys: state.keys.as_ref().map_or(0, |keys| keys.skipped()),
            age_seconds: state.age(now),
            from_disk: state.from_disk,
            last_error: state.last_error.as_deref().map(str::to_owned),
            counters: self.counters.snapshot(),
        }
    }

    /// Publishes what an attempt brought. Only the source's task calls it.
    fn publish(&self, state: State) {
        let finished = state.finished;
        self.state.store(Arc::new(state));
        self.finished.send_replace(finished);
    }
}

/// Gives the place in the queue back.
struct Waiter<'a> {
    waiters: &'a AtomicUsize,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}
