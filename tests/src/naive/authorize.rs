//! AuthorizationPolicies, evaluated one after another.

use serde_json::Value;

use super::{
    Action, Asked, Condition, HttpAsked, List, Member, Peer, Policy, Rule, Selection, Target, World, address,
    template,
    text::{fits, fits_header, globs},
};

/// What a world answers to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether it passes.
    pub allowed: bool,
    /// The rule that decided, if one did: `ns[..]-policy[..]-rule[..]`.
    pub rule: Option<String>,
    /// AUDIT rules that matched, sorted.
    pub audited: Vec<String>,
    /// What the policies on trial would have done, where there are any.
    pub dry_run: Option<DryRun>,
}

/// See [`Answer::dry_run`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    /// The DENY rule that would have denied.
    pub denied_by: Option<String>,
    /// The ALLOW rule; `Some(None)`: there are ALLOW policies and none matched.
    pub allow: Option<Option<String>>,
}

/// Decides as the documentation has it: "If there are any CUSTOM policies that match the request,
/// evaluate and deny the request if the evaluation result is denied. If there are any DENY policies
/// that match the request, deny the request. If there are no ALLOW policies for the workload, allow
/// the request. If any of the ALLOW policies match the request, allow the request. Deny the request."
#[must_use]
pub fn decide(world: &World, asked: &Asked) -> Answer {
    let member = &world.members[asked.member];
    let holding: Vec<&Policy> =
        world.policies.iter().filter(|one| selects(world, one.namespace, &one.selection, member)).collect();
    let of = |action, dry_run| -> Vec<&Policy> {
        holding.iter().filter(|one| one.action == action && one.dry_run == dry_run).copied().collect()
    };
    let first = |action, dry_run| first(world, &of(action, dry_run), asked);
    let denied = first(Action::Deny, true);
    let on_trial = of(Action::Allow, true);
    let dry_run = (!of(Action::Deny, true).is_empty() || !on_trial.is_empty()).then(|| DryRun {
        denied_by: denied,
        allow: (!on_trial.is_empty()).then(|| first(Action::Allow, true)),
    });
    if let Some(rule) = first(Action::Custom, false) {
        return Answer { allowed: false, rule: Some(rule), audited: Vec::new(), dry_run };
    }
    let mut audited: Vec<String> =
        of(Action::Audit, false).iter().flat_map(|policy| matching(world, policy, asked)).collect();
    audited.sort();
    if let Some(rule) = first(Action::Deny, false) {
        return Answer { allowed: false, rule: Some(rule), audited, dry_run };
    }
    if of(Action::Allow, false).is_empty() {
        return Answer { allowed: true, rule: None, audited, dry_run };
    }
    let rule = first(Action::Allow, false);
    Answer { allowed: rule.is_some(), rule, audited, dry_run }
}

/// The rule that is named: the first by name; the root namespace's DENY rules are asked first.
fn first(world: &World, policies: &[&Policy], asked: &Asked) -> Option<String> {
    let named = |in_root: bool| {
        policies
            .iter()
            .filter(|one| !in_root || (one.namespace == world.root && one.action == Action::Deny))
            .flat_map(|one| matching(world, one, asked))
            .min()
    };
    named(true).or_else(|| named(false))
}

/// The rules of a policy that match.
fn matching(world: &World, policy: &Policy, asked: &Asked) -> Vec<String> {
    let id = |index| format!("ns[{}]-policy[{}]-rule[{index}]", policy.namespace, policy.name);
    let rules = policy.rules.iter().enumerate();
    rules.filter(|(_, rule)| rule_matches(world, policy, rule, asked)).map(|(index, _)| id(index)).collect()
}

/// Whether a policy that stands in `namespace` holds for the member.
pub(super) fn selects(world: &World, namespace: &str, selection: &Selection, member: &Member) -> bool {
    let reaches = namespace == world.root || namespace == member.namespace;
    match selection {
        Selection::All => reaches,
        Selection::Labels(labels) => {
            reaches && labels.iter().all(|(name, value)| member.labels.get(name) == Some(value))
        }
        Selection::Targets(targets) => targets.iter().any(|target| match target {
            Target::Service(name) => namespace == member.namespace && member.services.contains(name),
            Target::Gateway(name) => member.gateways.iter().any(|one| one.0 == namespace && one.1 == *name),
            Target::GatewayClass(name) => namespace == world.root && member.classes.contains(name),
        }),
    }
}

