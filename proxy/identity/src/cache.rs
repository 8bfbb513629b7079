//! Tokens verified before: the second request of a token costs a hash and a look-up, no signature
//! check and no JSON.
//!
//! Keyed by SHA-256 over rule and token: collision resistant, so that no stored token has to be
//! compared and no credential is kept (a microsecond for a Keycloak token). An entry counts for
//! its rule alone, until `exp`, and only while the key that verified it is among the issuer's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::digest;
use http::{HeaderName, HeaderValue};
use moka::sync::Cache;
use policy::RequestIdentity;

use crate::{keys::Fingerprint, rule::Rule, settings::TokenSettings, source::State, token};

/// A token with up to so many bytes counts as one entry; longer ones as several.
const ENTRY_BYTES: usize = 2_048;

/// What a verified token says.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) identity: Arc<RequestIdentity>,
    /// Headers that the rule wants set.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) not_before: Option<u64>,
    pub(crate) expires: Option<u64>,
    /// The key that verified it.
    pub(crate) key: Fingerprint,
    /// Generation of the keys in which that key was last seen.
    pub(crate) generation: AtomicU64,
    /// Length of the token, for the bound of the cache.
    pub(crate) token_bytes: usize,
}

/// A cache key.
pub(crate) type CacheKey = [u8; 32];

/// The cache.
#[derive(Debug)]
pub(crate) struct TokenCache {
    entries: Option<Cache<CacheKey, Arc<Verified>, ahash::RandomState>>,
    skew: u64,
}

impl TokenCache {
    pub(crate) fn new(settings: &TokenSettings) -> Self {
        let entries = (settings.cache_entries > 0).then(|| {
            Cache::builder()
                .max_capacity(settings.cache_entries)
                .weigher(|_: &CacheKey, token: &Arc<Verified>| {
                    u32::try_from(1 + token.token_bytes / ENTRY_BYTES).unwrap_or(u32::MAX)
                })
                .time_to_idle(Duration::from_secs(settings.cache_idle_seconds.max(1)))
                .build_with_hasher(ahash::RandomState::new())
        });
        Self { entries, skew: settings.clock_skew_seconds }
    }

    pub(crate) fn key(rule: &Rule, token: &[u8]) -> CacheKey {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&rule.id);
        hash.update(token);
        let mut key = [0; 32];
        for (to, from) in key.iter_mut().zip(hash.finish().as_ref()) {
            *to = *from;
        }
        key
    }

    /// The entry, if it still counts: `state` is what is held of the rule's issuer now, and its
    /// keys have been found usable.
    pub(crate) fn get(&self, key: &CacheKey, state: &State, now: i64) -> Option<Arc<Verified>> {
        let entries = self.entries.as_ref()?;
        let verified = entries.get(key)?;
        if self.in_time(&verified, now) && has_key(&verified, state) {
            return Some(verified);
        }
        entries.invalidate(key);
        None
    }

    pub(crate) fn put(&self, key: CacheKey, verified: &Arc<Verified>) {
        if let Some(entries) = &self.entries {
            entries.insert(key, Arc::clone(verified));
        }
    }

    /// Entries, about.
    pub(crate) fn len(&self) -> u64 {
        self.entries.as_ref().map_or(0, Cache::entry_count)
    }

    fn in_time(&self, verified: &Verified, now: i64) -> bool {
        let now = u64::try_from(now).unwrap_or(0);
        let begun = verified.not_before.is_none_or(|nbf| now.saturating_add(self.skew) >= nbf);
        let ended = verified.expires.is_some_and(|exp| token::is_expired(exp, now, self.skew));
        begun && !ended
    }
}

/// Whether the key that verified it is still among the issuer's; looked up once per key change.
fn has_key(verified: &Verified, state: &State) -> bool {
    if verified.generation.load(Ordering::Relaxed) == state.generation {
        return true;
    }
    let there = state.keys.as_ref().is_some_and(|keys| keys.contains(&verified.key));
    if there {
        verified.generation.store(state.generation, Ordering::Relaxed);
    }
    there
}
