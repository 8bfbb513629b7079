//! What happened, in numbers: for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::reason::RejectionReason;

/// Counters of the whole room.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) verified: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) without_token: AtomicU64,
    pub(crate) preflights: AtomicU64,
    rejections: Vec<AtomicU64>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            verified: AtomicU64::new(0),
            cache_hits: AtomicU64::new(0),
            without_token: AtomicU64::new(0),
            preflights: AtomicU64::new(0),
            rejections: RejectionReason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Counters {
    pub(crate) fn rejected(&self, reason: RejectionReason) {
        if let Some(counter) = self.rejections.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn snapshot(&self, cached_tokens: u64) -> CountersSnapshot {
        let rejections = RejectionReason::ALL.iter().zip(&self.rejections);
        CountersSnapshot {
            tokens_verified: get(&self.verified),
            cache_hits: get(&self.cache_hits),
            requests_without_token: get(&self.without_token),
            preflights: get(&self.preflights),
            cached_tokens,
            rejections: rejections.map(|(reason, count)| (reason.name(), get(count))).collect(),
        }
    }
}

/// Counters of the whole room at a moment; all but `cached_tokens` only grow.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CountersSnapshot {
    /// Tokens whose signature was verified (not those found in the cache).
    pub tokens_verified: u64,
    /// Tokens found in the cache of verified tokens.
    pub cache_hits: u64,
    /// Requests without a token that workloads with rules let through to policy.
    pub requests_without_token: u64,
    /// CORS preflights let through without a look at tokens.
    pub preflights: u64,
    /// Verified tokens in the cache now.
    pub cached_tokens: u64,
    /// Requests refused, by [`RejectionReason::name`]; every reason is there.
    pub rejections: Vec<(&'static str, u64)>,
}

/// Counters of one key source.
#[derive(Debug, Default)]
pub(crate) struct SourceCounters {
    pub(crate) fetched: AtomicU64,
    pub(crate) not_modified: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) kid_refetches: AtomicU64,
    pub(crate) refetches_suppressed: AtomicU64,
}

impl SourceCounters {
    pub(crate) fn snapshot(&self) -> FetchCounters {
        FetchCounters {
            fetched: get(&self.fetched),
            not_modified: get(&self.not_modified),
            failed: get(&self.failed),
            kid_refetches: get(&self.kid_refetches),
            refetches_suppressed: get(&self.refetches_suppressed),
        }
    }
}

/// Fetches of one issuer's keys, by outcome; they only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchCounters {
    /// Keys fetched.
    pub fetched: u64,
    /// Confirmed by 304.
    pub not_modified: u64,
    /// Failed: no connection, no time, another status, a document that is refused.
    pub failed: u64,
    /// Fetches asked for because of an unknown `kid`.
    pub kid_refetches: u64,
    /// Tokens with an unknown `kid` for which the provider was not asked.
    pub refetches_suppressed: u64,
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
