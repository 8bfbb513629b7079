//! What explanations say.

use super::{Facts, alice, compile, policy};
use crate::{Outcome, Step};

fn steps(action: &str, rule: &str, facts: &Facts) -> Vec<Step> {
    compile(&policy("p", action, rule)).explain(&facts.question()).1
}

fn details(rule: &str, facts: &Facts) -> Vec<String> {
    let steps = steps("ALLOW", rule, facts);
    steps.into_iter().filter(|step| step.depth == 2).map(|step| step.detail).collect()
}

#[test]
fn details_say_what_was_seen_and_wanted() {
    let facts = alice().method("POST").header("x-tag", b"a").header("x-tag", b"b");
    for (rule, want) in [
        (
            r#"when: [{key: "request.auth.claims[realm_access][roles]", values: ["Medic"]}]"#,
            r#"claim realm_access.roles is ["Patient", "offline_access"], wanted one of ["Medic"]"#,
        ),
        (r#"to: [{operation: {methods: ["GET"]}}]"#, r#"method is "POST", wanted one of ["GET"]"#),
        (r#"to: [{operation: {notMethods: ["POST"]}}]"#, r#"method is "POST", wanted none of ["POST"]"#),
        (
            r#"to: [{operation: {paths: ["/x", "/t/{*}"]}}]"#,
            r#"path is "/fhir/Patient", wanted one of ["/x", "/t/{*}"]"#,
        ),
        (
            r#"to: [{operation: {hosts: ["h"], ports: ["80"]}}]"#,
            r#"host is "fhir-service:8080", wanted one of ["h"]"#,
        ),
        (
            r#"from: [{source: {requestPrincipals: ["*/bob"]}}]"#,
            r#"request principal is "https://kc/realms/r/alice", wanted one of ["*/bob"]"#,
        ),
        (r#"from: [{source: {principals: ["*"]}}]"#, r#"principal is absent, wanted one of ["*"]"#),
        (
            r#"from: [{source: {ipBlocks: ["11.0.0.0/8"]}}]"#,
            r#"source ip is 10.0.0.7, wanted one of ["11.0.0.0/8"]"#,
        ),
        (
            r#"from: [{source: {remoteIpBlocks: ["11.0.0.0/8"]}}]"#,
            r#"remote ip is 198.51.100.7, wanted one of ["11.0.0.0/8"]"#,
        ),
        (
            r#"when: [{key: "request.headers[X-Tag]", values: ["c"]}]"#,
            r#"header x-tag is ["a", "b"], wanted one of ["c"]"#,
        ),
        (r#"when: [{key: connection.sni, values: ["c"]}]"#, r#"sni is absent, wanted one of ["c"]"#),
        (r#"to: [{operation: {ports: ["80"]}}]"#, r#"port is 8080, wanted one of ["80"]"#),
    ] {
        assert_eq!(details(rule, &facts).first().map(String::as_str), Some(want));
    }
    let none = details(r#"from: [{source: {requestPrincipals: ["*"]}}]"#, &Facts::default());
    assert_eq!(none, [r#"request principal is absent, wanted one of ["*"]"#]);
}

#[test]
fn a_token_without_sub_says_so() {
    let facts = Facts::default().token(serde_json::json!({"iss": "i"}));
    let text = details(r#"from: [{source: {requestPrincipals: ["*"]}}]"#, &facts).concat();
    assert!(text.starts_with("request principal is absent (the token has no `sub`)"), "{text}");
}

#[test]
fn every_predicate_is_looked_at_and_placed_under_its_rule() {
    let rule = r#"from: [{source: {namespaces: ["a"]}}]
to: [{operation: {methods: ["PUT"], paths: ["/fhir/*"]}}]"#;
    let steps = steps("ALLOW", rule, &Facts::default());
    let told: Vec<_> = steps.iter().map(|step| (step.depth, step.subject.as_str(), step.outcome)).collect();
    assert_eq!(
        told,
        [
            (0, "ALLOW", Outcome::NotMatched),
            (1, "ns[datamesh]-policy[p]-rule[0]", Outcome::NotMatched),
            (2, "from[0].source.namespaces", Outcome::NotMatched),
            (2, "to[0].operation.methods", Outcome::NotMatched),
            (2, "to[0].operation.paths", Outcome::Matched),
        ]
    );
    assert_eq!(steps[0].detail, "1 policy, 1 rule");
    assert!(steps[1].place.as_deref().unwrap().starts_with("test.yaml:"));
}

#[test]
fn later_rules_and_stages_are_skipped_by_name() {
    let text = policy("a", "DENY", "{}") + &policy("b", "DENY", "{}") + &policy("c", "ALLOW", "{}");
    let (_, steps) = compile(&text).explain(&Facts::default().question());
    let told: Vec<_> = steps.iter().map(|step| (step.subject.as_str(), step.outcome)).collect();
    assert_eq!(
        told,
        [
            ("DENY", Outcome::Matched),
            ("ns[datamesh]-policy[a]-rule[0]", Outcome::Matched),
            ("ns[datamesh]-policy[b]-rule[0]", Outcome::Skipped),
            ("ALLOW", Outcome::Skipped),
        ]
    );
}

#[test]
fn tcp_is_told() {
    let rule = r#"to: [{operation: {methods: ["GET"]}}]"#;
    let text: String = steps("ALLOW", rule, &Facts::tcp()).iter().map(ToString::to_string).collect();
    assert!(text.contains("does not exist for a TCP connection"), "{text}");
    let text: String = steps("DENY", rule, &Facts::tcp()).iter().map(ToString::to_string).collect();
    assert!(text.contains("dropped for a TCP connection"), "{text}");
}

#[test]
fn what_is_seen_is_quoted_and_bounded() {
    let facts = Facts::default().path(&format!("/{}\n", "a".repeat(5000)));
    let text = details(r#"to: [{operation: {paths: ["/x"]}}]"#, &facts).concat();
    assert!(text.len() < 600 && !text.contains('\n'), "{text}");
}
