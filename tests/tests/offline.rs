//! `fhirward check`, `explain` and `test`: the offline commands, by their binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use tests::harness::{binary, repository};

fn fhirward(arguments: &[&str]) -> Output {
    Command::new(binary().unwrap()).args(arguments).current_dir(repository()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn case_file(folder: &Path, text: &str) -> String {
    let file = folder.join("case.yaml");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

const CASE: &str = "apiVersion: fhirward.dev/v1alpha1
kind: PolicyTest
metadata: {name: one}
inline: |
  apiVersion: security.istio.io/v1
  kind: AuthorizationPolicy
  metadata: {name: reads, namespace: datamesh}
  spec:
    rules: [{to: [{operation: {methods: [GET]}}]}]
workloads: [{name: datamesh/fhir-server, labels: {app: fhir}}]
cases:
- name: a read
  to: datamesh/fhir-server
  request: {method: GET, path: /Patient/1}
  expect: {verdict: allow, status: 200}
";

#[test]
fn the_projects_own_cases_pass() {
    let output = fhirward(&["test", "tests/cases"]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).ends_with(" 0 failed\n"));
}

#[test]
fn a_case_turned_wrong_fails_with_exit_1_and_shows_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let file = case_file(folder.path(), &CASE.replace("verdict: allow", "verdict: deny"));
    let output = fhirward(&["test", &file]);
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stdout);
    assert!(shown.contains("expected: deny") && shown.contains("actual:   allow"), "{shown}");
}

#[test]
fn a_broken_file_exits_2_naming_line_and_field() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, wanted) in [
        ("status: 200", "stauts: 200", ["case.yaml:15:", "cases[0].expect.stauts"]),
        ("methods: [GET]", "method: [GET]", ["spec.rules[0].to[0].operation.method", "operation"]),
        ("kind: PolicyTest", "kind: PolicyTset", ["case.yaml", "kind"]),
    ] {
        let output = fhirward(&["test", &case_file(folder.path(), &CASE.replace(from, to))]);
        assert_eq!(output.status.code(), Some(2), "{to}");
        let told = text(&output.stderr);
        assert!(wanted.iter().all(|part| told.contains(part)), "{to}: {told}");
    }
}

#[test]
fn json_output_has_the_documented_shape() {
    let folder = tempfile::tempdir().unwrap();
    let output = fhirward(&["test", "--output", "json", &case_file(folder.path(), CASE)]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["passed"], 1);
    assert_eq!(report["failed"], 0);
    let case = &report["tests"][0]["cases"][0];
    assert_eq!(case["rule"], "ns[datamesh]-policy[reads]-rule[0]");
    assert_eq!(case["forwarded"]["path"], "/Patient/1");
    assert_eq!(case["mismatches"], serde_json::json!([]));
}

#[test]
fn check_is_content_with_the_data_mesh_and_not_with_a_misspelt_field() {
    let folder = tempfile::tempdir().unwrap();
    let good =
        std::fs::read_to_string(repository().join("config/data-mesh/08-authorization-medic.yaml")).unwrap();
    std::fs::write(folder.path().join("bad.yaml"), good.replace("methods", "method")).unwrap();
    let output = fhirward(&["check", "--output", "json", &folder.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let fields: Vec<_> = report["problems"].as_array().unwrap().iter().map(|p| p["field"].clone()).collect();
    assert!(fields.contains(&Value::from("spec.rules[0].to[0].operation.method")), "{report}");

    let output = fhirward(&["check", "config/data-mesh"]);
    assert!(!text(&output.stdout).contains(" error: "), "{}", text(&output.stdout));
}

#[test]
fn explain_prints_what_each_rule_saw() {
    let claims = r#"{"iss":"https://keycloak.idea.lst.tfo.upm.es/realms/IDEA4RC","sub":"a","realm_access":{"roles":["Patient"]}}"#;
    let output = fhirward(&[
        "explain",
        "--manifests",
        "config/data-mesh",
        "--via",
        "gateway",
        "--method",
        "POST",
        "--path",
        "/Patient",
        "--claims",
        claims,
    ]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}{}", text(&output.stderr));
    for part in [
        "denied, status 403",
        "ns[datamesh]-policy[require-jwt-medic]-rule[0]",
        "claim realm_access.roles",
        "method is \"POST\"",
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
}
