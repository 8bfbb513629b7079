//! Worlds as manifests: JSON objects, and those as YAML in several hands.

use serde_json::{Map, Value, json};

use super::{
    Action, Condition, List, PeerAuthentication, Policy, RequestAuthentication, Rule, Selection, Target,
    World,
};

/// How a document is written. All of them mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hand {
    /// JSON, which is YAML too.
    Json,
    /// Block style, text plain where it can be.
    Plain,
    /// Block style, text in single quotes where it can be.
    Single,
    /// Block style, text in double quotes.
    Double,
}

/// Every hand.
pub const HANDS: [Hand; 4] = [Hand::Json, Hand::Plain, Hand::Single, Hand::Double];

/// All policies of a world as objects.
#[must_use]
pub fn objects(world: &World) -> Vec<Value> {
    let policies = world.policies.iter().map(policy);
    let requests = world.requests.iter().map(|one| request(one, &Value::Null));
    policies.chain(requests).chain(world.peers.iter().map(peer)).collect()
}

/// Objects as one multi-document text, the n-th in the n-th hand.
#[must_use]
pub fn documents(objects: &[Value], hands: &[Hand]) -> String {
    let texts = objects.iter().zip(hands.iter().cycle()).map(|(object, hand)| yaml(object, *hand));
    texts.map(|text| format!("---\n{text}")).collect()
}

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

fn select(spec: &mut Map<String, Value>, selection: &Selection) {
    match selection {
        Selection::All => {}
        Selection::Labels(labels) => {
            spec.insert("selector".to_owned(), json!({"matchLabels": labels}));
        }
        Selection::Targets(targets) => {
            let reference = |target: &Target| match target {
                Target::Service(name) => json!({"kind": "Service", "group": "", "name": name}),
                Target::Gateway(name) => {
                    json!({"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": name})
                }
                Target::GatewayClass(name) => {
                    json!({"kind": "GatewayClass", "group": "gateway.networking.k8s.io", "name": name})
                }
            };
            spec.insert("targetRefs".to_owned(), targets.iter().map(reference).collect());
        }
    }
}

/// An AuthorizationPolicy.
#[must_use]
pub fn policy(policy: &Policy) -> Value {
    let mut spec = Map::new();
    select(&mut spec, &policy.selection);
    let action = match policy.action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
        Action::Audit => "AUDIT",
        Action::Custom => "CUSTOM",
    };
    spec.insert("action".to_owned(), json!(action));
    if policy.action == Action::Custom {
        spec.insert("provider".to_owned(), json!({"name": "asked-elsewhere"}));
    }
    if !policy.rules.is_empty() {
        spec.insert("rules".to_owned(), policy.rules.iter().map(rule).collect());
    }
    let mut object = object("AuthorizationPolicy", policy.namespace, &policy.name, Value::Object(spec));
    if policy.dry_run {
        object["metadata"]["annotations"] = json!({"istio.io/dry-run": "true"});
    }
    object
}

fn rule(rule: &Rule) -> Value {
    let mut out = Map::new();
    let clauses = |of: &[Vec<List>], name: &str| -> Value {
        of.iter().map(|lists| json!({name: lists.iter().map(list).collect::<Map<_, _>>()})).collect()
    };
    if !rule.from.is_empty() {
        out.insert("from".to_owned(), clauses(&rule.from, "source"));
    }
    if !rule.to.is_empty() {
        out.insert("to".to_owned(), clauses(&rule.to, "operation"));
    }
    if !rule.when.is_empty() {
        out.insert("when".to_owned(), rule.when.iter().map(condition).collect());
    }
    Value::Object(out)
}

fn list(list: &List) -> (String, Value) {
    let name = match list.field.split_at(1) {
        (first, rest) if list.negated => format!("not{}{rest}", first.to_uppercase()),
        _ => list.field.to_owned(),
    };
    (name, json!(list.values))
}

