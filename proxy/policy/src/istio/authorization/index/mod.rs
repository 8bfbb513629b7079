//! Which rules are worth a look: so that ten thousand policies cost what one does.
//!
//! A rule is filed under the values that one of its parts *requires*: a rule of `methods: [POST]`
//! and claim `roles: [Medic]` cannot match a question without that claim value, so it is filed
//! under it and looked at only when the question has it. Filing is by hash; two values that share a
//! hash only cost a look in vain. A rule with no such part is always looked at.
//!
//! The index is conservative: it leaves a rule out only where a predicate that must hold cannot.
//! `tests::properties` compares it with a plain walk over all rules.

mod claims;
mod keys;
mod probe;

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

use ahash::RandomState;
use smallvec::SmallVec;

use self::{keys::Keys, probe::Probes};
use super::{predicate::Predicate, rule::Rule};
use crate::Question;

/// Hashes are already hashes.
#[derive(Debug, Default, Clone)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type Buckets = HashMap<u64, SmallVec<[u32; 4]>, BuildHasherDefault<Identity>>;

/// An index over the rules of one stage, for HTTP requests or for TCP connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    state: Option<RandomState>,
    probes: Probes,
    buckets: Buckets,
    always: Vec<u32>,
}

/// One part of a rule that must hold, as the values it is filed under.
type Requirement = Vec<Keys>;

impl Index {
    /// Files the rules. `distinct`: rules of the same content as an earlier one are left out, since
    /// the earlier one decides.
    pub(super) fn build(rules: &[Rule], tcp: bool, distinct: bool) -> Self {
        let state = RandomState::new();
        let keyring = keys::Keyring { state: &state };
        let usable = |predicate: &&Predicate| !(predicate.negated || tcp && predicate.test.http_only());
        let mut seen = HashSet::new();
        let filed: Vec<(u32, Vec<Requirement>)> = rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| !rule.void_for(tcp))
            .filter(|(_, rule)| !distinct || seen.insert((&rule.from, &rule.to, &rule.when)))
            .filter_map(|(i, rule)| Some((u32::try_from(i).ok()?, i, rule)))
            .map(|(n, _, rule)| (n, requirements(rule, &keyring, &usable)))
            .collect();
        let weights = weigh(&filed);
        let mut index = Self::default();
        for (number, requirements) in filed {
            let best = requirements
                .into_iter()
                .map(|requirement| cheapest(requirement, &weights))
                .min_by_key(|(cost, _)| *cost);
            match best {
                None => index.always.push(number),
                Some((_, chosen)) => index.file(number, chosen),
            }
        }
        index.probes.seal();
        index.state = Some(state);
        index
    }

    fn file(&mut self, number: u32, chosen: Vec<keys::Key>) {
        for key in chosen {
            self.probes.add(key.probe);
            let bucket = self.buckets.entry(key.hash).or_default();
            if bucket.last() != Some(&number) {
                bucket.push(number);
            }
        }
    }

    /// Calls `look` with every rule that may match, in lists that are each in order; `look` gives
    /// false to end the list it is in.
    pub(super) fn candidates(&self, question: &Question<'_>, mut look: impl FnMut(u32) -> bool) {
        for number in &self.always {
            if !look(*number) {
                break;
            }
        }
        let Some(state) = &self.state else { return };
        self.probes.ask(state, question, &mut |hash| {
            for number in self.buckets.get(&hash).into_iter().flatten() {
                if !look(*number) {
                    break;
                }
            }
        });
    }

    /// How many rules a question would have looked at: for tests and benchmarks.
    #[cfg(test)]
    pub(super) fn looked_at(&self, question: &Question<'_>) -> usize {
        let mut count = 0;
        self.candidates(question, |_| {
            count += 1;
            true
        });
        count
    }
}

/// Every part of the rule that must hold and can be filed: each `when`, all of `from`, all of `to`.
fn requirements(
    rule: &Rule,
    keyring: &keys::Keyring<'_>,
    usable: &impl Fn(&&Predicate) -> bool,
) -> Vec<Requirement> {
    let mut out: Vec<Requirement> = rule
        .when
        .iter()
        .filter(usable)
        .filter_map(|predicate| keyring.keys(&predicate.test))
        .map(|keys| vec![keys])
        .collect();
    for clauses in [&rule.from, &rule.to] {
        // Each clause needs a part of its own: any of them may be the one that matches.
        let parts: Option<Vec<Vec<Keys>>> = clauses
            .iter()
            .map(|clause| {
                let parts: Vec<Keys> = clause
                    .iter()
                    .filter(usable)
                    .filter_map(|predicate| keyring.keys(&predicate.test))
                    .collect();
                (!parts.is_empty()).then_some(parts)
            })
            .collect();
        if let Some(parts) = parts.filter(|parts| !parts.is_empty()) {
            // The choice within a clause is the shortest list; between parts, weights decide.
            let widest = parts.iter().map(Vec::len).max().unwrap_or(0);
            out.extend((0..widest).map(|choice| pick(&parts, choice)));
        }
    }
    out
}

/// One part per clause: the `choice`-th, or the last it has.
fn pick(parts: &[Vec<Keys>], choice: usize) -> Requirement {
    parts.iter().filter_map(|clause| clause.get(choice).or_else(|| clause.last())).cloned().collect()
}

/// How many rules ask for each value.
fn weigh(filed: &[(u32, Vec<Requirement>)]) -> HashMap<u64, usize> {
    let mut weights = HashMap::new();
    for (_, requirements) in filed {
        for key in requirements.iter().flatten().flatten() {
            *weights.entry(key.hash).or_insert(0) += 1;
        }
    }
    weights
}

/// The cost of filing under a requirement: the rules that share its values.
fn cheapest(requirement: Requirement, weights: &HashMap<u64, usize>) -> (usize, Vec<keys::Key>) {
    let keys: Vec<_> = requirement.into_iter().flatten().collect();
    let cost = keys.iter().map(|key| weights.get(&key.hash).copied().unwrap_or(0)).sum();
    (cost, keys)
}
