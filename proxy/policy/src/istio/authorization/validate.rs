//! What Istio's admission refuses, we refuse, and with its reasons.
//!
//! Source: istio/istio `pkg/config/validation` (ValidateAuthorizationPolicy), `pkg/config/security`.

use super::{
    codes,
    key::{self, Key},
    predicate::parse_net,
    spec::{Action, Condition, Kind, List, RuleSpec, Spec},
    template::{Template, is_template},
};
use crate::{Problem, manifest::Located};

/// Most values of one `serviceAccounts` list.
const MAX_SERVICE_ACCOUNTS: usize = 16;
/// Longest `serviceAccounts` value.
const MAX_SERVICE_ACCOUNT_LEN: usize = 320;

/// Checks a whole spec; `about` is asked for a problem that concerns the whole of it.
pub(super) fn check(spec: &Spec, about: impl Fn(&'static str, &str) -> Problem, problems: &mut Vec<Problem>) {
    let action = spec.action.as_ref().map_or(Action::Allow, |action| action.value);
    let rules = spec.rules.as_ref().map_or(&[][..], |rules| rules.as_slice());
    if rules.is_empty() && action != Action::Allow {
        let text = format!(
            "{} without `rules` would never match; add an empty rule `{{}}` to match every request",
            action.name()
        );
        problems.push(about(codes::NO_RULES, &text));
    }
    match (&spec.provider, action) {
        (Some(provider), Action::Custom) if provider.name.is_empty() => {
            problems.push(provider.error(codes::PROVIDER, "`provider.name` must not be empty"));
        }
        (None, Action::Custom) => {
            problems.push(about(codes::PROVIDER, "CUSTOM needs `provider.name`"));
        }
        (Some(provider), Action::Allow | Action::Deny | Action::Audit) => {
            let text = format!("`provider` goes with CUSTOM only, not with {}", action.name());
            problems.push(provider.error(codes::PROVIDER, text));
        }
        _ => {}
    }
    for rule in rules {
        check_rule(rule, problems);
        if action == Action::Custom {
            check_custom(rule, problems);
        }
    }
}

fn check_rule(rule: &RuleSpec, problems: &mut Vec<Problem>) {
    if let Some(from) = &rule.from {
        if from.is_empty() {
            problems.push(from.error(codes::EMPTY, "`from` must not be empty; leave it out"));
        }
        for one in from.iter() {
            let Some(source) = &one.source else {
                problems.push(one.error(codes::EMPTY, "`source` is missing"));
                continue;
            };
            check_lists(&source.lists(), source, "source", problems);
            check_accounts_alone(source, problems);
        }
    }
    if let Some(to) = &rule.to {
        if to.is_empty() {
            problems.push(to.error(codes::EMPTY, "`to` must not be empty; leave it out"));
        }
        for one in to.iter() {
            let Some(operation) = &one.operation else {
                problems.push(one.error(codes::EMPTY, "`operation` is missing"));
                continue;
            };
            check_lists(&operation.lists(), operation, "operation", problems);
        }
    }
    for condition in rule.when.iter().flat_map(|when| when.iter()) {
        check_condition(condition, problems);
    }
}

fn check_lists<T>(lists: &[List<'_>], of: &Located<T>, name: &str, problems: &mut Vec<Problem>) {
    if lists.iter().all(|list| list.values.is_empty()) {
        let text = format!("`{name}` must not be empty: it would match everything");
        problems.push(of.error(codes::EMPTY, text));
    }
    for list in lists {
        if list.values.is_empty() {
            let text = "an empty list counts as absent: it narrows nothing";
            problems.push(list.values.warning(codes::EMPTY, text));
        }
        check_values(list.kind, list.values, problems);
    }
}

fn check_values(kind: Kind, values: &Located<Vec<Located<String>>>, problems: &mut Vec<Problem>) {
    if kind == Kind::ServiceAccounts && values.len() > MAX_SERVICE_ACCOUNTS {
        let text = format!("{} values, at most {MAX_SERVICE_ACCOUNTS}", values.len());
        problems.push(values.error(codes::TOO_MANY, text));
    }
    for value in values.iter() {
        if value.is_empty() {
            problems.push(value.error(codes::EMPTY, "an empty value is not allowed"));
        } else if let Err(text) = check_value(kind, value) {
            problems.push(value.error(codes::INVALID_VALUE, text));
        }
    }
}

/// One value, by what it is about.
fn check_value(kind: Kind, value: &str) -> Result<(), String> {
    match kind {
        Kind::SourceIp | Kind::RemoteIp => match parse_net(value) {
            Some(_) => Ok(()),
            None => Err(format!("bad IP address or CIDR range ({value})")),
        },
        Kind::Ports => match parse_port(value) {
            Some(_) => Ok(()),
            None => Err(format!("bad port ({value}): 0 to 65535")),
        },
        Kind::Paths => check_path(value),
        Kind::ServiceAccounts => check_service_account(value),
        Kind::Principals
        | Kind::RequestPrincipals
        | Kind::Namespaces
        | Kind::TrustDomains
        | Kind::Hosts
        | Kind::Methods => Ok(()),
    }
}

/// A port as Istio reads it: decimal digits only.
pub(super) fn parse_port(value: &str) -> Option<u16> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| value.parse().ok()).flatten()
}

