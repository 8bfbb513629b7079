//! The steps of an authentication, kept only where somebody asked: same code, explained.
//! A token's text never enters a step.

use policy::{Outcome, Step};

/// Collects steps, or nothing at no cost.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    steps: Option<Vec<Step>>,
}

impl Trace {
    pub(crate) fn on() -> Self {
        Self { steps: Some(Vec::new()) }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.steps.is_some()
    }

    /// Adds a step; `tell` gives subject, detail and place, and is called only when tracing is on.
    pub(crate) fn step(
        &mut self,
        depth: u8,
        outcome: Outcome,
        tell: impl FnOnce() -> (String, String, Option<String>),
    ) {
        if let Some(steps) = &mut self.steps {
            let (subject, detail, place) = tell();
            steps.push(Step { subject, outcome, detail, redacted: None, place, depth });
        }
    }

    /// Adds a predicate of a rule.
    pub(crate) fn predicate(&mut self, subject: &str, holds: bool, detail: impl FnOnce() -> String) {
        let outcome = if holds { Outcome::Matched } else { Outcome::NotMatched };
        self.step(2, outcome, || (subject.to_owned(), detail(), None));
    }

    pub(crate) fn into_steps(self) -> Vec<Step> {
        self.steps.unwrap_or_default()
    }
}
