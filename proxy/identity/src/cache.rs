//! Tokens verified before: the second request of a token costs a hash and a look-up, no signature
//! check and no JSON.
//!
//! Keyed by GMAC (NIST SP 800-38D §3) over rule and token, under a key of this process that is never
//! told: two texts share a tag with a chance of some 2^-121 for a token of 2 KiB, whoever chose them, so
//! that no stored token has to be compared and no credential is kept. The nonce is always the same, which
//! is sound here alone: it is an attacker's sight of tags that such a nonce endangers, and no tag leaves
//! this module. An entry counts for its rule alone, until `exp`, and only while the key that verified it is among the
//! issuer's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use http::{HeaderName, HeaderValue};
use moka::sync::Cache;
use policy::RequestIdentity;
use smallvec::SmallVec;

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
pub(crate) type CacheKey = [u8; 16];

/// The cache.
#[derive(Debug)]
pub(crate) struct TokenCache {
    /// `None`: switched off, or no key could be drawn.
    entries: Option<Entries>,
    skew: u64,
}

#[derive(Debug)]
struct Entries {
    mac: LessSafeKey,
    tokens: Cache<CacheKey, Arc<Verified>, ahash::RandomState>,
}

impl TokenCache {
    pub(crate) fn new(settings: &TokenSettings) -> Self {
        let mac = (settings.cache_entries > 0).then(random_key).flatten();
        let entries = mac.map(|mac| {
            let tokens = Cache::builder()
                .max_capacity(settings.cache_entries)
                .weigher(|_: &CacheKey, token: &Arc<Verified>| {
                    u32::try_from(1 + token.token_bytes / ENTRY_BYTES).unwrap_or(u32::MAX)
                })
                .time_to_idle(Duration::from_secs(settings.cache_idle_seconds.max(1)))
                .build_with_hasher(ahash::RandomState::new());
            Entries { mac, tokens }
        });
        Self { entries, skew: settings.clock_skew_seconds }
    }

    /// Where the cache keeps what `rule` says of `token`; `None` without a cache.
    pub(crate) fn key(&self, rule: &Rule, token: &[u8]) -> Option<CacheKey> {
        let entries = self.entries.as_ref()?;
        // The id is of fixed length: what is tagged can be split in one way only.
        let mut text: SmallVec<[u8; ENTRY_BYTES]> = SmallVec::with_capacity(rule.id.len() + token.len());
        text.extend_from_slice(&rule.id);
        text.extend_from_slice(token);
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = entries.mac.seal_in_place_separate_tag(nonce, Aad::from(&*text), &mut []).ok()?;
        tag.as_ref().try_into().ok()
    }

    /// The entry, if it still counts: `state` is what is held of the rule's issuer now, and its
    /// keys have been found usable.
    pub(crate) fn get(&self, key: &CacheKey, state: &State, now: i64) -> Option<Arc<Verified>> {
        let tokens = &self.entries.as_ref()?.tokens;
        let verified = tokens.get(key)?;
        if self.in_time(&verified, now) && has_key(&verified, state) {
            return Some(verified);
        }
        tokens.invalidate(key);
        None
    }

    pub(crate) fn put(&self, key: CacheKey, verified: &Arc<Verified>) {
        if let Some(entries) = &self.entries {
            entries.tokens.insert(key, Arc::clone(verified));
        }
    }

    /// Entries, about.
    pub(crate) fn len(&self) -> u64 {
        self.entries.as_ref().map_or(0, |entries| entries.tokens.entry_count())
    }

    fn in_time(&self, verified: &Verified, now: i64) -> bool {
        let now = u64::try_from(now).unwrap_or(0);
        let begun = verified.not_before.is_none_or(|nbf| now.saturating_add(self.skew) >= nbf);
        let ended = verified.expires.is_some_and(|exp| token::is_expired(exp, now, self.skew));
        begun && !ended
    }
}

fn random_key() -> Option<LessSafeKey> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    UnboundKey::new(&AES_128_GCM, &bytes).ok().map(LessSafeKey::new)
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
