#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::{Severity, manifest::parse};

const ISSUER: &str = "https://kc.example/realms/IDEA4RC";
const CERTS: &str = "https://kc.example/realms/IDEA4RC/protocol/openid-connect/certs";

fn object(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn request(rules: &str) -> String {
    object("RequestAuthentication", "jwt", "datamesh", &format!("{{jwtRules: [{{{rules}}}]}}"))
}

fn tokens() -> String {
    request(&format!("issuer: '{ISSUER}', jwksUri: '{CERTS}'"))
}

fn policy(spec: &str) -> String {
    object("AuthorizationPolicy", "az", "datamesh", spec)
}

fn fhir() -> WorkloadFacts {
    WorkloadFacts {
        name: "datamesh/fhir-server".parse().unwrap(),
        labels: [("app".to_owned(), "fhir-server".to_owned())].into(),
        services: vec!["fhir-service".to_owned()],
        gateways: Vec::new(),
        gateway_classes: Vec::new(),
    }
}

fn lint_with(text: &str, workloads: &[WorkloadFacts]) -> Vec<Problem> {
    let (objects, problems) = parse("m.yaml", text);
    assert_eq!(problems, []);
    let (policies, problems) = Policies::read(&objects);
    assert!(!problems.iter().any(Problem::is_error), "{problems:?}");
    let found = policies.lint(&MeshConfig::default(), &objects, workloads);
    assert!(found.iter().all(|one| one.severity < Severity::Error));
    let known = |code| crate::manifest::codes::ALL.iter().any(|(known, _)| *known == code);
    assert!(found.iter().all(|one| known(one.code)), "{found:?}");
    found
}

fn told(text: &str) -> Vec<(&'static str, String)> {
    lint_with(text, &[fhir()]).into_iter().map(|one| (one.code, one.field)).collect()
}

#[track_caller]
fn tells(text: &str, code: &str, field: &str) {
    let told = told(text);
    assert!(told.iter().any(|(found, at)| *found == code && at == field), "{code} {field}: {told:?}");
}

#[track_caller]
fn does_not_tell(text: &str, code: &str) {
    let told = told(text);
    assert!(told.iter().all(|(found, _)| *found != code), "{code}: {told:?}");
}

const MEDIC: &str = "{selector: {matchLabels: {app: fhir-server}}, action: ALLOW, rules: [{from: \
    [{source: {requestPrincipals: ['*']}}], to: [{operation: {methods: [POST]}}], when: \
    [{key: 'request.auth.claims[realm_access][roles]', values: [Medic]}]}]}";

#[test]
fn the_tutorial_has_only_the_hint_about_sub() {
    let text = tokens() + &policy(MEDIC);
    assert_eq!(
        told(&text),
        [("keycloak-no-sub", "spec.rules[0].from[0].source.requestPrincipals[0]".to_owned())]
    );
    let problem = lint_with(&text, &[fhir()]).remove(0);
    assert_eq!(problem.object.as_deref(), Some("AuthorizationPolicy datamesh/az"));
    assert_eq!(problem.place.line, 10);
}

#[test]
fn without_workloads_nothing_is_said_about_selection() {
    let text = tokens() + &policy(MEDIC);
    let found = lint_with(&text, &[]);
    assert_eq!(found.iter().map(|one| one.code).collect::<Vec<_>>(), ["keycloak-no-sub"]);
}

#[test]
fn a_policy_that_selects_nothing() {
    tells(&policy("{selector: {matchLabels: {app: typo}}}"), "selects-nothing", "spec.selector");
    let target =
        |kind: &str, group: &str| format!("{{targetRefs: [{{kind: {kind}, group: {group}, name: x}}]}}");
    for (kind, group) in [
        ("Service", "''"),
        ("ServiceEntry", "networking.istio.io"),
        ("GatewayClass", "gateway.networking.k8s.io"),
    ] {
        tells(&policy(&target(kind, group)), "selects-nothing", "spec.targetRefs");
    }
    does_not_tell(&policy("{targetRefs: [{kind: Service, name: fhir-service}]}"), "selects-nothing");
    let pa = object("PeerAuthentication", "pa", "datamesh", "{selector: {matchLabels: {app: typo}}}");
    tells(&pa, "selects-nothing", "spec.selector");
}

#[test]
fn a_policy_in_a_namespace_without_workloads() {
    let text = object("AuthorizationPolicy", "az", "datamsh", "{}");
    tells(&text, "empty-namespace", "metadata.namespace");
    does_not_tell(&object("AuthorizationPolicy", "az", "istio-system", "{}"), "empty-namespace");
}

#[test]
fn tokens_wanted_where_none_are_taken() {
    let at = "spec.rules[0].from[0].source.requestPrincipals[0]";
    tells(&policy(MEDIC), "no-request-authentication", at);
    let claim = policy("{rules: [{when: [{key: 'request.auth.claims[scope]', values: [x]}]}]}");
    tells(&claim, "no-request-authentication", "spec.rules[0].when[0].values[0]");
    does_not_tell(&(tokens() + &policy(MEDIC)), "no-request-authentication");
    let elsewhere = tokens().replace("namespace: datamesh", "namespace: other");
    tells(&(elsewhere + &policy(MEDIC)), "no-request-authentication", at);
}

#[test]
fn issuers_that_nobody_takes() {
    let wants = |principal: &str| {
        tokens()
            + &policy(&format!("{{rules: [{{from: [{{source: {{requestPrincipals: ['{principal}']}}}}]}}]}}"))
    };
    let at = "spec.rules[0].from[0].source.requestPrincipals[0]";
    tells(&wants("https://kc.example/realms/OTHER/*"), "unknown-issuer", at);
    tells(&wants("https://kc.example/realms/IDEA4RC//*"), "unknown-issuer", at);
    for good in [&format!("{ISSUER}/*"), &format!("{ISSUER}/alice"), "*", "*/alice"] {
        does_not_tell(&wants(good), "unknown-issuer");
    }
    let by_claim =
        tokens() + &policy("{rules: [{when: [{key: 'request.auth.claims[iss]', values: ['http://x']}]}]}");
    tells(&by_claim, "unknown-issuer", "spec.rules[0].when[0].values[0]");
    let any = request(&format!("jwksUri: '{CERTS}'"))
        + &policy("{rules: [{from: [{source: {requestPrincipals: ['x/y']}}]}]}");
    does_not_tell(&any, "unknown-issuer");
    let slash = lint_with(&wants("http://KC.example/realms/IDEA4RC/*"), &[fhir()]);
    let problem = slash.iter().find(|one| one.code == "unknown-issuer").unwrap();
    assert!(problem.message.contains(&format!("did you mean `{ISSUER}`?")), "{problem}");
}

#[test]
fn a_token_that_nothing_requires() {
    tells(&tokens(), "token-not-required", "spec");
    let get = policy("{rules: [{to: [{operation: {methods: [GET]}}]}]}");
    tells(&(tokens() + &get), "token-not-required", "spec");
    let dry = policy(MEDIC).replace("{name: az,", "{annotations: {istio.io/dry-run: 'true'}, name: az,");
    tells(&(tokens() + &dry), "token-not-required", "spec");
    let nothing = policy("{}");
    let require = policy("{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]}");
    for asked in [nothing, require, policy(MEDIC)] {
        does_not_tell(&(tokens() + &asked), "token-not-required");
    }
    let mesh_wide = tokens().replace("namespace: datamesh", "namespace: istio-system") + &policy(MEDIC);
    assert!(lint_with(&mesh_wide, &[]).iter().all(|one| one.code != "token-not-required"));
    assert_eq!(lint_with(&tokens(), &[]).first().map(|one| one.code), Some("token-not-required"));
}

#[test]
fn keycloak_audience_is_account_by_default() {
    let with =
        |audiences: &str| request(&format!("issuer: '{ISSUER}', jwksUri: '{CERTS}', audiences: {audiences}"));
    tells(&with("[fhir]"), "keycloak-audience", "audiences");
    does_not_tell(&with("[fhir, account]"), "keycloak-audience");
    does_not_tell(&with("[]"), "keycloak-audience");
    let other = request("issuer: 'https://accounts.example', audiences: [fhir]");
    does_not_tell(&other, "keycloak-audience");
    let when = |value: &str| {
        tokens()
            + &policy(&format!("{{rules: [{{when: [{{key: request.auth.audiences, values: [{value}]}}]}}]}}"))
    };
    tells(&when("fhir"), "keycloak-audience", "spec.rules[0].when[0].values[0]");
    does_not_tell(&when("account"), "keycloak-audience");
}

#[test]
fn keycloak_claims_are_nested_in_brackets() {
    let when = |key: &str| {
        tokens()
            + &policy(&format!(
                "{{rules: [{{when: [{{key: 'request.auth.claims{key}', values: [Medic]}}]}}]}}"
            ))
    };
    let at = "spec.rules[0].when[0].values[0]";
    for (bad, good) in [
        ("[realm_access.roles]", "[realm_access][roles]"),
        ("[realm_access]", "[realm_access][roles]"),
        ("[realm_access][role]", "[realm_access][roles]"),
        ("[resource_access.idea.roles]", "[resource_access][idea][roles]"),
        ("[resource_access][idea]", "[resource_access][idea][roles]"),
        ("[resource_access]", "[resource_access][<client>][roles]"),
    ] {
        tells(&when(bad), "keycloak-claim-path", at);
        let found = lint_with(&when(bad), &[fhir()]);
        let problem = found.iter().find(|one| one.code == "keycloak-claim-path").unwrap();
        assert!(problem.message.ends_with(&format!("`request.auth.claims{good}`")), "{problem}");
    }
    for good in
        ["[realm_access][roles]", "[resource_access][idea][roles]", "[roles]", "[scope]", "[https://x.y/z]"]
    {
        does_not_tell(&when(good), "keycloak-claim-path");
    }
}

#[test]
fn keycloak_issuers_and_key_endpoints_agree() {
    let with = |issuer: &str, jwks: &str| request(&format!("issuer: '{issuer}', jwksUri: '{jwks}'"));
    let cases = [
        ("https://kc.example/realms/IDEA4RC/", CERTS, "keycloak-issuer", "issuer"),
        ("https://kc.example", CERTS, "keycloak-issuer", "issuer"),
        ("http://kc.example/realms/IDEA4RC", CERTS, "issuer-jwks-mismatch", "issuer"),
        ("https://other.example/realms/IDEA4RC", CERTS, "issuer-jwks-mismatch", "issuer"),
        ("https://kc.example/realms/master", CERTS, "issuer-jwks-mismatch", "jwksUri"),
        (ISSUER, "https://kc.example/realms/IDEA4RC/certs", "keycloak-jwks-uri", "jwksUri"),
        ("x", "http://idp.example/certs", "jwks-without-tls", "jwksUri"),
    ];
    for (issuer, jwks, code, field) in cases {
        tells(&with(issuer, jwks), code, field);
    }
    for code in ["keycloak-issuer", "issuer-jwks-mismatch", "keycloak-jwks-uri", "jwks-without-tls"] {
        does_not_tell(&tokens(), code);
        does_not_tell(&request(&format!("jwksUri: '{CERTS}'")), code);
    }
    for local in [
        "http://keycloak.iam.svc:8080/x",
        "http://keycloak/x",
        "http://127.0.0.1/x",
        "http://[::1]:1/x",
        "http://10.0.0.1/x",
    ] {
        does_not_tell(&with("x", local), "jwks-without-tls");
    }
}

#[test]
fn peer_authentications_that_are_overruled() {
    let root =
        object("PeerAuthentication", "pa", "istio-system", "{selector: {matchLabels: {app: fhir-server}}}");
    tells(&root, "ignored-policy", "spec.selector");
    let two = object("PeerAuthentication", "one", "datamesh", "{mtls: {mode: STRICT}}")
        + &object("PeerAuthentication", "two", "datamesh", "{mtls: {mode: DISABLE}}");
    let found = lint_with(&two, &[fhir()]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].object.as_deref(), Some("PeerAuthentication datamesh/two"));
    let levels = object("PeerAuthentication", "one", "datamesh", "{}")
        + &object("PeerAuthentication", "two", "datamesh", "{selector: {matchLabels: {app: fhir-server}}}");
    assert_eq!(told(&levels), []);
}

