//! The one task of a remote source: fetches, judges, publishes, waits.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::{
    DiskCache, Provider, Source, State,
    health::HealthMeter,
    provider::{FetchError, Fetched},
};
use crate::{Health, clock::Clock, settings::HealthSettings};

/// An unchanged document's new time is written to disk no more often than this.
const DISK_EVERY: Duration = Duration::from_secs(300);

struct Task {
    source: Arc<Source>,
    provider: Provider,
    disk: Option<DiskCache>,
    clock: Clock,
    state: State,
    meter: HealthMeter,
    /// What is on disk: which generation, written when.
    on_disk: Option<(u64, Instant)>,
    /// Public numbers of keys whose private part the provider once published: never used again.
    exposed: Vec<String>,
}

/// Runs until the source is stopped.
pub(crate) async fn run(
    source: Arc<Source>,
    provider: Provider,
    disk: Option<DiskCache>,
    clock: Clock,
    health: HealthSettings,
) {
    let stop = source.stop.clone();
    let state = State::clone(&source.state());
    let meter = HealthMeter::new(health);
    let mut task = Task { source, provider, disk, clock, state, meter, on_disk: None, exposed: Vec::new() };
    let work = async {
        task.load().await;
        loop {
            let pause = task.attempt().await;
            tokio::select! {
                () = sleep(pause) => {}
                () = task.source.wake.notified() => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

impl Task {
    /// Keys of an earlier run count until the provider is reached, and no longer than any others.
    async fn load(&mut self) {
        let Some(disk) = self.disk.clone() else { return };
        let now = self.clock.now();
        let read = tokio::task::spawn_blocking(move || disk.read(now)).await;
        match read {
            Ok(Ok(Some((keys, fetched_at)))) => {
                let (issuer, count) = (&self.source.issuer, keys.len());
                tracing::info!(%issuer, keys = count, "keys of an earlier run read from disk");
                self.state.take(keys, fetched_at);
                self.state.from_disk = true;
                self.source.publish(self.state.clone());
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                let issuer = &self.source.issuer;
                tracing::warn!(%issuer, %error, "key cache file is not used");
            }
            Err(error) => tracing::warn!(%error, "key cache file was not read"),
        }
    }

    /// One attempt; says how long to wait before the next.
    async fn attempt(&mut self) -> Duration {
        let attempt = self.source.started.fetch_add(1, Ordering::AcqRel) + 1;
        let held = self.state.keys.is_some() && !self.state.from_disk;
        let longest = self.source.fetch_timeout();
        let fetched = match timeout(longest, self.provider.fetch(held)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(FetchError::Timeout),
        };
        let max_age = match fetched {
            Ok(fetched) => self.succeeded(fetched),
            Err(error) => {
                self.failed(&error);
                if let FetchError::PrivateKeys(exposed) = error {
                    self.revoke(exposed).await;
                }
                None
            }
        };
        self.state.finished = attempt;
        self.state.ended_at = Some(Instant::now());
        self.change_health();
        self.source.publish(self.state.clone());
        self.save().await;
        self.pause(max_age)
    }

    fn succeeded(&mut self, fetched: Fetched) -> Option<u64> {
        let now = self.clock.now();
        let counters = &self.source.counters;
        let max_age = match fetched {
            Fetched::Keys { keys, max_age } => {
                counters.fetched.fetch_add(1, Ordering::Relaxed);
                let before = self.state.generation;
                self.state.take(keys, now);
                self.state.revoke(&self.exposed);
                if self.state.generation != before {
                    let keys = self.state.keys.as_ref().map_or(0, |keys| keys.len());
                    tracing::info!(issuer = %self.source.issuer, keys, "new keys");
                }
                max_age
            }
            Fetched::NotModified { max_age } => {
                counters.not_modified.fetch_add(1, Ordering::Relaxed);
                self.state.confirm(now);
                max_age
            }
        };
        self.state.last_error = None;
        self.meter.succeeded();
        max_age
    }

    fn failed(&mut self, error: &FetchError) {
        self.source.counters.failed.fetch_add(1, Ordering::Relaxed);
        let text = error.to_string();
        // Once per change: a provider that stays down must not fill the log.
        if self.state.last_error.as_deref() != Some(text.as_str()) {
            let (issuer, from) = (&self.source.issuer, &self.source.keys_from);
            tracing::warn!(%issuer, %from, error = %text, "keys cannot be fetched");
        }
        self.state.last_error = Some(text.into());
        self.meter.failed(Instant::now());
    }

    /// Keys that are lost are dropped at once, on disk too; the others stay.
    async fn revoke(&mut self, exposed: Vec<String>) {
        /// A provider cannot make this list grow for ever.
        const MOST: usize = 256;
        // Dropped before anything is forgotten: the bound is on the memory alone.
        let dropped = self.state.revoke(&exposed);
        for number in exposed {
            if self.exposed.len() < MOST && !self.exposed.contains(&number) {
                self.exposed.push(number);
            }
        }
        if !dropped {
            return;
        }
        tracing::error!(issuer = %self.source.issuer, "the provider has published the private part of a key that was in use: the key is dropped");
        self.on_disk = None;
        let Some(disk) = self.disk.clone() else { return };
        match tokio::task::spawn_blocking(move || disk.remove()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "key cache file cannot be removed"),
            Err(error) => tracing::warn!(%error, "key cache file was not removed"),
        }
    }

    fn change_health(&mut self) {
        let (before, after) = (self.state.health, self.meter.health());
        if before != after {
            tracing::info!(issuer = %self.source.issuer, ?before, ?after, "issuer health");
        }
        self.state.health = after;
    }

    async fn save(&mut self) {
        let (Some(disk), Some(keys), Some(at)) =
            (self.disk.clone(), self.state.keys.clone(), self.state.confirmed_at)
        else {
            return;
        };
        let current = self.on_disk.is_some_and(|(generation, written)| {
            generation == self.state.generation && written.elapsed() < DISK_EVERY
        });
        if self.state.from_disk || current || self.state.last_error.is_some() {
            return;
        }
        let written = tokio::task::spawn_blocking(move || disk.write(&keys, at)).await;
        match written {
            Ok(Ok(())) => self.on_disk = Some((self.state.generation, Instant::now())),
            Ok(Err(error)) => tracing::warn!(%error, "key cache file cannot be written"),
            Err(error) => tracing::warn!(%error, "key cache file was not written"),
        }
    }

    /// Until the next attempt: the refresh interval, or less where the provider says so; short
    /// while anything is wrong, so that health is judged soon.
    fn pause(&self, max_age: Option<u64>) -> Duration {
        let settings = &self.source.settings;
        let retry_max = Duration::from_millis(settings.retry_max_ms);
        let pause = if self.meter.failures() > 0 {
            let doubled = self.meter.failures().saturating_sub(1).min(16);
            Duration::from_millis(settings.retry_min_ms).saturating_mul(1 << doubled).min(retry_max)
        } else if self.meter.health() != Health::Up {
            Duration::from_millis(settings.retry_min_ms).min(retry_max)
        } else {
            let asked = max_age.unwrap_or(u64::MAX).max(settings.min_refresh_seconds);
            Duration::from_secs(asked.min(settings.refresh_seconds))
        };
        jittered(pause)
    }
}

/// Ten per cent up or down, so that a fleet does not ask at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0_u8; 1];
    // Without randomness there is no jitter, which is no harm.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let [random] = random;
    pause.mul_f64(0.9 + 0.2 * f64::from(random) / 255.0)
}
