#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;
use crate::policy_test::format::PolicyTest;

const MANIFESTS: &str = "
  apiVersion: v1
  kind: Namespace
  metadata: {name: ns, labels: {istio-injection: enabled}}
  ---
  apiVersion: security.istio.io/v1
  kind: RequestAuthentication
  metadata: {name: jwt, namespace: ns}
  spec: {jwtRules: [{issuer: \"https://idp.example\", jwksUri: \"https://idp.example/keys\"}]}
  ---
  apiVersion: security.istio.io/v1
  kind: AuthorizationPolicy
  metadata: {name: readers, namespace: ns}
  spec:
    rules:
    - to: [{operation: {methods: [GET]}}]
      when: [{key: \"request.auth.claims[roles]\", values: [reader]}]
";

fn ask(case: &str) -> CaseReport {
    let text = format!(
        "apiVersion: {API_VERSION}\nkind: {KIND}\ninline: |{MANIFESTS}\
         workloads: [{{name: ns/app}}, {{name: ns/client}}]\ncases:\n- name: c\n  to: ns/app\n{case}"
    );
    let test: PolicyTest = policy::manifest::from_str("t.yaml", &text).unwrap();
    let world = World::build(&test, Path::new("t.yaml"), &[]).unwrap();
    world.ask(&test.cases[0]).unwrap()
}

const READER: &str = "claims: {iss: \"https://idp.example\", sub: a, roles: [reader]}";

#[test]
fn a_valid_token_with_the_role_passes_and_is_taken_away() {
    let report = ask(&format!("  request: {{path: /x, {READER}}}\n"));
    assert_eq!((report.verdict, report.status), (Verdict::Allow, Some(200)), "{report:?}");
    assert_eq!(report.rule.as_deref(), Some("ns[ns]-policy[readers]-rule[0]"));
    assert!(!report.forwarded.unwrap().headers.contains_key("authorization"));
}

#[test]
fn every_kind_of_bad_token_is_401_with_its_own_reason() {
    for (kind, body) in [
        ("expired", "Jwt is expired"),
        ("not-yet-valid", "Jwt not yet valid"),
        ("wrong-signature", "Jwt verification fails"),
        ("unknown-key", "Jwks doesn't have key to match kid or alg from Jwt"),
        ("malformed", "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"),
    ] {
        let report = ask(&format!("  request: {{{READER}, token: {kind}}}\n"));
        assert_eq!(report.status, Some(401), "{kind}: {report:?}");
        assert_eq!(report.body.as_deref(), Some(body), "{kind}");
    }
    let report = ask(&format!("  request: {{{READER}, token: wrong-algorithm}}\n"));
    assert_eq!(report.status, Some(401), "{report:?}");
}

#[test]
fn the_explanation_names_what_was_seen() {
    let report = ask("  request: {claims: {iss: \"https://idp.example\", sub: a, roles: [writer]}}\n");
    assert_eq!(report.verdict, Verdict::Deny);
    assert!(
        report.reasons.iter().any(|line| line.contains("claim roles") && line.contains("writer")),
        "{report:?}"
    );
}

#[test]
fn a_misspelt_kind_of_token_is_an_error() {
    let text = format!(
        "apiVersion: {API_VERSION}\nkind: {KIND}\nworkloads: [{{name: ns/app}}]\n\
         cases: [{{name: c, to: ns/app, request: {{token: expird}}}}]\n"
    );
    let test: PolicyTest = policy::manifest::from_str("t.yaml", &text).unwrap();
    let world = World::build(&test, Path::new("t.yaml"), &[]).unwrap();
    let problems = world.ask(&test.cases[0]).unwrap_err();
    assert!(problems[0].message.contains("`expird` is neither"), "{problems:?}");
}

use super::format::Verdict;
