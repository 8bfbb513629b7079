//! What `fhirward check` tells of rules that are admitted.

use super::{policies, policy};
use crate::{istio::MeshConfig, target::Normalization};

fn codes_in(mesh: &MeshConfig, action: &str, rule: &str) -> Vec<&'static str> {
    let problems: Vec<_> =
        policies(&policy("p", action, rule)).iter().flat_map(|one| one.lint(mesh)).collect();
    assert!(problems.iter().all(|problem| !problem.is_error() && problem.place.line > 1));
    problems.into_iter().map(|problem| problem.code).collect()
}

fn codes(rule: &str) -> Vec<&'static str> {
    codes_in(&MeshConfig::default(), "ALLOW", rule)
}

#[test]
fn rules_that_never_match() {
    for (rule, code) in [
        (r#"to: [{operation: {methods: ["get"]}}]"#, "lower-case-method"),
        (r#"to: [{operation: {paths: ["fhir"]}}]"#, "never-matches"),
        (r#"to: [{operation: {paths: ["fhir/*"]}}]"#, "never-matches"),
        (r#"to: [{operation: {paths: ["/a?b"]}}]"#, "path-with-query"),
        (r#"to: [{operation: {notPaths: ["/a#b"]}}]"#, "path-with-query"),
        (r#"to: [{operation: {paths: ["/a/../b"]}}]"#, "never-matches"),
        (r#"to: [{operation: {paths: ["/a/./*"]}}]"#, "never-matches"),
        (r#"to: [{operation: {paths: ["/a%2Eb"]}}]"#, "never-matches"),
        (r#"to: [{operation: {paths: ["/a|b"]}}]"#, "never-matches"),
        (r#"to: [{operation: {paths: ["*\\a"]}}]"#, "never-matches"),
        (r#"to: [{operation: {ports: ["0"]}}]"#, "never-matches"),
        (r#"to: [{operation: {methods: ["GET"], notMethods: ["GET"]}}]"#, "never-matches"),
        (r#"from: [{source: {principals: ["spiffe://a/ns/b/sa/c"]}}]"#, "spiffe-prefix"),
        (r#"from: [{source: {principals: ["sleep"]}}]"#, "never-matches"),
        (r#"from: [{source: {namespaces: ["a/b"]}}]"#, "never-matches"),
        (r#"from: [{source: {requestPrincipals: ["/alice"]}}]"#, "never-matches"),
        (r#"from: [{source: {requestPrincipals: ["https://kc/"]}}]"#, "never-matches"),
        (r#"from: [{source: {requestPrincipals: ["*/*"]}}]"#, "never-matches"),
        (r#"from: [{source: {requestPrincipals: ["alice"]}}]"#, "never-matches"),
        (r#"from: [{source: {requestPrincipals: ["https://kc/realms/x*"]}}]"#, "surprising-match"),
        (r#"when: [{key: source.ip, values: ["10.0.0.1"], notValues: ["10.0.0.1"]}]"#, "never-matches"),
        (r#"when: [{key: "request.auth.claims[scope]", values: ["a b"]}]"#, "never-matches"),
        (r#"when: [{key: "request.headers[a b]", values: ["x"]}]"#, "never-matches"),
        (r#"when: [{key: "request.headersX[a]", values: ["x"]}]"#, "surprising-match"),
        (r#"when: [{key: "experimental.envoy.filters.a[b]", values: ["x"]}]"#, "never-matches"),
        (r#"to: [{operation: {hosts: ["fhir.example"]}}]"#, "surprising-match"),
    ] {
        assert_eq!(codes(rule), [code], "{rule}");
    }
}

#[test]
fn rules_that_are_fine() {
    for rule in [
        r#"to: [{operation: {methods: ["GET", "*"], paths: ["/a", "/a/*", "*/b", "*", "/t/{*}"]}}]"#,
        r#"to: [{operation: {hosts: ["fhir.example", "fhir.example:*", "*.B", "x:80"]}}]"#,
        r#"to: [{operation: {paths: ["//a"], ports: ["8080"]}}]"#,
        r#"from: [{source: {principals: ["*", "td/ns/a/sa/b", "td/*"], namespaces: ["a*"]}}]"#,
        r#"from: [{source: {requestPrincipals: ["*", "https://kc/realms/r/*", "*/alice"]}}]"#,
        r#"to: [{operation: {methods: ["*"], notMethods: ["DELETE"]}}]"#,
        "{}",
    ] {
        assert_eq!(codes(rule), [""; 0], "{rule}");
    }
}

#[test]
fn what_never_matches_depends_on_the_mode() {
    let mesh = |mode| MeshConfig { path_normalization: mode, ..MeshConfig::default() };
    let rule = r#"to: [{operation: {paths: ["//a"]}}]"#;
    assert_eq!(codes_in(&mesh(Normalization::MergeSlashes), "ALLOW", rule), ["never-matches"]);
    let rule = r#"to: [{operation: {paths: ["/a%2fb"]}}]"#;
    assert_eq!(codes(rule), [""; 0]);
    assert_eq!(codes_in(&mesh(Normalization::DecodeAndMergeSlashes), "ALLOW", rule), ["never-matches"]);
    let rule = r#"to: [{operation: {paths: ["/a/../b"]}}]"#;
    assert_eq!(codes_in(&mesh(Normalization::None), "ALLOW", rule), [""; 0]);
}

#[test]
fn a_deny_of_http_fields_denies_tcp() {
    let mesh = MeshConfig::default();
    for (rule, warned) in [
        (r#"to: [{operation: {methods: ["GET"]}}]"#, true),
        (r#"to: [{operation: {methods: ["GET"], ports: ["80"]}}]"#, false),
        (r#"from: [{source: {notRequestPrincipals: ["*"]}}]"#, true),
        (r#"from: [{source: {namespaces: ["a"]}}]"#, false),
        ("{}", false),
    ] {
        let found = codes_in(&mesh, "DENY", rule).contains(&"http-rule-on-tcp");
        assert_eq!(found, warned, "{rule}");
    }
}
