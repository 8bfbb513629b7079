//! A JWT rule made ready, and the table of those in use.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use policy::istio::{JwtRule, KeySource};

use crate::{source::Source, token::plain_audience};

/// Says which rule it is by content, so that verified tokens outlive a reload of equal manifests.
pub(crate) type RuleId = [u8; 32];

/// A rule with everything that can be made ahead.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) manifest: Arc<JwtRule>,
    pub(crate) id: RuleId,
    pub(crate) issuer: Arc<str>,
    /// Audiences in the form in which they are compared.
    pub(crate) audiences: Vec<String>,
    pub(crate) source: Arc<Source>,
}

impl Rule {
    pub(crate) fn new(manifest: Arc<JwtRule>, source: Arc<Source>) -> Self {
        Self {
            id: id(&manifest),
            issuer: Arc::clone(&source.issuer),
            audiences: manifest.audiences.iter().map(|aud| plain_audience(aud).to_owned()).collect(),
            source,
            manifest,
        }
    }
}

/// A hash of everything that a cached verification depends on. Each field goes in with its length,
/// so that no two rules can read as one.
fn id(rule: &JwtRule) -> RuleId {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut field = |bytes: &[u8]| {
        hash.update(&bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    field(rule.issuer.as_bytes());
    let (kind, keys): (&[u8], &str) = match &rule.keys {
        KeySource::Inline(text) => (b"inline", text),
        KeySource::Uri(uri) => (b"uri", uri),
        KeySource::Discovery => (b"discovery", ""),
    };
    field(kind);
    field(keys.as_bytes());
    field(&rule.audiences.len().to_le_bytes());
    for audience in &rule.audiences {
        field(audience.as_bytes());
    }
    field(&rule.space_delimited_claims.len().to_le_bytes());
    for claim in &rule.space_delimited_claims {
        field(claim.as_bytes());
    }
    field(rule.output_payload_to_header.as_ref().map_or("", |name| name.as_str()).as_bytes());
    for (header, path) in &rule.output_claim_to_headers {
        field(header.as_str().as_bytes());
        field(&path.len().to_le_bytes());
        for name in path {
            field(name.as_bytes());
        }
    }
    let mut id = [0; 32];
    for (to, from) in id.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    id
}

/// Ready rules, found by the manifest rule's address: the table holds that rule, so its address
/// cannot become another's. Readers take no lock.
#[derive(Debug, Default)]
pub(crate) struct RuleTable {
    rules: ArcSwap<HashMap<usize, Arc<Rule>, ahash::RandomState>>,
    writer: Mutex<()>,
}

impl RuleTable {
    pub(crate) fn get(&self, manifest: &Arc<JwtRule>) -> Option<Arc<Rule>> {
        self.rules.load().get(&address(manifest)).cloned()
    }

    /// Adds a rule that no snapshot has announced yet.
    pub(crate) fn add(&self, rule: &Arc<Rule>) {
        let _one = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rules = HashMap::clone(&self.rules.load());
        rules.insert(address(&rule.manifest), Arc::clone(rule));
        self.rules.store(Arc::new(rules));
    }

    /// Replaces all.
    pub(crate) fn replace(&self, rules: Vec<Arc<Rule>>) {
        let _one = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = rules.into_iter().map(|rule| (address(&rule.manifest), rule)).collect();
        self.rules.store(Arc::new(rules));
    }
}

fn address(rule: &Arc<JwtRule>) -> usize {
    Arc::as_ptr(rule) as usize
}
