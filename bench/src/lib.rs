//! What the benchmarks share: meshes of a given size and the tutorial's question.
//!
//! Speed lives here and never in a timed test: machines are shared, only ratios within one run count.

pub mod cell;
pub mod load;
pub mod machine;
pub mod meshes;
pub mod peers;
pub mod reach;
pub mod report;
pub mod rounds;
pub mod statistics;
pub mod tokens;
pub mod workloads;

use std::collections::BTreeMap;

use policy::{
    Object, Problem, RequestIdentity, WorkloadName,
    istio::{MeshConfig, Policies, WorkloadFacts, WorkloadPolicy},
};
use serde_json::json;

/// The tutorial's two ALLOW policies, and `others` more for other roles at the same workload.
///
/// # Errors
/// The problems of the generated manifests: none, unless the policy crate is broken.
pub fn workload_policy(others: usize) -> Result<WorkloadPolicy, Vec<Problem>> {
    let mut text = rule("medic", "POST", "Medic") + &rule("patient", "GET", "Patient");
    for index in 0..others {
        text += &rule(&format!("role-{index}"), "GET", &format!("Role{index}"));
    }
    let (objects, problems): (Vec<Object>, _) = policy::manifest::parse("bench.yaml", &text);
    if !problems.is_empty() {
        return Err(problems);
    }
    let (policies, problems) = Policies::read(&objects);
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(policies.compile(&MeshConfig::default(), &facts()))
}

fn facts() -> WorkloadFacts {
    WorkloadFacts {
        name: WorkloadName { namespace: "datamesh".to_owned(), name: "fhir-server".to_owned() },
        labels: BTreeMap::from([("app".to_owned(), "fhir-server".to_owned())]),
        services: Vec::new(),
        gateways: Vec::new(),
        gateway_classes: Vec::new(),
    }
}

fn rule(name: &str, method: &str, role: &str) -> String {
    format!(
        "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: datamesh}}
spec:
  selector: {{matchLabels: {{app: fhir-server}}}}
  action: ALLOW
  rules:
  - from: [{{source: {{requestPrincipals: [\"*\"]}}}}]
    to: [{{operation: {{methods: [\"{method}\"]}}}}]
    when: [{{key: \"request.auth.claims[realm_access][roles]\", values: [\"{role}\"]}}]
"
    )
}

/// Alice as the tutorial's Keycloak describes her.
#[must_use]
pub fn alice() -> RequestIdentity {
    let claims = json!({"iss": "https://idp.example/realms/r", "sub": "alice",
                        "realm_access": {"roles": ["offline_access", "Patient"]}});
    RequestIdentity {
        issuer: "https://idp.example/realms/r".to_owned(),
        subject: "alice".to_owned(),
        presenter: Some("idea".to_owned()),
        audiences: vec!["fhir".to_owned()],
        claims: claims.as_object().cloned().unwrap_or_default(),
    }
}
