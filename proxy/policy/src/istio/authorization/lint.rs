//! Rules that can never match, and rules that match something else than they seem to.
//!
//! All of it is admitted by Istio and decided as Istio decides it; `fhirward check` tells.

use super::{
    AuthorizationPolicy, codes,
    compile::request_principal,
    key::{self, HeaderKey, Key},
    spec::{Action, Condition, Kind, List, RuleSpec},
    template::is_template,
    text::Text,
};
use crate::{
    Problem,
    istio::MeshConfig,
    manifest::Located,
    target::{Normalization, TargetRules, canonicalize},
};

/// Every warning about one policy.
pub(super) fn lint(policy: &AuthorizationPolicy, mesh: &MeshConfig) -> Vec<Problem> {
    let mut linter = Linter { mesh, problems: Vec::new() };
    if policy.action == Action::Custom {
        let text = "external authorizers do not exist yet: CUSTOM denies what it matches";
        let place = policy.place.clone();
        linter.problems.push(Problem::warning(codes::CUSTOM_DENIES, place, "spec.action", text));
    }
    for rule in &policy.rules {
        linter.rule(rule);
        if policy.action == Action::Deny && denies_all_tcp(rule) {
            let text = "with HTTP fields alone this DENY rule refuses every TCP connection to the \
                        workload too; name the `ports` it is meant for";
            linter.problems.push(rule.warning(codes::HTTP_RULE_ON_TCP, text));
        }
    }
    let title = format!("AuthorizationPolicy {}/{}", policy.namespace, policy.name);
    linter.problems.into_iter().map(|problem| problem.of(title.clone())).collect()
}

/// Istio's own warning (ValidateAuthorizationPolicy).
fn denies_all_tcp(rule: &RuleSpec) -> bool {
    let sources: Vec<_> = rule.from.iter().flat_map(|from| from.iter()).collect();
    let operations: Vec<_> = rule.to.iter().flat_map(|to| to.iter()).collect();
    let tcp_source = sources
        .iter()
        .filter_map(|one| one.source.as_ref())
        .any(|source| source.lists().iter().any(|list| list.kind != Kind::RequestPrincipals));
    let tcp_operation = operations
        .iter()
        .filter_map(|one| one.operation.as_ref())
        .any(|one| one.lists().iter().any(|list| list.kind == Kind::Ports));
    (!sources.is_empty() && operations.is_empty() && !tcp_source)
        || (!operations.is_empty() && !tcp_operation)
}

struct Linter<'a> {
    mesh: &'a MeshConfig,
    problems: Vec<Problem>,
}

