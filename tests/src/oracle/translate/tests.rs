#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

const MANIFESTS: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: medics, namespace: t}
spec:
  selector: {matchLabels: {app: fhir}}
  rules:
  - from: [{source: {requestPrincipals: ["*"]}}]
    to: [{operation: {methods: [POST], ports: ["8080"], notPaths: ["/admin*"]}}]
    when: [{key: "request.auth.claims[realm_access][roles]", values: [Medic]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: elsewhere, namespace: u}
spec: {action: DENY, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: istio-system, annotations: {istio.io/dry-run: "true"}}
spec: {action: DENY, rules: [{}]}
"#;

fn listener() -> EnvoyListener {
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let mut listener = EnvoyListener::new("l", "t", address(4000), address(4001));
    listener.labels.insert("app".to_owned(), "fhir".to_owned());
    listener
}

fn filters(listener: &EnvoyListener) -> Value {
    let admin = SocketAddr::from(([127, 0, 0, 1], 4002));
    let manifests = Manifests::parse(MANIFESTS).unwrap();
    let config = envoy_config(&manifests, std::slice::from_ref(listener), admin).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"].clone()
}

#[test]
fn what_selects_the_workload_is_translated_in_istio_s_order() {
    let filters = filters(&listener());
    let (deny, allow) = (&filters[0]["typed_config"], &filters[1]["typed_config"]);
    assert!(deny.get("rules").is_none(), "only a dry run denies here: {deny}");
    assert_eq!(deny["shadow_rules"]["action"], "DENY");
    let rule = &allow["rules"]["policies"]["ns[t]-policy[medics]-rule[0]"];
    let what = &rule["permissions"][0]["and_rules"]["rules"];
    assert_eq!(what.as_array().unwrap().len(), 3);
    assert!(what.as_array().unwrap().contains(&json!({"or_rules": {"rules": [{"destination_port": 4000}]}})));
    let path = json!({"url_path": {"path": {"prefix": "/admin"}}});
    assert!(what.as_array().unwrap().contains(&json!({"not_rule": {"or_rules": {"rules": [path]}}})));
    let who = rule["principals"][0]["and_ids"]["ids"].as_array().unwrap();
    let keys = &who[1]["sourced_metadata"]["metadata_matcher"]["path"];
    assert_eq!(keys, &json!([{"key": "payload"}, {"key": "realm_access"}, {"key": "roles"}]));
}

#[test]
fn another_workload_of_the_namespace_is_not_selected() {
    let mut other = listener();
    other.labels.clear();
    assert!(!filters(&other).to_string().contains("medics"));
}

#[test]
fn what_is_not_known_is_an_error() {
    let text = MANIFESTS.replace("ports: [\"8080\"]", "colours: [red]");
    let manifests = Manifests::parse(&text).unwrap();
    let admin = SocketAddr::from(([127, 0, 0, 1], 4002));
    assert!(envoy_config(&manifests, &[listener()], admin).unwrap_err().to_string().contains("colours"));
}

#[test]
fn claims_are_split_at_clean_brackets_only() {
    assert_eq!(matcher::brackets("[a][b]"), ["a", "b"]);
    assert_eq!(matcher::brackets("[https://x/y]"), ["https://x/y"]);
    assert_eq!(matcher::brackets("[a[b]"), ["a[b"]);
}
