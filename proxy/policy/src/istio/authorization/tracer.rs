//! Who listens to an evaluation. Deciding and explaining are one code: this is the difference.

use crate::{Outcome, Place, Step};

/// A listener. Everything costly is handed over as a closure, so that silence costs nothing.
pub(super) trait Tracer {
    /// Whether anybody listens: then nothing is cut short.
    const LISTENS: bool;
    /// A step begins; the number is for [`Tracer::close`].
    fn open(&mut self, depth: u8, subject: impl FnOnce() -> String, place: Option<&Place>) -> usize;
    /// It ended.
    fn close(&mut self, step: usize, outcome: Outcome, detail: impl FnOnce() -> String);
    /// A step that ended has these words for logs, if its detail is none ([`Step::redacted`]).
    fn redact(&mut self, step: usize, redacted: impl FnOnce() -> Option<String>);
}

/// Nobody.
pub(super) struct Silent;

impl Tracer for Silent {
    const LISTENS: bool = false;
    fn open(&mut self, _: u8, _: impl FnOnce() -> String, _: Option<&Place>) -> usize {
        0
    }
    fn close(&mut self, _: usize, _: Outcome, _: impl FnOnce() -> String) {}
    fn redact(&mut self, _: usize, _: impl FnOnce() -> Option<String>) {}
}

/// Keeps every step.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) steps: Vec<Step>,
}

impl Tracer for Recorder {
    const LISTENS: bool = true;

    fn open(&mut self, depth: u8, subject: impl FnOnce() -> String, place: Option<&Place>) -> usize {
        self.steps.push(Step {
            subject: subject(),
            outcome: Outcome::Info,
            detail: String::new(),
            redacted: None,
            place: place.map(ToString::to_string),
            depth,
        });
        self.steps.len() - 1
    }

    fn close(&mut self, step: usize, outcome: Outcome, detail: impl FnOnce() -> String) {
        if let Some(step) = self.steps.get_mut(step) {
            step.outcome = outcome;
            step.detail = detail();
        }
    }

    fn redact(&mut self, step: usize, redacted: impl FnOnce() -> Option<String>) {
        if let Some(step) = self.steps.get_mut(step) {
            step.redacted = redacted();
        }
    }
}
