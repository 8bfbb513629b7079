//! The manifests of the benchmark: the hospital's one policy, and further ones around it.

use std::fmt::Write as _;

use serde_json::Value;

/// The namespace of everything.
pub const NAMESPACE: &str = "datamesh";
/// The label value of the workload that is measured.
pub const MAIN: &str = "fhir-server";
/// That of the workload beside it, whose traffic must not disturb.
pub const OTHER: &str = "other-server";

/// Manifests with so many AuthorizationPolicies for the measured workload's namespace (at least one, which
/// lets patients read and medics write), the same for the other workload, and the provider of both.
///
/// Of the further policies most are about other paths, some about other roles, other workloads, or deny.
/// `generation` changes none of their meaning: it makes one text differ from the next.
#[must_use]
pub fn manifests(issuer: &str, jwks: &Value, policies: usize, generation: usize) -> String {
    let mut text = format!("# {generation}\n");
    for app in [MAIN, OTHER] {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt-{app}, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: {app}}}}}
  jwtRules:
  - issuer: \"{issuer}\"
    audiences: [fhir]
    jwks: '{jwks}'
"
        );
        text += &hospital(app);
    }
    for index in 1..policies {
        further(&mut text, index);
    }
    text
}

/// Patients read, medics write. The name stands in the middle of all names: Envoy looks in their order.
fn hospital(app: &str) -> String {
    let rule = |method: &str, role: &str| {
        format!(
            "  - from: [{{source: {{requestPrincipals: [\"*\"]}}}}]
    to: [{{operation: {{methods: [\"{method}\"]}}}}]
    when: [{{key: \"request.auth.claims[realm_access][roles]\", values: [\"{role}\"]}}]
"
        )
    };
    format!(
        "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p-05000-{app}, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: {app}}}}}
  action: ALLOW
  rules:
{}{}",
        rule("GET", "Patient"),
        rule("POST", "Medic"),
    )
}

fn further(text: &mut String, index: usize) {
    let (app, action, paths, role) = match index % 10 {
        0..=5 => (MAIN.to_owned(), "ALLOW", format!("/fhir/Group/g{index}/*"), "Patient".to_owned()),
        6 => (MAIN.to_owned(), "DENY", format!("/fhir/Archive/{index}"), "Patient".to_owned()),
        7 => (MAIN.to_owned(), "ALLOW", "/fhir/*".to_owned(), format!("Role{index}")),
        _ => (format!("app-{}", index % 500), "ALLOW", "/fhir/*".to_owned(), "Patient".to_owned()),
    };
    let _ = write!(
        text,
        "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p-{index:05}, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: {app}}}}}
  action: {action}
  rules:
  - from: [{{source: {{requestPrincipals: [\"*\"]}}}}]
    to: [{{operation: {{methods: [\"GET\"], paths: [\"{paths}\"]}}}}]
    when: [{{key: \"request.auth.claims[realm_access][roles]\", values: [\"{role}\"]}}]
"
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ::tests::oracle::translate::Manifests;
    use serde_json::json;

    use super::*;

    #[test]
    fn as_many_policies_as_asked_for_and_both_sides_can_read_them() {
        let text = manifests("http://i", &json!({"keys": []}), 100, 1);
        let (objects, problems) = policy::manifest::parse("m", &text);
        assert_eq!(problems, []);
        let policies = objects.iter().filter(|object| object.kind == "AuthorizationPolicy").count();
        assert_eq!(policies, 101, "100, and the other workload's one");
        Manifests::parse(&text).unwrap();
        assert_ne!(text, manifests("http://i", &json!({"keys": []}), 100, 2));
    }
}