#[test]
fn policies_that_this_version_does_not_enforce() {
    for (version, kind) in [
        ("cilium.io/v2", "CiliumNetworkPolicy"),
        ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"),
        ("fhirward.dev/v1alpha1", "FhirAccessPolicy"),
        ("fhirward.dev/v1alpha1", "OutagePolicy"),
        ("security.istio.com/v1", "AuthorizationPolicy"),
    ] {
        let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n");
        tells(&text, "not-enforced", "kind");
    }
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";
    assert_eq!(told(pod), []);
}

#[test]
fn paths_that_miss_their_sibling() {
    let with = |action: &str, field: &str, paths: &str| {
        policy(&format!(
            "{{action: {action}, rules: [{{to: [{{operation: {{{field}: [{paths}], ports: ['80']}}}}]}}]}}"
        ))
    };
    let at = "spec.rules[0].to[0].operation.paths[0]";
    tells(&with("ALLOW", "paths", "/fhir/"), "trailing-slash", at);
    tells(&with("DENY", "paths", "/admin"), "trailing-slash", at);
    tells(&with("ALLOW", "notPaths", "/admin"), "trailing-slash", &at.replace("paths", "notPaths"));
    for (action, field, paths) in [
        ("ALLOW", "paths", "/fhir"),
        ("ALLOW", "paths", "/fhir/, /fhir"),
        ("ALLOW", "paths", "/"),
        ("DENY", "paths", "/admin, /admin/"),
        ("DENY", "paths", "/admin, /admin/*"),
        ("DENY", "paths", "/admin*"),
        ("DENY", "paths", "'/a/{*}'"),
        ("DENY", "notPaths", "/public"),
    ] {
        does_not_tell(&with(action, field, paths), "trailing-slash");
    }
}

