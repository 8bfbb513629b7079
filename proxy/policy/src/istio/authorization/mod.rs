//! AuthorizationPolicy: what it says, what of it is wrong, and what it decides.
//!
//! Source: istio.io/latest/docs/reference/config/security/authorization-policy.
//!
//! The order is CUSTOM, DENY, ALLOW. CUSTOM and DENY refuse what they match; with no ALLOW policy
//! at all the rest passes; else an ALLOW rule must match. AUDIT rules only mark. Policies annotated
//! `istio.io/dry-run` are evaluated apart and decide nothing.

mod codes;
mod compile;
mod index;
mod key;
mod lint;
mod predicate;
mod rule;
mod spec;
mod stage;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod tracer;
mod validate;
mod words;

use std::sync::Arc;

pub use self::spec::{Action, RuleSpec};
use self::{
    spec::Spec,
    stage::Stage,
    tracer::{Recorder, Silent, Tracer},
};
use super::{MeshConfig, selection::Target};
use crate::{
    Decision, Object, Outcome, Place, Problem, Question, Step, Verdict,
    decision::{DryRun, Summary},
    manifest::Located,
};

/// The annotation that keeps a policy from being enforced.
const DRY_RUN: &str = "istio.io/dry-run";

/// One AuthorizationPolicy, checked.
#[derive(Debug, Clone)]
pub struct AuthorizationPolicy {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`; `default` where none is given.
    pub namespace: String,
    /// The workloads it holds for.
    pub target: Target,
    /// `action`; ALLOW where none is given.
    pub action: Action,
    /// `provider.name`, with CUSTOM.
    pub provider: Option<String>,
    /// `rules`, in order.
    pub rules: Vec<Located<RuleSpec>>,
    /// Annotated `istio.io/dry-run: "true"`.
    pub dry_run: bool,
    /// Where the object begins.
    pub place: Place,
}

impl AuthorizationPolicy {
    /// Reads one object. There is a policy exactly when no problem is an error.
    #[must_use]
    pub fn read(object: &Object) -> (Option<Self>, Vec<Problem>) {
        let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
        let name = &object.metadata.name;
        let title = format!("{} {namespace}/{name}", object.kind);
        let mut problems = Vec::new();
        let policy = match object.field::<Spec>("spec") {
            Err(problem) => {
                problems.push(problem);
                None
            }
            Ok(spec) => {
                let mut spec = spec.unwrap_or_default();
                let about = |code, text: &str| Problem::error(code, object.place.clone(), "spec", text);
                validate::check(&spec, about, &mut problems);
                let target = Target::read(spec.target(), &mut problems);
                let dry_run = read_dry_run(object, &mut problems);
                Some(Self {
                    name: name.clone(),
                    namespace: namespace.to_owned(),
                    target,
                    action: spec.action.map(|action| action.value).unwrap_or_default(),
                    provider: spec.provider.map(|provider| provider.value.name),
                    rules: spec.rules.map(|rules| rules.value).unwrap_or_default(),
                    dry_run,
                    place: object.place.clone(),
                })
            }
        };
        let bad = problems.iter().any(Problem::is_error);
        let problems = problems.into_iter().map(|problem| problem.of(title.clone())).collect();
        (policy.filter(|_| !bad), problems)
    }

    /// Rules and values that cannot match or do not do what they look like; all are warnings.
    #[must_use]
    pub fn lint(&self, mesh: &MeshConfig) -> Vec<Problem> {
        lint::lint(self, mesh)
    }
}

/// `istio.io/dry-run`, read as Go reads booleans. What cannot be read leaves the policy enforced.
fn read_dry_run(object: &Object, problems: &mut Vec<Problem>) -> bool {
    let Some(value) = object.metadata.annotations.get(DRY_RUN) else { return false };
    match value.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => {
            let text = format!("`{value}` is neither true nor false: the policy is enforced");
            let field = format!("metadata.annotations[{DRY_RUN}]");
            problems.push(Problem::warning(codes::DRY_RUN_VALUE, object.place.clone(), field, text));
            false
        }
    }
}

/// Lints all policies.
#[must_use]
pub fn lint<'a>(policies: impl Iterator<Item = &'a AuthorizationPolicy>, mesh: &MeshConfig) -> Vec<Problem> {
    policies.flat_map(|policy| policy.lint(mesh)).collect()
}

/// The AuthorizationPolicies that hold for one workload, compiled. Immutable.
#[derive(Debug, Clone, Default)]
pub struct Authorization {
    custom: Stage,
    audit: Stage,
    deny: Stage,
    allow: Stage,
    dry_deny: Stage,
    dry_allow: Stage,
}

impl Authorization {
    /// Compiles policies that have already been selected for the workload.
    #[must_use]
    pub fn compile<'a>(policies: impl Iterator<Item = &'a AuthorizationPolicy>, mesh: &MeshConfig) -> Self {
        let policies: Vec<_> = policies.collect();
        let stage = |action, dry_run| {
            let chosen = policies.iter().filter(|one| one.action == action && one.dry_run == dry_run);
            Stage::new(action, chosen.copied(), mesh)
        };
        Self {
            custom: stage(Action::Custom, false),
            audit: stage(Action::Audit, false),
            deny: stage(Action::Deny, false),
            allow: stage(Action::Allow, false),
            dry_deny: stage(Action::Deny, true),
            dry_allow: stage(Action::Allow, true),
        }
    }

    /// Decides: the hot path. Nothing is allocated unless an AUDIT policy is there.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        self.run(question, &mut Silent)
    }

    /// Decides by the same code, looking at every rule, and keeps every step.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> (Decision, Vec<Step>) {
        let mut recorder = Recorder::default();
        let decision = self.run(question, &mut recorder);
        (decision, recorder.steps)
    }

    /// Whether any request of this caller could pass, whatever it says: asked of a connection, before its
    /// first request. In doubt it could. Looks at every rule.
    #[must_use]
    pub fn may_permit(&self, question: &Question<'_>) -> bool {
        let refused = self.custom.must_match(question) || self.deny.must_match(question);
        !refused && (self.allow.is_empty() || self.allow.may_match(question))
    }

    fn run<T: Tracer>(&self, question: &Question<'_>, tracer: &mut T) -> Decision {
        let mut audited = Vec::new();
        let (verdict, rule, summary) = self.enforce(question, tracer, &mut audited);
        let dry_run = self.dry_run(question, tracer);
        Decision { verdict, rule, summary, audited, dry_run }
    }

    fn enforce<T: Tracer>(
        &self,
        question: &Question<'_>,
        tracer: &mut T,
        audited: &mut Vec<Arc<str>>,
    ) -> (Verdict, Option<Arc<str>>, Summary) {
        if let Some(rule) = self.custom.find("CUSTOM", question, tracer) {
            for (name, stage) in [("AUDIT", &self.audit), ("DENY", &self.deny), ("ALLOW", &self.allow)] {
                stage.skip(name, tracer);
            }
            return (Verdict::Deny, Some(rule), Summary::CustomMatched);
        }
        self.audit.find_all("AUDIT", question, tracer, audited);
        if let Some(rule) = self.deny.find("DENY", question, tracer) {
            self.allow.skip("ALLOW", tracer);
            return (Verdict::Deny, Some(rule), Summary::DenyMatched);
        }
        if self.allow.is_empty() {
            let step = tracer.open(0, || "ALLOW".to_owned(), None);
            tracer.close(step, Outcome::Info, || {
                "no ALLOW policy selects the workload, so what nothing denied passes".to_owned()
            });
            return (Verdict::Allow, None, Summary::NoAllowPolicy);
        }
        match self.allow.find("ALLOW", question, tracer) {
            Some(rule) => (Verdict::Allow, Some(rule), Summary::AllowMatched),
            None => (Verdict::Deny, None, Summary::NoAllowMatched),
        }
    }

    fn dry_run<T: Tracer>(&self, question: &Question<'_>, tracer: &mut T) -> Option<DryRun> {
        if self.dry_deny.is_empty() && self.dry_allow.is_empty() {
            return None;
        }
        let denied_by = self.dry_deny.find("dry-run DENY", question, tracer);
        let allow =
            (!self.dry_allow.is_empty()).then(|| self.dry_allow.find("dry-run ALLOW", question, tracer));
        Some(DryRun { denied_by, allow })
    }
}
