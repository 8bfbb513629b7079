//! The answer: a verdict and, where asked for, every step that led to it (invariant 10).

use std::{fmt, sync::Arc};

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Permitted.
    Allow,
    /// Refused.
    Deny,
}

/// A decision with its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What was decided.
    pub verdict: Verdict,
    /// The rule that decided: `ns[<ns>]-policy[<name>]-rule[<i>]`; `None` where no rule did
    /// (no ALLOW policy at all, or none of them matched).
    pub rule: Option<Arc<str>>,
    /// One line for a log: why.
    pub summary: Summary,
    /// AUDIT rules that matched (`ns[..]-policy[..]-rule[..]`); they never decide.
    pub audited: Vec<Arc<str>>,
    /// What the dry-run policies would have decided, where there are any.
    pub dry_run: Option<DryRun>,
}

/// Why, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summary {
    /// No ALLOW policy selects the workload.
    NoAllowPolicy,
    /// An ALLOW rule matched.
    AllowMatched,
    /// ALLOW policies exist and none matched.
    NoAllowMatched,
    /// A DENY rule matched.
    DenyMatched,
    /// A CUSTOM rule matched; external authorizers do not exist yet, so it denies.
    CustomMatched,
}

/// Outcome of the policies annotated `istio.io/dry-run: "true"`, kept apart from the enforced ones.
#[derive(Debug, Clone, PartialEq)]
pub struct DryRun {
    /// The DENY rule that would have denied.
    pub denied_by: Option<Arc<str>>,
    /// The ALLOW rule that would have allowed; `Some(None)` = ALLOW dry-run policies exist, none matched.
    pub allow: Option<Option<Arc<str>>>,
}

/// One step of an explanation: what was looked at and what was seen. Printing is others' job.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Rule or stage looked at (`ns[..]-policy[..]-rule[..]`, `RequestAuthentication datamesh/jwt-fhir`…).
    pub subject: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Details for a person: `claim realm_access.roles is ["Patient"], wanted one of ["Medic"]`.
    pub detail: String,
    /// The same without what the request said of a person (path, header and claim values, subject):
    /// for logs. `None`: the detail holds nothing of the kind.
    #[serde(skip)]
    pub redacted: Option<String>,
    /// `file:line:column` of the manifest it stands in, if any.
    pub place: Option<String>,
    /// Nesting depth for printing as a tree (0 = stage, 1 = rule, 2 = predicate).
    pub depth: u8,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It matched.
    Matched,
    /// It did not match.
    NotMatched,
    /// It was not looked at (an earlier step had decided).
    Skipped,
    /// A note.
    Info,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &self.detail)
    }
}

impl Step {
    /// The step in the words for logs: nothing in it tells a person from another.
    #[must_use]
    pub fn for_log(&self) -> impl fmt::Display + '_ {
        struct ForLog<'a>(&'a Step);
        impl fmt::Display for ForLog<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write(f, self.0.redacted.as_deref().unwrap_or(&self.0.detail))
            }
        }
        ForLog(self)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, detail: &str) -> fmt::Result {
        let mark = match self.outcome {
            Outcome::Matched => "matched",
            Outcome::NotMatched => "no match",
            Outcome::Skipped => "skipped",
            Outcome::Info => "note",
        };
        for _ in 0..self.depth {
            f.write_str("  ")?;
        }
        write!(f, "{}: {mark}", self.subject)?;
        if !detail.is_empty() {
            write!(f, ": {detail}")?;
        }
        if let Some(place) = &self.place {
            write!(f, " ({place})")?;
        }
        Ok(())
    }
}