#[test]
fn http_fields_on_a_port_that_is_not_http() {
    let service = |port: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: datamesh}}\nspec: {{ports: [{port}]}}\n"
        )
    };
    let rule = policy("{rules: [{to: [{operation: {methods: [GET], ports: ['5432']}}]}]}");
    let at = "spec.rules[0].to[0].operation.ports[0]";
    for port in [
        "{name: tcp-sql, port: 5432}",
        "{name: postgres, port: 1, targetPort: 5432}",
        "{appProtocol: tcp, name: http, port: 5432}",
    ] {
        tells(&(service(port) + &rule), "http-rule-on-tcp", at);
    }
    for port in ["{name: http, port: 5432}", "{port: 5432}", "{name: tcp, port: 5432, targetPort: 80}"] {
        does_not_tell(&(service(port) + &rule), "http-rule-on-tcp");
    }
    let tcp_only = policy("{rules: [{to: [{operation: {ports: ['5432']}}]}]}");
    does_not_tell(&(service("{name: tcp, port: 5432}") + &tcp_only), "http-rule-on-tcp");
}

#[test]
fn what_the_rules_themselves_tell_is_told_too() {
    let custom = "{action: CUSTOM, provider: {name: x}, rules: [{to: [{operation: {paths: ['/a*']}}]}]}";
    tells(&policy(custom), "custom-denies", "spec.action");
    let rule = |fields: &str| policy(&format!("{{rules: [{fields}]}}"));
    let operation = |fields: &str| rule(&format!("{{to: [{{operation: {{{fields}}}}}]}}"));
    tells(&operation("methods: [get]"), "lower-case-method", "spec.rules[0].to[0].operation.methods[0]");
    tells(&operation("paths: ['/a?b']"), "path-with-query", "spec.rules[0].to[0].operation.paths[0]");
    let spiffe = rule("{from: [{source: {principals: ['spiffe://cluster.local/ns/a/sa/b']}}]}");
    tells(&spiffe, "spiffe-prefix", "spec.rules[0].from[0].source.principals[0]");
}

#[test]
fn problems_come_in_the_order_of_the_file() {
    let text = tokens()
        + &policy("{selector: {matchLabels: {app: typo}}}")
        + &request("issuer: x").replace("jwt", "jwt2");
    let (objects, _) = parse("m.yaml", &text.replace("jwt2Rules", "jwtRules"));
    let (policies, _) = Policies::read(&objects);
    let found = policies.lint(&MeshConfig::default(), &objects, &[fhir()]);
    assert!(found.len() >= 2);
    assert!(found.is_sorted_by(|a, b| a.place <= b.place));
}
