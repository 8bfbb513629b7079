//! Paths that miss their sibling with, or without, the trailing slash.

use super::{At, values::Value};
use crate::{Problem, istio::authorization::Action, manifest::codes};

pub(super) fn lint(at: &At<'_>, values: &[Value<'_>]) -> Vec<Problem> {
    let paths: Vec<_> = values.iter().filter(|one| one.attribute == "paths").collect();
    let covered =
        |rule: usize, other: &str| paths.iter().any(|path| path.rule == rule && matches(path.text, other));
    let mut problems = Vec::new();
    for path in &paths {
        if path.text.contains('*') || !path.text.starts_with('/') || path.text.contains('{') {
            continue;
        }
        // What is not named is refused by ALLOW and passes DENY; `notPaths` turn that round.
        let refuses = matches!(at.policy.action, Action::Deny | Action::Custom) != path.negated;
        let text = path.text;
        match text.strip_suffix('/') {
            Some(bare) if !bare.is_empty() && !covered(path.rule, bare) => {
                let message = format!("`{text}` does not match `{bare}`; name both if both are meant");
                problems.push(at.warn(codes::TRAILING_SLASH, path, message));
            }
            None if refuses && !covered(path.rule, &format!("{text}/")) => {
                let message = format!(
                    "`{text}` does not match `{text}/`, which many servers treat alike and this rule \
                     then misses; add `{text}/` or `{text}/*`"
                );
                problems.push(at.warn(codes::TRAILING_SLASH, path, message));
            }
            _ => {}
        }
    }
    problems
}

/// Exact, prefix and suffix, as paths are compared; templates are taken for no match.
fn matches(pattern: &str, path: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => path.ends_with(suffix),
        (None, Some(prefix)) => path.starts_with(prefix),
        (None, None) => pattern == path,
    }
}
