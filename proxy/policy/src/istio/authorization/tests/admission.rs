//! What Istio's admission refuses.

use super::{policy, read};

/// The message and field of the only error.
#[track_caller]
fn error(text: &str) -> (String, String) {
    let (policies, problems) = read(text);
    assert!(policies.is_empty(), "admitted: {text}");
    let errors: Vec<_> = problems.iter().filter(|problem| problem.is_error()).collect();
    assert_eq!(errors.len(), 1, "{problems:#?}");
    assert_eq!(errors[0].object.as_deref(), Some("AuthorizationPolicy datamesh/p"));
    (errors[0].message.clone(), errors[0].field.clone())
}

#[test]
#[allow(clippy::too_many_lines)] // A table.
fn rules_that_are_refused() {
    for (rule, field, says) in [
        ("from: []", "spec.rules[0].from", "must not be empty"),
        ("to: []", "spec.rules[0].to", "must not be empty"),
        ("from: [{}]", "spec.rules[0].from[0]", "`source` is missing"),
        ("to: [{}]", "spec.rules[0].to[0]", "`operation` is missing"),
        ("from: [{source: {}}]", "spec.rules[0].from[0].source", "must not be empty"),
        ("to: [{operation: {}}]", "spec.rules[0].to[0].operation", "must not be empty"),
        ("to: [{operation: {methods: []}}]", "spec.rules[0].to[0].operation", "must not be empty"),
        (
            r#"from: [{source: {principals: ["a", ""]}}]"#,
            "spec.rules[0].from[0].source.principals[1]",
            "empty value",
        ),
        (
            r#"from: [{source: {ipBlocks: ["10.0.0.0/33"]}}]"#,
            "spec.rules[0].from[0].source.ipBlocks[0]",
            "bad IP address",
        ),
        (
            r#"from: [{source: {remoteIpBlocks: ["x"]}}]"#,
            "spec.rules[0].from[0].source.remoteIpBlocks[0]",
            "bad IP",
        ),
        (
            r#"from: [{source: {notIpBlocks: ["10.0.0.1/08"]}}]"#,
            "spec.rules[0].from[0].source.notIpBlocks[0]",
            "bad IP",
        ),
        (r#"to: [{operation: {ports: ["65536"]}}]"#, "spec.rules[0].to[0].operation.ports[0]", "bad port"),
        (
            r#"to: [{operation: {notPorts: ["http"]}}]"#,
            "spec.rules[0].to[0].operation.notPorts[0]",
            "bad port",
        ),
        (r#"to: [{operation: {ports: ["-1"]}}]"#, "spec.rules[0].to[0].operation.ports[0]", "bad port"),
        (r#"to: [{operation: {paths: ["/a/{b}"]}}]"#, "spec.rules[0].to[0].operation.paths[0]", "braces"),
        (
            r#"to: [{operation: {paths: ["/{**}/{*}"]}}]"#,
            "spec.rules[0].to[0].operation.paths[0]",
            "last operator",
        ),
        (r#"to: [{operation: {paths: ["/a*/{*}"]}}]"#, "spec.rules[0].to[0].operation.paths[0]", "mixed"),
        (r#"to: [{operation: {paths: ["/a{*}"]}}]"#, "spec.rules[0].to[0].operation.paths[0]", "alone"),
        (r#"to: [{operation: {paths: ["{*}/a"]}}]"#, "spec.rules[0].to[0].operation.paths[0]", "begins with"),
        (
            r#"to: [{operation: {paths: ["/a//{*}"]}}]"#,
            "spec.rules[0].to[0].operation.paths[0]",
            "empty segments",
        ),
        (
            r#"to: [{operation: {notPaths: ["/é/{*}"]}}]"#,
            "spec.rules[0].to[0].operation.notPaths[0]",
            "characters",
        ),
        (
            r#"from: [{source: {serviceAccounts: ["*"]}}]"#,
            "spec.rules[0].from[0].source.serviceAccounts[0]",
            "wildcards",
        ),
        (
            r#"from: [{source: {serviceAccounts: ["a/b/c"]}}]"#,
            "spec.rules[0].from[0].source.serviceAccounts[0]",
            "expected",
        ),
        (
            r#"from: [{source: {serviceAccounts: ["/b"]}}]"#,
            "spec.rules[0].from[0].source.serviceAccounts[0]",
            "expected",
        ),
        (
            r#"from: [{source: {serviceAccounts: ["a"], notNamespaces: ["b"]}}]"#,
            "spec.rules[0].from[0].source",
            "together with",
        ),
        (r#"when: [{values: ["a"]}]"#, "spec.rules[0].when[0]", "`key` must not be empty"),
        (r#"when: [{key: source.ip}]"#, "spec.rules[0].when[0]", "at least one of"),
        (r#"when: [{key: source.ip, values: []}]"#, "spec.rules[0].when[0]", "at least one of"),
        (r#"when: [{key: source.ip, values: ["x"]}]"#, "spec.rules[0].when[0].values[0]", "bad IP"),
        (
            r#"when: [{key: destination.ip, notValues: ["x"]}]"#,
            "spec.rules[0].when[0].notValues[0]",
            "bad IP",
        ),
        (r#"when: [{key: destination.port, values: ["x"]}]"#, "spec.rules[0].when[0].values[0]", "bad port"),
        (r#"when: [{key: source.user, values: ["x"]}]"#, "spec.rules[0].when[0].key", "unknown attribute"),
        (
            r#"when: [{key: "destination.labels[a]", values: ["x"]}]"#,
            "spec.rules[0].when[0].key",
            "workload selector",
        ),
        (r#"when: [{key: "request.headers[]", values: ["x"]}]"#, "spec.rules[0].when[0].key", "a[b]"),
        (
            r#"when: [{key: "request.headers[:path]", values: ["x"]}]"#,
            "spec.rules[0].when[0].key",
            "not supported",
        ),
        (
            r#"when: [{key: "request.headers[a]", values: [""]}]"#,
            "spec.rules[0].when[0].values[0]",
            "empty value",
        ),
        (r#"to: [{operation: {method: ["GET"]}}]"#, "spec.rules[0].to[0].operation.method", "method"),
    ] {
        let (message, at) = error(&policy("p", "DENY", rule));
        assert_eq!(at, field, "{rule}: {message}");
        assert!(message.contains(says), "{rule}: {message}");
    }
}

#[test]
fn more_than_sixteen_service_accounts() {
    let accounts: Vec<_> = (0..17).map(|i| format!("a{i}")).collect();
    let rule = format!("from: [{{source: {{serviceAccounts: [{}]}}}}]", accounts.join(", "));
    let (message, field) = error(&policy("p", "ALLOW", &rule));
    assert_eq!(field, "spec.rules[0].from[0].source.serviceAccounts");
    assert!(message.contains("at most 16"), "{message}");
}

fn with_spec(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: p, namespace: datamesh}}\nspec: {spec}\n"
    )
}

#[test]
fn specs_that_are_refused() {
    for (spec, says) in [
        ("{action: DENY}", "without `rules`"),
        ("{action: DENY, rules: []}", "without `rules`"),
        ("{action: AUDIT}", "without `rules`"),
        ("{action: CUSTOM, provider: {name: x}}", "without `rules`"),
        ("{action: CUSTOM, rules: [{}]}", "needs `provider.name`"),
        ("{action: CUSTOM, provider: {name: ''}, rules: [{}]}", "must not be empty"),
        ("{provider: {name: x}, rules: [{}]}", "CUSTOM only"),
        ("{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: x}]}", "only one of"),
        ("{action: REFUSE, rules: [{}]}", "REFUSE"),
        ("{rule: [{}]}", "rule"),
    ] {
        let (message, _) = error(&with_spec(spec));
        assert!(message.contains(says), "{spec}: {message}");
    }
}

#[test]
fn custom_knows_no_identity() {
    for field in ["principals", "notPrincipals", "namespaces", "requestPrincipals", "serviceAccounts"] {
        let rule = format!("from: [{{source: {{{field}: [\"a\"]}}}}]");
        let text = policy("p", "CUSTOM", &rule).replace("CUSTOM", "CUSTOM\n  provider: {name: x}");
        assert!(error(&text).0.contains("not supported with CUSTOM"), "{field}");
    }
    for key in ["source.namespace", "source.principal", "request.auth.principal", "request.auth.claims[a]"] {
        let rule = format!("when: [{{key: \"{key}\", values: [\"a\"]}}]");
        let text = policy("p", "CUSTOM", &rule).replace("CUSTOM", "CUSTOM\n  provider: {name: x}");
        assert!(error(&text).0.contains("not supported with CUSTOM"), "{key}");
    }
}

#[test]
fn an_empty_list_beside_a_full_one_is_told() {
    let (policies, problems) =
        read(&policy("p", "ALLOW", r#"to: [{operation: {methods: ["GET"], paths: []}}]"#));
    assert_eq!(policies.len(), 1);
    assert_eq!(problems.len(), 1);
    assert!(!problems[0].is_error());
    assert_eq!(problems[0].field, "spec.rules[0].to[0].operation.paths");
}

#[test]
fn a_dry_run_annotation_that_cannot_be_read_leaves_the_policy_enforced() {
    let text = policy("p", "DENY", "{}");
    for (value, dry_run, warned) in
        [("true", true, 0), ("T", true, 0), ("false", false, 0), ("yes", false, 1)]
    {
        let annotated = text.replace(
            "namespace: datamesh}",
            &format!("namespace: datamesh, annotations: {{istio.io/dry-run: \"{value}\"}}}}"),
        );
        let (policies, problems) = read(&annotated);
        assert_eq!(policies[0].dry_run, dry_run, "{value}");
        assert_eq!(problems.len(), warned, "{value}");
    }
}
