//! Which policy decides.

use super::{Facts, alice, compile, compile_in, decide, policy};
use crate::{Verdict, decision::Summary, istio::MeshConfig};

fn id(name: &str, rule: usize) -> String {
    format!("ns[datamesh]-policy[{name}]-rule[{rule}]")
}

const GET: &str = r#"to: [{operation: {methods: ["GET"]}}]"#;

#[test]
fn without_policies_everything_passes() {
    let decision = decide(&compile(""), &Facts::default());
    assert_eq!((decision.verdict, decision.summary), (Verdict::Allow, Summary::NoAllowPolicy));
    assert_eq!(decision.rule, None);
}

#[test]
fn deny_goes_before_allow() {
    let text = policy("pass", "ALLOW", "{}") + &policy("stop", "DENY", GET);
    let decision = decide(&compile(&text), &Facts::default());
    assert_eq!((decision.verdict, decision.summary), (Verdict::Deny, Summary::DenyMatched));
    assert_eq!(decision.rule.as_deref(), Some(id("stop", 0).as_str()));
    let decision = decide(&compile(&text), &Facts::default().method("POST"));
    assert_eq!((decision.verdict, decision.summary), (Verdict::Allow, Summary::AllowMatched));
    assert_eq!(decision.rule.as_deref(), Some(id("pass", 0).as_str()));
}

#[test]
fn a_deny_that_does_not_match_leaves_the_rest_open() {
    let decision = decide(&compile(&policy("stop", "DENY", GET)), &Facts::default().method("POST"));
    assert_eq!((decision.verdict, decision.summary), (Verdict::Allow, Summary::NoAllowPolicy));
}

#[test]
fn an_allow_policy_denies_what_none_matches() {
    let decision = decide(&compile(&policy("get", "ALLOW", GET)), &Facts::default().method("POST"));
    assert_eq!((decision.verdict, decision.summary), (Verdict::Deny, Summary::NoAllowMatched));
    assert_eq!(decision.rule, None);
}

#[test]
fn an_empty_spec_denies_everything_and_an_empty_rule_allows_it() {
    let nothing = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                   metadata: {name: nothing, namespace: datamesh}\nspec: {}\n";
    let decision = decide(&compile(nothing), &Facts::default());
    assert_eq!((decision.verdict, decision.summary), (Verdict::Deny, Summary::NoAllowMatched));
    let without_spec = nothing.replace("spec: {}\n", "");
    assert_eq!(decide(&compile(&without_spec), &Facts::default()).verdict, Verdict::Deny);
    assert_eq!(decide(&compile(&policy("all", "ALLOW", "{}")), &Facts::default()).verdict, Verdict::Allow);
}

