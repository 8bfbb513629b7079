//! A rule of an AuthorizationPolicy to a policy of Envoy's `rbac` filter.
//!
//! Envoy asks `permissions` (what is done) and `principals` (who does it); each `to` and each `from` gives one,
//! with the conditions of `when` in each of those they belong to.

use serde_json::{Value, json};

use super::{EnvoyListener, TranslateError, matcher};

/// The named rules of policies as the `rules` of a filter.
pub(super) fn policy(spec: &Value, index: usize, listener: &EnvoyListener) -> Result<Value, TranslateError> {
    let rule = &spec["rules"][index];
    let Conditions { permissions, principals } = conditions(rule, listener)?;
    let fields = |part: &str, inner: &str| -> Vec<Value> {
        let list = rule[part].as_array().filter(|list| !list.is_empty());
        list.map_or_else(|| vec![json!({})], |list| list.iter().map(|one| one[inner].clone()).collect())
    };
    let mut what = Vec::new();
    for operation in fields("to", "operation") {
        let mut all = Vec::new();
        for (key, values, negated) in named(&operation) {
            let asked: Result<Vec<_>, _> =
                values.iter().map(|value| permission(&key, value, listener)).collect();
            let any = json!({"or_rules": {"rules": asked?}});
            all.push(if negated { json!({"not_rule": any}) } else { any });
        }
        all.extend(permissions.iter().cloned());
        what.push(json!({"and_rules": {"rules": or_any(all)}}));
    }
    let mut who = Vec::new();
    for source in fields("from", "source") {
        let mut all = Vec::new();
        for (key, values, negated) in named(&source) {
            let any = principal(&key, &values)?;
            all.push(if negated { json!({"not_id": any}) } else { any });
        }
        all.extend(principals.iter().cloned());
        who.push(json!({"and_ids": {"ids": or_any(all)}}));
    }
    Ok(json!({"permissions": what, "principals": who}))
}

struct Conditions {
    permissions: Vec<Value>,
    principals: Vec<Value>,
}

fn conditions(rule: &Value, listener: &EnvoyListener) -> Result<Conditions, TranslateError> {
    let mut conditions = Conditions { permissions: Vec::new(), principals: Vec::new() };
    for condition in rule["when"].as_array().into_iter().flatten() {
        let key = condition["key"].as_str().unwrap_or_default();
        for (field, negated) in [("values", false), ("notValues", true)] {
            let values = strings(&condition[field]);
            if values.is_empty() {
                continue;
            }
            if matches!(key, "destination.port" | "destination.ip" | "connection.sni") {
                let asked: Result<Vec<_>, _> =
                    values.iter().map(|value| permission(key, value, listener)).collect();
                let any = json!({"or_rules": {"rules": asked?}});
                conditions.permissions.push(if negated { json!({"not_rule": any}) } else { any });
            } else {
                let any = principal(key, &values)?;
                conditions.principals.push(if negated { json!({"not_id": any}) } else { any });
            }
        }
    }
    Ok(conditions)
}

/// The fields of an operation or a source that hold values: `notPaths` is `paths`, negated.
fn named(fields: &Value) -> Vec<(String, Vec<&str>, bool)> {
    let fields = fields.as_object().into_iter().flatten();
    let lists = fields.map(|(key, value)| match key.strip_prefix("not") {
        Some(rest) => {
            let mut name: String = rest.chars().take(1).flat_map(char::to_lowercase).collect();
            name.extend(rest.chars().skip(1));
            (name, strings(value), true)
        }
        None => (key.clone(), strings(value), false),
    });
    lists.filter(|(_, values, _)| !values.is_empty()).collect()
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// No condition is no restriction.
fn or_any(list: Vec<Value>) -> Vec<Value> {
    if list.is_empty() { vec![json!({"any": true})] } else { list }
}

fn permission(key: &str, value: &str, listener: &EnvoyListener) -> Result<Value, TranslateError> {
    Ok(match key {
        "hosts" => json!({"header": matcher::header(":authority", value, true)}),
        "methods" => json!({"header": matcher::header(":method", value, false)}),
        "paths" if value.contains("{*}") || value.contains("{**}") => json!({"uri_template": {
            "name": "uri-template",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
                "path_template": value.replace("{**}", "**").replace("{*}", "*"),
            },
        }}),
        "paths" => json!({"url_path": {"path": matcher::string(value)}}),
        "ports" | "destination.port" => json!({"destination_port": port(value, listener)?}),
        "destination.ip" => json!({"destination_ip": matcher::cidr(value)?}),
        "connection.sni" => json!({"requested_server_name": matcher::string(value)}),
        _ => return Err(TranslateError(format!("{key} is not translated"))),
    })
}

/// The workload's own port is the listener's here, and the listener's is nobody's.
fn port(value: &str, listener: &EnvoyListener) -> Result<u16, TranslateError> {
    let port: u16 = value.parse().map_err(|_| TranslateError(format!("{value} is no port")))?;
    Ok(match port {
        port if port == listener.workload_port => listener.address.port(),
        port if port == listener.address.port() => listener.workload_port,
        port => port,
    })
}

fn principal(key: &str, values: &[&str]) -> Result<Value, TranslateError> {
    if let Some(path) = key.strip_prefix("request.auth.claims") {
        return Ok(matcher::claim(&matcher::brackets(path), values));
    }
    match key {
        "request.auth.audiences" => return Ok(matcher::claim(&["aud"], values)),
        "request.auth.presenter" => return Ok(matcher::claim(&["azp"], values)),
        _ => {}
    }
    let ids: Result<Vec<Value>, TranslateError> =
        values.iter().map(|value| one_principal(key, value)).collect();
    Ok(matcher::any_of(ids?, |list| json!({"or_ids": {"ids": list}})))
}

fn one_principal(key: &str, value: &str) -> Result<Value, TranslateError> {
    if let Some(name) = key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']')) {
        return Ok(json!({"header": matcher::header(name, value, false)}));
    }
    Ok(match key {
        "requestPrincipals" | "request.auth.principal" => matcher::request_principal(value),
        "ipBlocks" | "source.ip" => json!({"direct_remote_ip": matcher::cidr(value)?}),
        "remoteIpBlocks" | "remote.ip" => json!({"remote_ip": matcher::cidr(value)?}),
        "principals" | "source.principal" => matcher::spiffe(value),
        "namespaces" | "source.namespace" => matcher::namespace(value),
        _ => return Err(TranslateError(format!("{key} is not translated"))),
    })
}