/// The fields and keys that only an HTTP request has.
fn is_http(name: &str) -> bool {
    matches!(name, "requestPrincipals" | "hosts" | "methods" | "paths") || name.starts_with("request.")
}

fn rule_matches(world: &World, policy: &Policy, rule: &Rule, asked: &Asked) -> bool {
    let fields = rule.from.iter().chain(&rule.to).flatten().map(|list| list.field);
    let http = fields.chain(rule.when.iter().map(|condition| condition.key)).any(is_http);
    // On TCP an ALLOW rule with HTTP fields is ignored; of the others only those fields are.
    if asked.http.is_none() && http && policy.action == Action::Allow {
        return false;
    }
    let side = |clauses: &[Vec<List>]| {
        clauses.is_empty()
            || clauses.iter().any(|lists| lists.iter().all(|list| list_holds(world, policy, list, asked)))
    };
    side(&rule.from)
        && side(&rule.to)
        && rule.when.iter().all(|condition| condition_holds(world, policy, condition, asked))
}

fn list_holds(world: &World, policy: &Policy, list: &List, asked: &Asked) -> bool {
    if asked.http.is_none() && is_http(list.field) {
        return true;
    }
    let any = list.values.iter().any(|value| value_fits(world, policy, list.field, value, asked));
    any != list.negated
}

fn condition_holds(world: &World, policy: &Policy, condition: &Condition, asked: &Asked) -> bool {
    let Condition { key, values, not_values } = condition;
    if asked.http.is_none() && is_http(key) {
        return true;
    }
    let any = |values: &[&str]| values.iter().any(|value| value_fits(world, policy, key, value, asked));
    (values.is_empty() || any(values)) && !any(not_values)
}

/// One value of a field or key. What is not there fits nothing.
fn value_fits(world: &World, policy: &Policy, name: &str, value: &str, asked: &Asked) -> bool {
    let peer = asked.peer.as_ref();
    match name {
        "principals" | "source.principal" => {
            peer.is_some_and(|peer| principal_fits(world, value, &principal(peer)))
        }
        "namespaces" | "source.namespace" => {
            peer.is_some_and(|peer| globs(value.as_bytes(), peer.namespace.as_bytes()))
        }
        "serviceAccounts" | "source.serviceAccount" => peer.is_some_and(|peer| {
            let own = format!("{}/{}", peer.namespace, peer.account);
            if value.contains('/') { own == value } else { own == format!("{}/{value}", policy.namespace) }
        }),
        "trustDomains" | "source.trustDomain" => peer.is_some_and(|peer| {
            let own: Vec<&str> = domains(world);
            fits(value, peer.trust_domain.as_bytes())
                || own.contains(&value) && own.contains(&peer.trust_domain)
        }),
        "ipBlocks" | "source.ip" => address::within(value, asked.ip),
        "remoteIpBlocks" | "remote.ip" => address::within(value, asked.remote_ip),
        "destination.ip" => address::within(value, asked.destination_ip),
        "ports" | "destination.port" => value == asked.port.to_string(),
        "connection.sni" => asked.sni.is_some_and(|sni| fits(value, sni.as_bytes())),
        // Metadata of Envoy's filters, which do not exist here.
        _ if name.starts_with("experimental.envoy.filters.") => false,
        _ => asked.http.as_ref().is_some_and(|http| request_value_fits(name, value, http)),
    }
}

