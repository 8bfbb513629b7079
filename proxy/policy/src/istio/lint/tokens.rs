//! Rules about tokens, against the tokens that workloads take.

use std::sync::Arc;

use super::{At, Mesh, values::Value};
use crate::{
    Problem, WorkloadName,
    istio::{JwtRule, RequestAuthentication, WorkloadFacts, authorization::Action},
    manifest::codes,
};

/// Rules that need a token where none, or none of that issuer, is taken.
pub(super) fn lint_policy(at: &At<'_>, values: &[Value<'_>]) -> Vec<Problem> {
    let Some(first) = values.iter().find(|value| value.wants_token()) else { return Vec::new() };
    let places = at.mesh.rules_at(at.policy);
    let mut problems = Vec::new();
    if let Some((workload, _)) = places.iter().find(|(_, rules)| rules.is_empty()) {
        let text = format!(
            "no RequestAuthentication takes tokens {}: no request there ever has a verified token",
            at_workload(*workload)
        );
        problems.push(at.warn(codes::NO_REQUEST_AUTHENTICATION, first, text));
    }
    for value in values {
        let Some(issuer) = issuer_of(value) else { continue };
        let unknown = |rules: &[Arc<JwtRule>]| {
            !rules.is_empty() && rules.iter().all(|rule| !rule.issuer.is_empty() && rule.issuer != issuer)
        };
        let Some((workload, rules)) = places.iter().find(|(_, rules)| unknown(rules)) else { continue };
        let known: Vec<_> = rules.iter().map(|rule| rule.issuer.as_str()).collect();
        let text = format!(
            "no RequestAuthentication takes tokens of issuer `{issuer}` {}; {}",
            at_workload(*workload),
            nearest(issuer, &known)
        );
        problems.push(at.warn(codes::UNKNOWN_ISSUER, value, text));
    }
    problems
}

fn at_workload(workload: Option<&WorkloadName>) -> String {
    workload.map_or_else(|| "here".to_owned(), |name| format!("at workload `{name}`"))
}

/// The one issuer that a value names in full, if it does.
fn issuer_of<'a>(value: &Value<'a>) -> Option<&'a str> {
    match value.attribute {
        "requestPrincipals" | "request.auth.principal" => {
            let (issuer, _) = value.text.rsplit_once('/')?;
            (!issuer.is_empty() && !issuer.contains('*')).then_some(issuer)
        }
        "request.auth.claims[iss]" => Some(value.text).filter(|text| !text.contains('*')),
        _ => None,
    }
}

fn nearest(issuer: &str, known: &[&str]) -> String {
    let bare = |text: &str| {
        let text = text.trim_end_matches('/').to_ascii_lowercase();
        text.split_once("://").map_or(text.clone(), |(_, rest)| rest.to_owned())
    };
    match known.iter().find(|known| bare(known) == bare(issuer)) {
        Some(near) => format!("did you mean `{near}`? (issuers are compared letter by letter)"),
        None => {
            let mut shown: Vec<_> = known.iter().take(5).map(|one| format!("`{one}`")).collect();
            shown.dedup();
            format!("it takes {}", shown.join(", "))
        }
    }
}

/// RequestAuthentications at workloads where nothing asks for the token.
pub(super) fn lint_requests(mesh: &Mesh<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for request in mesh.policies.requests.all().filter(|one| !one.rules.is_empty()) {
        let open = if mesh.workloads.is_empty() {
            let (own, root) = (&request.namespace, &mesh.config.root_namespace);
            let asked = |namespace: &str| own == root || namespace == own || namespace == root;
            let any = mesh.policies.authorizations.all().any(|one| asked(&one.namespace));
            (!any).then_some(None)
        } else {
            mesh.selected(request)
                .find(|(_, workload)| !asks_for_token(mesh, workload))
                .map(|(_, workload)| Some(&workload.name))
        };
        if let Some(workload) = open {
            problems.push(token_not_required(request, workload));
        }
    }
    problems
}

fn token_not_required(request: &RequestAuthentication, workload: Option<&WorkloadName>) -> Problem {
    let text = format!(
        "a request without a token passes {}: a RequestAuthentication refuses bad tokens only; add an \
         AuthorizationPolicy that wants `requestPrincipals`",
        at_workload(workload)
    );
    let object = format!("RequestAuthentication {}/{}", request.namespace, request.name);
    Problem::warning(codes::TOKEN_NOT_REQUIRED, request.place.clone(), "spec", text).of(object)
}

/// Whether an enforced policy at the workload looks at tokens, or lets nothing pass at all.
fn asks_for_token(mesh: &Mesh<'_>, workload: &WorkloadFacts) -> bool {
    let enforced =
        mesh.policies.authorizations.selected(mesh.config, workload).filter(|one| {
            !one.dry_run && matches!(one.action, Action::Allow | Action::Deny | Action::Custom)
        });
    let (mut allows, mut open) = (false, false);
    for policy in enforced {
        let object = mesh.object("AuthorizationPolicy", policy);
        let values = object.map(super::values::read).unwrap_or_default();
        if values.iter().any(Value::wants_token) {
            return true;
        }
        if policy.action == Action::Allow {
            allows = true;
            open |= !policy.rules.is_empty();
        }
    }
    allows && !open
}