impl Linter<'_> {
    fn rule(&mut self, rule: &RuleSpec) {
        let sources = rule.from.iter().flat_map(|from| from.iter());
        for source in sources.filter_map(|one| one.source.as_ref()) {
            self.lists(&source.lists());
        }
        let operations = rule.to.iter().flat_map(|to| to.iter());
        for operation in operations.filter_map(|one| one.operation.as_ref()) {
            self.lists(&operation.lists());
        }
        for condition in rule.when.iter().flat_map(|when| when.iter()) {
            self.condition(condition);
        }
    }

    fn lists(&mut self, lists: &[List<'_>]) {
        for list in lists {
            for value in list.values.iter() {
                self.value(list.kind, value, list.values);
            }
        }
        for wanted in lists.iter().filter(|list| !list.negated) {
            let unwanted = lists.iter().find(|other| other.negated && other.kind == wanted.kind);
            if let Some(unwanted) = unwanted {
                self.contradiction(wanted.values, unwanted.values);
            }
        }
    }

    fn condition(&mut self, condition: &Located<Condition>) {
        let Some(key) = &condition.key else { return };
        let parsed = key::parse(key).unwrap_or(Key::Untranslatable);
        match &parsed {
            Key::FilterMetadata => {
                let text = "metadata of Envoy filters does not exist here: `values` never match, \
                            `notValues` always do";
                self.problems.push(key.warning(codes::NEVER_MATCHES, text));
            }
            Key::Header(HeaderKey::Impossible(_)) => {
                let text = "no header can have this name";
                self.problems.push(key.warning(codes::NEVER_MATCHES, text));
            }
            Key::Untranslatable => {
                let text = "Istio cannot translate this key: in an ALLOW policy the whole rule is \
                            dropped, elsewhere the condition is, which widens the rule";
                self.problems.push(key.warning(codes::SURPRISE, text));
            }
            _ => {}
        }
        let lists = [&condition.values, &condition.not_values];
        for values in lists.into_iter().flatten() {
            for value in values.iter() {
                match &parsed {
                    Key::Attribute(kind) => self.value(*kind, value, values),
                    Key::Claim(keys) => self.claim(keys, value),
                    _ => {}
                }
            }
        }
        if let (Some(wanted), Some(unwanted)) = (&condition.values, &condition.not_values) {
            self.contradiction(wanted, unwanted);
        }
    }

    /// Positive values that are all excluded again.
    fn contradiction(
        &mut self,
        wanted: &Located<Vec<Located<String>>>,
        unwanted: &Located<Vec<Located<String>>>,
    ) {
        let excluded = |value: &Located<String>| {
            unwanted.iter().any(|other| other.value == value.value || other.value == "*")
        };
        if !wanted.is_empty() && wanted.iter().all(excluded) {
            let text = "every value here is excluded again, so nothing matches";
            self.problems.push(wanted.warning(codes::NEVER_MATCHES, text));
        }
    }

    fn value(&mut self, kind: Kind, value: &Located<String>, all: &[Located<String>]) {
        match kind {
            Kind::Methods => self.method(value),
            Kind::Paths => self.path(value),
            Kind::Hosts => self.host(value, all),
            Kind::RequestPrincipals => self.request_principal(value),
            Kind::Principals => self.principal(value),
            Kind::Namespaces if value.contains('/') => {
                self.never(value, "a namespace has no slash");
            }
            Kind::Ports if value.trim_start_matches('0').is_empty() => {
                self.never(value, "no connection comes to port 0");
            }
            Kind::Namespaces
            | Kind::Ports
            | Kind::ServiceAccounts
            | Kind::TrustDomains
            | Kind::SourceIp
            | Kind::RemoteIp => {}
        }
    }

    fn never(&mut self, value: &Located<String>, why: &str) {
        self.never_because(codes::NEVER_MATCHES, value, why);
    }

    fn never_because(&mut self, code: &'static str, value: &Located<String>, why: &str) {
        let text = format!("`{}` never matches: {why}", value.value);
        self.problems.push(value.warning(code, text));
    }

    fn surprise(&mut self, value: &Located<String>, what: &str) {
        let text = format!("`{}` {what}", value.value);
        self.problems.push(value.warning(codes::SURPRISE, text));
    }

    fn method(&mut self, value: &Located<String>) {
        if value.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let why = "methods are compared with case, and sent in upper case";
            self.never_because(codes::LOWER_CASE_METHOD, value, why);
        }
    }

    fn claim(&mut self, keys: &[String], value: &Located<String>) {
        let split = keys.len() == 1 && keys.iter().any(|key| key == "scope" || key == "permission");
        if split && value.contains(' ') {
            self.never(value, "the claim is split at spaces, and each part compared by itself");
        }
    }

    fn host(&mut self, value: &Located<String>, all: &[Located<String>]) {
        let bare = matches!(Text::parse(value), Text::Exact(_)) && !value.contains(':');
        let with_port = |other: &Located<String>| {
            other.strip_prefix(value.as_str()).is_some_and(|rest| rest.starts_with([':', '*']))
        };
        if bare && !all.iter().any(with_port) {
            let what = format!(
                "does not match a Host header with a port; add `{}:*` if clients send one",
                value.value
            );
            self.surprise(value, &what);
        }
    }

    fn principal(&mut self, value: &Located<String>) {
        if value.starts_with("spiffe://") {
            let why = "principals are compared without `spiffe://`";
            self.never_because(codes::SPIFFE_PREFIX, value, why);
        } else if let Text::Exact(text) = Text::parse(value) {
            let parts: Vec<&str> = text.split('/').collect();
            if !matches!(parts.as_slice(), [_, "ns", _, "sa", _]) {
                let why = "a principal has the form `<trust domain>/ns/<namespace>/sa/<account>`";
                self.never(value, why);
            }
        }
    }

    fn request_principal(&mut self, value: &Located<String>) {
        match request_principal(value) {
            (Text::Exact(issuer), _) if issuer.is_empty() => {
                self.never(value, "the issuer before the last slash is empty");
            }
            (_, Text::Exact(subject)) if subject.is_empty() => {
                self.never(value, "the subject after the last slash is empty; `/*` takes any");
            }
            (_, Text::Exact(subject)) if &*subject == "*" => {
                self.never(value, "the `*` after the slash is literal here; write `*` alone");
            }
            (Text::Exact(issuer), Text::Prefix(subject)) => {
                let what = format!("means issuer `{issuer}` and subjects that begin `{subject}`");
                self.surprise(value, &what);
            }
            _ => {}
        }
    }

    fn path(&mut self, value: &Located<String>) {
        if value.contains('?') || value.contains('#') {
            let why = "paths are matched without query and fragment";
            return self.never_because(codes::PATH_WITH_QUERY, value, why);
        }
        let text = Text::parse(value);
        let rooted = value.starts_with('/');
        if !rooted && matches!(text, Text::Exact(_) | Text::Prefix(_)) {
            return self.never(value, "a path begins with `/`");
        }
        if self.mesh.path_normalization == Normalization::None || is_template(value) {
            return;
        }
        // A path that has the value in it, then what normalisation makes of it.
        let (sample, fits): (String, fn(&str, &str) -> bool) = match &text {
            Text::Exact(text) => (text.to_string(), |path, text| path == text),
            Text::Prefix(text) => (format!("{text}a"), |path, text| path.starts_with(text)),
            Text::Suffix(text) => (format!("/a{text}"), |path, text| path.ends_with(text)),
            Text::Present | Text::Any => return,
        };
        let literal = value.trim_matches('*');
        let rules = TargetRules { normalization: self.mesh.path_normalization, strict: false };
        let kept = canonicalize(&sample, rules).is_ok_and(|target| fits(target.path(), literal));
        if !kept {
            let mode = self.mesh.path_normalization;
            let why = format!("requests are normalised first ({mode:?}), and no path then has this");
            self.never(value, &why);
        }
    }
}
