//! `/config_dump`: what holds now, without secrets.

use mesh::Workload;
use policy::istio::{JwtRule, KeySource, MtlsMode};
use serde_json::{Value, json};

use super::Told;
use crate::problems;

pub(super) fn dump(told: &Told) -> Value {
    let status = told.status.borrow().clone();
    let snapshot = told.snapshots.borrow().clone();
    let listeners: Vec<Value> = told
        .listeners
        .iter()
        .map(|(name, address)| json!({"name": name, "address": address.to_string()}))
        .collect();
    let workloads: Option<Vec<Value>> =
        snapshot.as_ref().map(|snapshot| snapshot.workloads().map(|w| workload(w)).collect());
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "listeners": listeners,
        "snapshot": snapshot.as_ref().map(|snapshot| json!({
            "version": snapshot.version,
            "trustDomain": snapshot.mesh.trust_domain,
            "trustDomainAliases": snapshot.mesh.trust_domain_aliases,
            "rootNamespace": snapshot.mesh.root_namespace,
            "pathNormalization": snapshot.mesh.path_normalization,
        })),
        "workloads": workloads,
        "manifests": {
            "problems": status.problems.iter().map(problems::json).collect::<Vec<_>>(),
            "warnings": status.warnings.iter().map(problems::json).collect::<Vec<_>>(),
            "unused": status.unused,
        },
        "issuers": told.authenticator.issuers(),
        "capture": told.capture.as_ref().map(super::capture::dump),
    })
}

fn workload(workload: &Workload) -> Value {
    let mtls = |port: &u16| match workload.policy.mtls_mode(*port) {
        MtlsMode::Disable => "DISABLE",
        MtlsMode::Permissive => "PERMISSIVE",
        MtlsMode::Strict => "STRICT",
    };
    let ports: Vec<Value> = workload
        .ports
        .iter()
        .map(|(name, port)| json!({"name": name, "port": port, "mtls": mtls(port)}))
        .collect();
    json!({
        "name": workload.name.to_string(),
        "labels": workload.labels,
        "identity": workload.identity.to_string(),
        "ip": workload.ip,
        "ports": ports,
        "enrolled": workload.enrolled,
        "upstream": workload.upstream,
        "services": workload.services.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "strictTarget": workload.target_rules.strict,
        "jwtRules": workload.policy.jwt_rules().iter().map(|rule| jwt_rule(rule)).collect::<Vec<_>>(),
    })
}

fn jwt_rule(rule: &JwtRule) -> Value {
    let keys = match &rule.keys {
        KeySource::Inline(_) => "inline",
        KeySource::Uri(uri) => uri.as_str(),
        KeySource::Discovery => "discovery",
    };
    json!({
        "from": &*rule.origin,
        "place": rule.place.to_string(),
        "issuer": rule.issuer,
        "audiences": rule.audiences,
        "keys": keys,
        "forwardOriginalToken": rule.forward_original_token,
    })
}