fn check_path(value: &str) -> Result<(), String> {
    if is_template(value) {
        return Template::parse(value).map(drop).map_err(|why| format!("{value}: {why}"));
    }
    if value.contains(['{', '}']) {
        return Err(format!("{value}: braces stand only in path templates, `{{*}}` and `{{**}}`"));
    }
    Ok(())
}

fn check_service_account(value: &str) -> Result<(), String> {
    if value.contains('*') {
        return Err(format!("{value}: no wildcards in service accounts"));
    }
    if value.len() > MAX_SERVICE_ACCOUNT_LEN {
        return Err(format!("longer than {MAX_SERVICE_ACCOUNT_LEN} characters"));
    }
    let parts: Vec<&str> = value.split('/').collect();
    if parts.len() > 2 || parts.iter().any(|part| part.is_empty()) {
        return Err(format!("{value}: expected `serviceAccount` or `namespace/serviceAccount`"));
    }
    Ok(())
}

fn check_accounts_alone(source: &Located<super::spec::SourceSpec>, problems: &mut Vec<Problem>) {
    let given = |kinds: &[Kind]| {
        source.lists().iter().any(|list| kinds.contains(&list.kind) && !list.values.is_empty())
    };
    if given(&[Kind::ServiceAccounts]) && given(&[Kind::Principals, Kind::Namespaces]) {
        let text = "serviceAccounts cannot be set together with principals or namespaces";
        problems.push(source.error(codes::EXCLUSIVE, text));
    }
}

fn check_condition(condition: &Located<Condition>, problems: &mut Vec<Problem>) {
    let Some(key) = condition.key.as_ref().filter(|key| !key.is_empty()) else {
        problems.push(condition.error(codes::KEY, "`key` must not be empty"));
        return;
    };
    let parsed = match key::parse(key) {
        Ok(parsed) => parsed,
        Err(text) => {
            problems.push(key.error(codes::KEY, text));
            return;
        }
    };
    let given: Vec<_> = [&condition.values, &condition.not_values].into_iter().flatten().collect();
    if given.iter().all(|values| values.is_empty()) {
        let text = format!("at least one of `values` and `notValues` must be set for {}", key.value);
        problems.push(condition.error(codes::EMPTY, text));
    }
    for values in given {
        // Where the key needs no form, only empty values are wrong.
        let kind = match &parsed {
            Key::Attribute(kind) => *kind,
            Key::DestinationIp => Kind::SourceIp,
            _ => Kind::Hosts,
        };
        check_values(kind, values, problems);
    }
}

/// What CUSTOM may not use: Istio evaluates it before any identity is known.
fn check_custom(rule: &RuleSpec, problems: &mut Vec<Problem>) {
    let sources = rule.from.iter().flat_map(|from| from.iter()).filter_map(|one| one.source.as_ref());
    for list in sources.flat_map(|source| source.lists()) {
        let identity = matches!(
            list.kind,
            Kind::Principals | Kind::RequestPrincipals | Kind::Namespaces | Kind::ServiceAccounts
        );
        if identity && !list.values.is_empty() {
            problems.push(list.values.error(codes::CUSTOM, "not supported with CUSTOM"));
        }
    }
    for condition in rule.when.iter().flat_map(|when| when.iter()) {
        if let Some(key) = &condition.key {
            let identity =
                matches!(key.as_str(), "source.namespace" | "source.serviceAccount" | "source.principal");
            if identity || key.starts_with("request.auth.") {
                let text = format!("{} is not supported with CUSTOM", key.value);
                problems.push(key.error(codes::CUSTOM, text));
            }
        }
    }
}
