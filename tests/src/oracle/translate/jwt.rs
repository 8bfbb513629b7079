//! RequestAuthentications to a `jwt_authn` filter.

use serde_json::{Map, Value, json};

use super::manifests::{Kind, Manifests};
use super::{EnvoyListener, TranslateError, matcher};

/// The filter, where a rule selects the workload.
pub(super) fn filter(
    manifests: &Manifests,
    listener: &EnvoyListener,
) -> Result<Option<Value>, TranslateError> {
    let mut rules: Vec<&Value> = manifests
        .selecting(Kind::RequestAuthentication, listener)
        .flat_map(|object| object.spec["jwtRules"].as_array().into_iter().flatten())
        .collect();
    if rules.is_empty() {
        return Ok(None);
    }
    rules.sort_by_key(|rule| rule["issuer"].as_str().unwrap_or_default());
    let names: Vec<String> = (0..rules.len()).map(|index| format!("origins-{index}")).collect();
    let mut providers = Map::new();
    for (name, rule) in names.iter().zip(rules) {
        providers.insert(name.clone(), provider(rule, listener.jwt_cache_size)?);
    }
    Ok(Some(json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": providers,
            "rules": [{"match": {"prefix": "/"}, "requires": requirement(&names)}],
            "bypass_cors_preflight": true,
        },
    })))
}

/// Any of them, or of each that a token is there for.
fn requirement(names: &[String]) -> Value {
    let or_missing = |name: &String| json!({"requires_any": {"requirements": [{"provider_name": name}, {"allow_missing": {}}]}});
    let all: Vec<Value> = names.iter().map(or_missing).collect();
    if let [only] = all.as_slice() {
        return only.clone();
    }
    let mut any: Vec<Value> = names.iter().map(|name| json!({"provider_name": name})).collect();
    any.push(json!({"requires_all": {"requirements": all}}));
    json!({"requires_any": {"requirements": any}})
}

fn provider(rule: &Value, jwt_cache_size: Option<u32>) -> Result<Value, TranslateError> {
    let jwks =
        rule["jwks"].as_str().ok_or_else(|| TranslateError("only inline jwks is translated".to_owned()))?;
    let list = |name: &str| rule[name].as_array().cloned().unwrap_or_default();
    let mut split = vec![json!("scope"), json!("permission")];
    split.extend(list("spaceDelimitedClaims"));
    let mut provider = json!({
        "issuer": rule["issuer"].as_str().unwrap_or_default(),
        "audiences": list("audiences"),
        "forward": rule["forwardOriginalToken"].as_bool().unwrap_or(false),
        "payload_in_metadata": matcher::PAYLOAD,
        "normalize_payload_in_metadata": {"space_delimited_claims": split},
        "local_jwks": {"inline_string": jwks},
        "from_params": list("fromParams"),
        "from_cookies": list("fromCookies"),
        "from_headers": list("fromHeaders").iter().map(|place| json!({
            "name": place["name"],
            "value_prefix": place["prefix"].as_str().unwrap_or_default(),
        })).collect::<Vec<_>>(),
        "claim_to_headers": list("outputClaimToHeaders").iter().map(|place| json!({
            "header_name": place["header"],
            "claim_name": place["claim"],
        })).collect::<Vec<_>>(),
    });
    if let Some(header) = rule["outputPayloadToHeader"].as_str() {
        provider["forward_payload_header"] = header.into();
    }
    if let Some(size) = jwt_cache_size {
        provider["jwt_cache_config"] = json!({"jwt_cache_size": size});
    }
    Ok(provider)
}