#[test]
fn allow_policies_are_ored_over_all_levels() {
    let mesh_wide = policy("wide", "ALLOW", GET).replace("datamesh", "istio-system");
    let text = mesh_wide + &policy("post", "ALLOW", r#"to: [{operation: {methods: ["POST"]}}]"#);
    for (method, want) in [("GET", Verdict::Allow), ("POST", Verdict::Allow), ("PUT", Verdict::Deny)] {
        assert_eq!(decide(&compile(&text), &Facts::default().method(method)).verdict, want);
    }
}

#[test]
fn custom_denies_what_it_matches_and_goes_first() {
    let custom = policy("ask", "CUSTOM", GET).replace("CUSTOM", "CUSTOM\n  provider: {name: opa}");
    let text = custom
        + &policy("pass", "ALLOW", "{}")
        + &policy("mark", "AUDIT", "{}")
        + &policy("stop", "DENY", "{}");
    let decision = decide(&compile(&text), &Facts::default());
    assert_eq!((decision.verdict, decision.summary), (Verdict::Deny, Summary::CustomMatched));
    assert_eq!(decision.rule.as_deref(), Some(id("ask", 0).as_str()));
    assert!(decision.audited.is_empty());
    let decision = decide(&compile(&text), &Facts::default().method("POST"));
    assert_eq!(decision.summary, Summary::DenyMatched);
}

#[test]
fn audit_marks_and_never_decides() {
    let text = policy("mark", "AUDIT", GET) + &policy("mark-2", "AUDIT", GET) + &policy("stop", "DENY", GET);
    let decision = decide(&compile(&text), &Facts::default());
    assert_eq!(decision.verdict, Verdict::Deny);
    let audited: Vec<String> = decision.audited.iter().map(ToString::to_string).collect();
    // By name: `-` sorts before `]`.
    assert_eq!(audited, [id("mark-2", 0), id("mark", 0)]);
    let only = compile(&policy("mark", "AUDIT", GET));
    assert_eq!(decide(&only, &Facts::default()).summary, Summary::NoAllowPolicy);
    assert!(decide(&only, &Facts::default().method("PUT")).audited.is_empty());
}

#[test]
fn dry_run_is_kept_apart() {
    let dry = |text: String| {
        text.replace(
            "namespace: datamesh}",
            "namespace: datamesh, annotations: {istio.io/dry-run: \"true\"}}",
        )
    };
    let text = dry(policy("deny", "DENY", GET))
        + &dry(policy("allow", "ALLOW", r#"to: [{operation: {methods: ["POST"]}}]"#));
    let authorization = compile(&text);
    let decision = decide(&authorization, &Facts::default());
    assert_eq!((decision.verdict, decision.summary), (Verdict::Allow, Summary::NoAllowPolicy));
    let dry_run = decision.dry_run.unwrap();
    assert_eq!(dry_run.denied_by.as_deref(), Some(id("deny", 0).as_str()));
    assert_eq!(dry_run.allow, Some(None));
    let dry_run = decide(&authorization, &Facts::default().method("POST")).dry_run.unwrap();
    assert_eq!(dry_run.denied_by, None);
    assert_eq!(dry_run.allow.unwrap().as_deref(), Some(id("allow", 0).as_str()));
    assert_eq!(decide(&compile(""), &Facts::default()).dry_run, None);
}

#[test]
fn the_rule_reported_is_the_first_by_name_and_root_denies_come_first() {
    let text = policy("b", "ALLOW", "{}") + &policy("a", "ALLOW", "{}");
    assert_eq!(decide(&compile(&text), &Facts::default()).rule.as_deref(), Some(id("a", 0).as_str()));
    let root = policy("z", "DENY", "{}").replace("datamesh", "istio-system");
    let text = policy("a", "DENY", "{}") + &root;
    let decision = decide(&compile(&text), &Facts::default());
    assert_eq!(decision.rule.as_deref(), Some("ns[istio-system]-policy[z]-rule[0]"));
    let mesh = MeshConfig { root_namespace: "elsewhere".to_owned(), ..MeshConfig::default() };
    let decision = decide(&compile_in(&text, &mesh), &Facts::default());
    assert_eq!(decision.rule.as_deref(), Some(id("a", 0).as_str()));
}

#[test]
fn the_index_of_the_rule_is_in_its_id() {
    let text = policy(
        "p",
        "ALLOW",
        "to: [{operation: {methods: [\"POST\"]}}]\n- to: [{operation: {methods: [\"GET\"]}}]",
    )
    .replace("    - to", "  - to");
    assert_eq!(decide(&compile(&text), &Facts::default()).rule.as_deref(), Some(id("p", 1).as_str()));
}

#[test]
fn deny_without_a_request_principal_requires_a_token() {
    let text = policy("require-jwt", "DENY", r#"from: [{source: {notRequestPrincipals: ["*"]}}]"#);
    assert_eq!(decide(&compile(&text), &Facts::default()).verdict, Verdict::Deny);
    assert_eq!(decide(&compile(&text), &alice()).verdict, Verdict::Allow);
}

/// The tutorial's table, after authentication.
#[test]
fn the_tutorials_two_policies() {
    let rule = |role: &str, method: &str| {
        format!(
            "from: [{{source: {{requestPrincipals: [\"*\"]}}}}]\n  to: [{{operation: {{methods: [\"{method}\"]}}}}]\n  \
             when: [{{key: \"request.auth.claims[realm_access][roles]\", values: [\"{role}\"]}}]"
        )
        .replace("\n  ", "\n")
    };
    let text = policy("require-jwt-medic", "ALLOW", &rule("Medic", "POST"))
        + &policy("require-jwt-patient", "ALLOW", &rule("Patient", "GET"));
    let authorization = compile(&text);
    let bob = Facts::default().token(serde_json::json!({
        "iss": "https://kc/realms/r", "sub": "bob", "realm_access": {"roles": ["Medic"]}
    }));
    let nobody = Facts::default();
    for (facts, method, want) in [
        (&nobody, "GET", None),
        (&nobody, "POST", None),
        (&alice(), "GET", Some("require-jwt-patient")),
        (&alice(), "POST", None),
        (&alice(), "DELETE", None),
        (&bob, "GET", None),
        (&bob, "POST", Some("require-jwt-medic")),
    ] {
        let decision = decide(&authorization, &facts.clone().method(method));
        let rule = want.map(|name| id(name, 0));
        assert_eq!(decision.rule.as_deref(), rule.as_deref(), "{method}");
        assert_eq!(decision.verdict == Verdict::Allow, want.is_some(), "{method}");
    }
}

#[test]
fn on_tcp_an_allow_rule_with_http_fields_vanishes_and_a_deny_blocks_the_port() {
    let tcp = Facts::tcp().peer("cluster.local/ns/default/sa/sleep");
    let mixed = r#"from: [{source: {namespaces: ["default"]}}]
to: [{operation: {methods: ["GET"]}}]"#;
    assert_eq!(decide(&compile(&policy("p", "ALLOW", mixed)), &tcp).verdict, Verdict::Deny);
    assert_eq!(decide(&compile(&policy("p", "DENY", mixed)), &tcp).verdict, Verdict::Deny);
    assert_eq!(decide(&compile(&policy("p", "DENY", mixed)), &Facts::tcp()).verdict, Verdict::Allow);
    // The whole rule vanishes, even where another of its sources would do.
    let one_of = r#"from: [{source: {namespaces: ["default"]}}, {source: {requestPrincipals: ["*"]}}]"#;
    assert_eq!(decide(&compile(&policy("p", "ALLOW", one_of)), &tcp).verdict, Verdict::Deny);
    let ports = r#"to: [{operation: {ports: ["8080"], methods: ["GET"]}}]"#;
    assert_eq!(decide(&compile(&policy("p", "DENY", ports)), &tcp).verdict, Verdict::Deny);
    let other = Facts { port: 5432, ..tcp.clone() };
    assert_eq!(decide(&compile(&policy("p", "DENY", ports)), &other).verdict, Verdict::Allow);
    let plain = r#"from: [{source: {namespaces: ["default"]}}]"#;
    assert_eq!(decide(&compile(&policy("p", "ALLOW", plain)), &tcp).verdict, Verdict::Allow);
    // Negations are HTTP fields too.
    let negative = r#"to: [{operation: {notMethods: ["POST"]}}]"#;
    assert_eq!(decide(&compile(&policy("p", "ALLOW", negative)), &tcp).verdict, Verdict::Deny);
    assert_eq!(decide(&compile(&policy("p", "DENY", negative)), &tcp).verdict, Verdict::Deny);
}

#[test]
fn what_istio_cannot_translate_narrows_allow_and_widens_deny() {
    let rule = r#"to: [{operation: {methods: ["GET"]}}]
when: [{key: "request.headersX[a]", values: ["b"]}]"#;
    assert_eq!(decide(&compile(&policy("p", "ALLOW", rule)), &Facts::default()).verdict, Verdict::Deny);
    assert_eq!(decide(&compile(&policy("p", "DENY", rule)), &Facts::default()).verdict, Verdict::Deny);
    let decision = decide(&compile(&policy("p", "DENY", rule)), &Facts::default().method("PUT"));
    assert_eq!(decision.verdict, Verdict::Allow);
}

#[test]
fn a_caller_whom_no_request_helps_is_known_before_its_first_word() {
    let may = |text: &str, facts: &Facts| compile(text).may_permit(&facts.question());
    let (caller, other) = (Facts::tcp().peer("td/ns/a/sa/x"), Facts::tcp().peer("td/ns/b/sa/y"));
    let only = policy(
        "only",
        "ALLOW",
        "from: [{source: {principals: [td/ns/a/sa/x]}}]\nto: [{operation: {methods: [GET]}}]",
    );
    assert!(may("", &other) && may(&only, &caller) && !may(&only, &other));
    assert!(!may(&only, &Facts::tcp()), "no identity");
    // What is said later may be anything, its absence included.
    for rule in [
        "from: [{source: {requestPrincipals: ['*'], namespaces: [a]}}]",
        "from: [{source: {remoteIpBlocks: [192.0.2.0/24], namespaces: [a]}}]",
        "from: [{source: {namespaces: [a]}}]\nwhen: [{key: connection.sni, values: [s]}]",
        "from: [{source: {namespaces: [a]}}]\nto: [{operation: {notPaths: ['*']}}]",
    ] {
        let text = policy("one", "ALLOW", rule);
        assert!(may(&text, &caller) && !may(&text, &other), "{rule}");
    }
    // A DENY turns away at once only whom every request of theirs would have denied.
    let deny = policy("deny", "DENY", "from: [{source: {namespaces: [b]}}]");
    assert!(may(&deny, &caller) && !may(&deny, &other));
    for rule in ["from: [{source: {namespaces: [b]}}]\nto: [{operation: {methods: [POST]}}]", GET] {
        assert!(may(&policy("deny", "DENY", rule), &other), "{rule}");
    }
    let nothing = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                   metadata: {name: nothing, namespace: datamesh}\nspec: {}\n";
    assert!(!may(nothing, &caller));
}
