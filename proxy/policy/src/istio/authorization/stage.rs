//! The rules of one action, in the order in which they are named as the one that decided.

use std::sync::Arc;

use super::{AuthorizationPolicy, compile, index::Index, rule::Rule, spec::Action, tracer::Tracer};
use crate::{Outcome, Question, istio::MeshConfig};

/// All rules of one action.
#[derive(Debug, Clone, Default)]
pub(super) struct Stage {
    /// Policies, those without rules included.
    policies: usize,
    rules: Vec<Rule>,
    http: Index,
    tcp: Index,
}

impl Stage {
    pub(super) fn new<'a>(
        action: Action,
        policies: impl Iterator<Item = &'a AuthorizationPolicy>,
        mesh: &MeshConfig,
    ) -> Self {
        let mut count = 0;
        let mut rules: Vec<(bool, Rule)> = policies
            .inspect(|_| count += 1)
            .flat_map(|policy| {
                let in_root = policy.namespace == mesh.root_namespace;
                // Istio asks the root namespace's DENY rules in a filter of their own, first.
                let later = !(action == Action::Deny && in_root);
                compile::rules(policy, mesh).into_iter().map(move |rule| (later, rule))
            })
            .collect();
        // Envoy keeps rules by name: of several that match, the first by name is reported.
        rules.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
        let rules: Vec<Rule> = rules.into_iter().map(|(_, rule)| rule).collect();
        // Every matching AUDIT rule is reported; elsewhere the first of its kind is enough.
        let distinct = action != Action::Audit;
        Self {
            policies: count,
            http: Index::build(&rules, false, distinct),
            tcp: Index::build(&rules, true, distinct),
            rules,
        }
    }

    /// Whether there is no policy of the action at all.
    pub(super) fn is_empty(&self) -> bool {
        self.policies == 0
    }

    /// The first rule that matches.
    pub(super) fn find<T: Tracer>(
        &self,
        name: &'static str,
        question: &Question<'_>,
        tracer: &mut T,
    ) -> Option<Arc<str>> {
        if self.is_empty() {
            return None;
        }
        if !T::LISTENS {
            return self.first(question, tracer).map(|rule| Arc::clone(&rule.id));
        }
        let step = tracer.open(0, || name.to_owned(), None);
        let mut found: Option<&Rule> = None;
        for rule in &self.rules {
            if found.is_some() {
                let skipped = tracer.open(1, || rule.id.to_string(), rule.place.as_ref());
                tracer.close(skipped, Outcome::Skipped, || "an earlier rule decided".to_owned());
            } else if rule.matches(question, tracer) {
                found = Some(rule);
            }
        }
        let outcome = if found.is_some() { Outcome::Matched } else { Outcome::NotMatched };
        tracer.close(step, outcome, || self.sizes());
        found.map(|rule| Arc::clone(&rule.id))
    }

    fn first<T: Tracer>(&self, question: &Question<'_>, tracer: &mut T) -> Option<&Rule> {
        let index = if question.request.is_some() { &self.http } else { &self.tcp };
        let mut best: Option<(u32, &Rule)> = None;
        index.candidates(question, |number| {
            if best.is_some_and(|(best, _)| best <= number) {
                return false;
            }
            let rule = usize::try_from(number).ok().and_then(|at| self.rules.get(at));
            match rule {
                Some(rule) if rule.matches(question, tracer) => {
                    best = Some((number, rule));
                    false
                }
                _ => true,
            }
        });
        best.map(|(_, rule)| rule)
    }

    /// Every rule that matches, in order.
    pub(super) fn find_all<T: Tracer>(
        &self,
        name: &'static str,
        question: &Question<'_>,
        tracer: &mut T,
        found: &mut Vec<Arc<str>>,
    ) {
        if self.is_empty() {
            return;
        }
        let step = tracer.open(0, || name.to_owned(), None);
        let mut numbers = Vec::new();
        if T::LISTENS {
            let matching = self.rules.iter().filter(|rule| rule.matches(question, tracer));
            found.extend(matching.map(|rule| Arc::clone(&rule.id)));
        } else {
            let index = if question.request.is_some() { &self.http } else { &self.tcp };
            index.candidates(question, |number| {
                numbers.push(number);
                true
            });
            numbers.sort_unstable();
            numbers.dedup();
            let candidates = numbers
                .into_iter()
                .filter_map(|number| self.rules.get(usize::try_from(number).ok()?))
                .filter(|rule| rule.matches(question, tracer));
            found.extend(candidates.map(|rule| Arc::clone(&rule.id)));
        }
        let outcome = if found.is_empty() { Outcome::NotMatched } else { Outcome::Matched };
        tracer.close(step, outcome, || self.sizes());
    }

    /// Whether a rule could match some request of a caller.
    pub(super) fn may_match(&self, question: &Question<'_>) -> bool {
        self.rules.iter().any(|rule| rule.may_match(question))
    }

    /// Whether a rule matches every request of a caller.
    pub(super) fn must_match(&self, question: &Question<'_>) -> bool {
        self.rules.iter().any(|rule| rule.must_match(question))
    }

    /// Tells that an earlier stage decided.
    pub(super) fn skip<T: Tracer>(&self, name: &'static str, tracer: &mut T) {
        if !self.is_empty() {
            let step = tracer.open(0, || name.to_owned(), None);
            tracer.close(step, Outcome::Skipped, || "an earlier stage decided".to_owned());
        }
    }

    fn sizes(&self) -> String {
        let noun =
            |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        let (policies, rules) =
            (noun(self.policies, "policy", "policies"), noun(self.rules.len(), "rule", "rules"));
        format!("{policies}, {rules}")
    }

    /// How many rules a question has looked at: the index's worth.
    #[cfg(test)]
    pub(super) fn looked_at(&self, question: &Question<'_>) -> usize {
        let index = if question.request.is_some() { &self.http } else { &self.tcp };
        index.looked_at(question)
    }

    /// The plain walk that the index must agree with.
    #[cfg(test)]
    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}