fn condition(condition: &Condition) -> Value {
    let mut out = Map::from_iter([("key".to_owned(), json!(condition.key))]);
    for (name, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        if !values.is_empty() {
            out.insert(name.to_owned(), json!(values));
        }
    }
    Value::Object(out)
}

/// A RequestAuthentication; `jwks`, where it is no null, is every rule's key set.
#[must_use]
pub fn request(request: &RequestAuthentication, jwks: &Value) -> Value {
    let mut spec = Map::new();
    select(&mut spec, &request.selection);
    let rule = |rule: &super::JwtRule| {
        let mut out = json!({"issuer": rule.issuer});
        if !rule.audiences.is_empty() {
            out["audiences"] = json!(rule.audiences);
        }
        if !jwks.is_null() {
            out["jwks"] = Value::String(jwks.to_string());
        }
        out
    };
    spec.insert("jwtRules".to_owned(), request.rules.iter().map(rule).collect());
    object("RequestAuthentication", request.namespace, &request.name, Value::Object(spec))
}

/// A PeerAuthentication.
#[must_use]
pub fn peer(peer: &PeerAuthentication) -> Value {
    let mode = |mode: Option<&str>| json!({"mode": mode.unwrap_or("UNSET")});
    let mut spec = Map::from_iter([("mtls".to_owned(), mode(peer.mode))]);
    if !peer.labels.is_empty() {
        spec.insert("selector".to_owned(), json!({"matchLabels": peer.labels}));
    }
    if !peer.ports.is_empty() {
        let ports = peer.ports.iter().map(|(port, of_port)| (port.to_string(), mode(*of_port)));
        spec.insert("portLevelMtls".to_owned(), Value::Object(ports.collect()));
    }
    let mut object = object("PeerAuthentication", peer.namespace, &peer.name, Value::Object(spec));
    if let Some(hour) = peer.created {
        object["metadata"]["creationTimestamp"] = json!(format!("2026-01-01T{hour:02}:00:00Z"));
    }
    object
}

/// One document, with a line end.
#[must_use]
pub fn yaml(value: &Value, hand: Hand) -> String {
    if hand == Hand::Json {
        return format!("{value}\n");
    }
    let mut out = String::new();
    block(value, hand, 0, &mut out);
    out
}

fn block(value: &Value, hand: Hand, indent: usize, out: &mut String) {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                out.push_str(&format!("{margin}{}:", text(key, hand)));
                below(value, hand, indent, out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                out.push_str(&format!("{margin}-"));
                below(value, hand, indent, out);
            }
        }
        other => out.push_str(&format!("{margin}{}\n", inline(other, hand))),
    }
}

/// What stands after a colon or dash.
fn below(value: &Value, hand: Hand, indent: usize, out: &mut String) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        block(value, hand, indent + 2, out);
    } else {
        out.push_str(&format!(" {}\n", inline(value, hand)));
    }
}

fn inline(value: &Value, hand: Hand) -> String {
    match value {
        Value::String(string) => text(string, hand),
        other => other.to_string(),
    }
}

/// A string, quoted where the hand or its content asks for it.
fn text(string: &str, hand: Hand) -> String {
    let printable = !string.is_empty() && string.chars().all(|one| !one.is_control());
    match hand {
        Hand::Plain if is_plain(string) => string.to_owned(),
        Hand::Plain | Hand::Single if printable => format!("'{}'", string.replace('\'', "''")),
        _ => Value::from(string).to_string(),
    }
}

/// Whether a string stands for itself without quotes: a careful subset of YAML 1.2 section 7.3.3
/// that no reader takes for a number, a boolean or null.
fn is_plain(string: &str) -> bool {
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];
    let fits = |one: char| one.is_ascii_alphanumeric() || "/_-.".contains(one);
    string.starts_with(|one: char| one.is_ascii_alphabetic() || one == '/')
        && string.chars().all(fits)
        && !words.contains(&string.to_ascii_lowercase().as_str())
}