fn request_value_fits(name: &str, value: &str, http: &HttpAsked) -> bool {
    let claims = http.claims.as_ref();
    let claim = |name: &str| claims.and_then(|claims| claims.get(name));
    match name {
        "hosts" => fits_header(&value.to_ascii_lowercase(), http.host.to_ascii_lowercase().as_bytes()),
        "methods" => fits_header(value, http.method.as_bytes()),
        "paths" if template::is_template(value) => template::fits(value, http.path.as_bytes()),
        "paths" => fits(value, http.path.as_bytes()),
        "requestPrincipals" | "request.auth.principal" => {
            let text = |name| claim(name).and_then(Value::as_str).unwrap_or("");
            request_principal_fits(value, text("iss"), text("sub"))
        }
        "request.auth.audiences" => claim_fits(value, claim("aud")),
        "request.auth.presenter" => claim_fits(value, claim("azp")),
        _ => {
            if let Some(header) = name.strip_prefix("request.headers[") {
                return header_fits(header.trim_end_matches(']'), value, http);
            }
            let path = claim_path(name.strip_prefix("request.auth.claims").unwrap_or(""));
            let mut found = claim(&path[0]);
            for key in &path[1..] {
                found = found.and_then(Value::as_object).and_then(|object| object.get(key));
            }
            claim_fits(value, found)
        }
    }
}

/// Any of the header's values; `host` is the authority, which has its own place.
fn header_fits(name: &str, value: &str, http: &HttpAsked) -> bool {
    if name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority") {
        return fits_header(value, http.host.as_bytes());
    }
    if name.eq_ignore_ascii_case(":method") {
        return fits_header(value, http.method.as_bytes());
    }
    let of_name = http.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
    of_name.into_iter().any(|(_, own)| fits_header(value, own.as_bytes()))
}

/// "The claim is a string or a list that has it"; nothing else is compared.
fn claim_fits(value: &str, claim: Option<&Value>) -> bool {
    let text = |one: &Value| one.as_str().is_some_and(|one| fits(value, one.as_bytes()));
    match claim {
        Some(Value::Array(list)) => list.iter().any(text),
        Some(one) => text(one),
        None => false,
    }
}

/// `[a][b]` is `b` within `a`; what is no clean row of brackets is one name.
fn claim_path(text: &str) -> Vec<String> {
    let whole = text.get(1..text.len().saturating_sub(1)).unwrap_or("").to_owned();
    let (mut path, mut open) = (Vec::new(), None::<String>);
    for letter in text.chars() {
        match (letter, &mut open) {
            ('[', None) => open = Some(String::new()),
            (']', Some(_)) => path.extend(open.take()),
            ('[', Some(_)) | (_, None) => return vec![whole],
            (other, Some(name)) => name.push(other),
        }
    }
    if path.is_empty() || open.is_some() { vec![whole] } else { path }
}

fn request_principal_fits(value: &str, issuer: &str, subject: &str) -> bool {
    if issuer.is_empty() || subject.is_empty() {
        return false;
    }
    let (iss, sub) = (issuer.as_bytes(), subject.as_bytes());
    match value.rsplit_once('/') {
        _ if value == "*" => true,
        Some((left, right)) if value.starts_with('*') => fits(left, iss) && right == subject,
        Some((left, right)) if value.ends_with('*') => left == issuer && fits(right, sub),
        Some((left, right)) => left == issuer && right == subject,
        None if value.starts_with('*') => fits(value, sub),
        None if value.ends_with('*') => fits(value, iss),
        None => false,
    }
}

fn principal(peer: &Peer) -> String {
    format!("{}/ns/{}/sa/{}", peer.trust_domain, peer.namespace, peer.account)
}

fn domains(world: &World) -> Vec<&str> {
    std::iter::once(world.trust_domain).chain(world.aliases.iter().copied()).collect()
}

/// A principal of the mesh's own domain, in five parts, means the account in each of its domains.
fn principal_fits(world: &World, value: &str, own: &str) -> bool {
    let parts: Vec<&str> = value.split('/').collect();
    let domains = domains(world);
    let of_mesh =
        |domain: &str| domain == "cluster.local" || domains.iter().any(|one| fits(domain, one.as_bytes()));
    if parts.len() != 5 || parts[0] == "*" || !of_mesh(parts[0]) {
        return fits(value, own.as_bytes());
    }
    domains.iter().any(|domain| {
        let kept = parts[0].starts_with('*') && fits(parts[0], domain.as_bytes());
        if kept {
            fits(value, own.as_bytes())
        } else {
            fits(&format!("{domain}/{}", parts[1..].join("/")), own.as_bytes())
        }
    })
}
