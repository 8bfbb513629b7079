//! Which steps of a decision are kept.

use policy::Step;

/// Steps of a decision, as far as somebody wants them (invariant 10).
#[derive(Debug)]
pub(crate) struct Trace {
    wanted: Wanted,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Denials,
    Everything,
}

impl Trace {
    /// Live: nothing, or the reasons of denials where an operator keeps them.
    pub(crate) fn live(keep_reasons: bool) -> Self {
        let wanted = if keep_reasons { Wanted::Denials } else { Wanted::Nothing };
        Self { wanted, steps: Vec::new() }
    }

    /// `explain` and `test`: everything.
    pub(crate) fn everything() -> Self {
        Self { wanted: Wanted::Everything, steps: Vec::new() }
    }

    pub(crate) fn always(&self) -> bool {
        self.wanted == Wanted::Everything
    }

    pub(crate) fn on_denial(&self) -> bool {
        self.wanted == Wanted::Denials
    }

    pub(crate) fn extend(&mut self, steps: Vec<Step>) {
        self.steps.extend(steps);
    }

    /// A step of the rooms themselves; made only where everything is wanted.
    pub(crate) fn note(&mut self, step: impl FnOnce() -> Step) {
        if self.always() {
            self.steps.push(step());
        }
    }

    pub(crate) fn into_steps(self) -> Vec<Step> {
        self.steps
    }
}
