//! Istio's values to Envoy's matchers.

use serde_json::{Value, json};

use super::TranslateError;

/// Where the JWT filter leaves a payload, and where policies look for it.
pub(super) const PAYLOAD: &str = "payload";

/// `x`, `x*`, `*x`, `*`.
pub(super) fn string(value: &str) -> Value {
    if value == "*" {
        json!({"safe_regex": {"regex": ".+"}})
    } else if let Some(suffix) = value.strip_prefix('*') {
        json!({"suffix": suffix})
    } else if let Some(prefix) = value.strip_suffix('*') {
        json!({"prefix": prefix})
    } else {
        json!({"exact": value})
    }
}

pub(super) fn header(name: &str, value: &str, ignore_case: bool) -> Value {
    if value == "*" {
        return json!({"name": name, "present_match": true});
    }
    let mut matcher = string(value);
    if ignore_case {
        matcher["ignore_case"] = true.into();
    }
    json!({"name": name, "string_match": matcher})
}

pub(super) fn cidr(value: &str) -> Result<Value, TranslateError> {
    let (address, length) = match value.split_once('/') {
        Some((address, length)) => (address, length.parse::<u8>().ok()),
        None => (value, Some(if value.contains(':') { 128 } else { 32 })),
    };
    let length = length.ok_or_else(|| TranslateError(format!("{value} is no CIDR block")))?;
    Ok(json!({"address_prefix": address, "prefix_len": length}))
}

/// A claim by its path: the string itself, or a list that holds it.
pub(super) fn claim(path: &[&str], values: &[&str]) -> Value {
    let strings = values.iter().map(|value| json!({"string_match": string(value)})).collect();
    let one = any_of(strings, |list| json!({"or_match": {"value_matchers": list}}));
    metadata(path, json!({"or_match": {"value_matchers": [one.clone(), {"list_match": {"one_of": one}}]}}))
}

fn metadata(path: &[&str], value: Value) -> Value {
    let keys: Vec<Value> = [PAYLOAD].iter().chain(path).map(|key| json!({"key": key})).collect();
    json!({"sourced_metadata": {"metadata_matcher": {
        "filter": "envoy.filters.http.jwt_authn",
        "path": keys,
        "value": value,
    }}})
}

/// `iss/sub`, split at the last slash.
pub(super) fn request_principal(value: &str) -> Value {
    let something = || json!({"safe_regex": {"regex": ".+"}});
    let or_something = |text: &str, matcher: Value| if text == "*" { something() } else { matcher };
    let (issuer, subject) = match value.rsplit_once('/') {
        _ if value == "*" => (something(), something()),
        Some((issuer, subject)) if value.starts_with('*') => {
            let suffix = issuer.strip_prefix('*').unwrap_or(issuer);
            (or_something(issuer, json!({"suffix": suffix})), json!({"exact": subject}))
        }
        Some((issuer, subject)) if value.ends_with('*') => {
            let prefix = subject.strip_suffix('*').unwrap_or(subject);
            (json!({"exact": issuer}), or_something(subject, json!({"prefix": prefix})))
        }
        Some((issuer, subject)) => (json!({"exact": issuer}), json!({"exact": subject})),
        None if value.starts_with('*') => (something(), string(value)),
        None if value.ends_with('*') => (string(value), something()),
        None => (json!({"exact": value}), json!({"exact": ""})),
    };
    let ids = [
        metadata(&["iss"], json!({"string_match": issuer})),
        metadata(&["sub"], json!({"string_match": subject})),
    ];
    json!({"and_ids": {"ids": ids}})
}

/// The one, or all of them joined.
pub(super) fn any_of(mut list: Vec<Value>, join: impl FnOnce(Vec<Value>) -> Value) -> Value {
    match list.pop() {
        Some(only) if list.is_empty() => only,
        Some(last) => {
            list.push(last);
            join(list)
        }
        None => join(list),
    }
}

/// `[a][b]` to its keys; a name that is not clean groups of brackets is one key.
pub(super) fn brackets(text: &str) -> Vec<&str> {
    let whole = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let keys: Vec<&str> = whole.split("][").collect();
    if keys.iter().all(|key| !key.contains(['[', ']'])) { keys } else { vec![whole] }
}

pub(super) fn spiffe(value: &str) -> Value {
    let matcher = match value {
        "*" => json!({"safe_regex": {"regex": ".+"}}),
        _ if value.starts_with('*') => string(value),
        _ => string(&format!("spiffe://{value}")),
    };
    json!({"authenticated": {"principal_name": matcher}})
}

/// A namespace within a SPIFFE id. A star stands for anything; nothing else is special.
pub(super) fn namespace(value: &str) -> Value {
    let pattern: Vec<String> = value.split('*').map(quote).collect();
    let regex = format!(".*/ns/{}/.*", pattern.join(".*"));
    json!({"authenticated": {"principal_name": {"safe_regex": {"regex": regex}}}})
}

fn quote(text: &str) -> String {
    let mut quoted = String::new();
    for character in text.chars() {
        if !character.is_ascii_alphanumeric() && character.is_ascii() {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}
