//! Matching, attribute by attribute.

use serde_json::json;

use super::{Facts, alice, matches, matches_in};
use crate::istio::MeshConfig;

fn from(field: &str) -> String {
    format!("from: [{{source: {{{field}}}}}]")
}

fn to(field: &str) -> String {
    format!("to: [{{operation: {{{field}}}}}]")
}

fn when(key: &str, rest: &str) -> String {
    format!("when: [{{key: \"{key}\", {rest}}}]")
}

#[track_caller]
fn table(facts: &Facts, rows: &[(String, bool)]) {
    for (rule, want) in rows {
        assert_eq!(matches(rule, facts), *want, "{rule}");
    }
}

const SLEEP: &str = "cluster.local/ns/default/sa/sleep";

#[test]
fn principals_are_compared_without_scheme() {
    let facts = Facts::default().peer(SLEEP);
    table(
        &facts,
        &[
            (from(r#"principals: ["cluster.local/ns/default/sa/sleep"]"#), true),
            (from(r#"principals: ["spiffe://cluster.local/ns/default/sa/sleep"]"#), false),
            (from(r#"principals: ["cluster.local/ns/default/*"]"#), true),
            (from(r#"principals: ["*/sa/sleep"]"#), true),
            (from(r#"principals: ["*/sa/slee"]"#), false),
            (from(r#"principals: ["*cal/ns/default/sa/sleep"]"#), true),
            (from(r#"principals: ["*"]"#), true),
            (from(r#"principals: ["x", "*sleep"]"#), true),
            (from(r#"principals: ["cluster.local/ns/default/sa/Sleep"]"#), false),
            (from(r#"notPrincipals: ["*/sa/sleep"]"#), false),
            (from(r#"notPrincipals: ["*/sa/other"]"#), true),
            (when("source.principal", r#"values: ["*/sa/sleep"]"#), true),
        ],
    );
}

#[test]
fn an_absent_peer_matches_no_value_and_every_negation() {
    for field in ["principals", "namespaces", "trustDomains"] {
        let negative = format!("not{}{}", field[..1].to_uppercase(), &field[1..]);
        table(
            &Facts::default(),
            &[(from(&format!(r#"{field}: ["*"]"#)), false), (from(&format!(r#"{negative}: ["*"]"#)), true)],
        );
    }
    table(
        &Facts::default(),
        &[
            (from(r#"serviceAccounts: ["default/sleep"]"#), false),
            (from(r#"notServiceAccounts: ["default/sleep"]"#), true),
        ],
    );
}

#[test]
fn namespaces_take_stars_anywhere() {
    let facts = Facts::default().peer("cluster.local/ns/team-a-prod/sa/x");
    table(
        &facts,
        &[
            (from(r#"namespaces: ["team-a-prod"]"#), true),
            (from(r#"namespaces: ["team-*"]"#), true),
            (from(r#"namespaces: ["*-prod"]"#), true),
            (from(r#"namespaces: ["team-*-prod"]"#), true),
            (from(r#"namespaces: ["*-a-*"]"#), true),
            (from(r#"namespaces: ["t*m*p*d"]"#), true),
            (from(r#"namespaces: ["team-a-prod*prod"]"#), false),
            (from(r#"namespaces: ["team-b-*"]"#), false),
            (from(r#"namespaces: ["team.a-prod"]"#), false),
            (from(r#"namespaces: ["team-a"]"#), false),
            (from(r#"notNamespaces: ["team-*"]"#), false),
            (when("source.namespace", r#"notValues: ["other"]"#), true),
        ],
    );
}

#[test]
fn service_accounts_are_whole_and_default_to_the_policys_namespace() {
    table(
        &Facts::default().peer("cluster.local/ns/datamesh/sa/web"),
        &[
            (from(r#"serviceAccounts: ["web"]"#), true),
            (from(r#"serviceAccounts: ["datamesh/web"]"#), true),
            (from(r#"serviceAccounts: ["other/web"]"#), false),
            (from(r#"serviceAccounts: ["we"]"#), false),
            (from(r#"notServiceAccounts: ["web"]"#), false),
            (when("source.serviceAccount", r#"values: ["web"]"#), true),
        ],
    );
    table(
        &Facts::default().peer("other.domain/ns/other/sa/web"),
        &[(from(r#"serviceAccounts: ["web"]"#), false), (from(r#"serviceAccounts: ["other/web"]"#), true)],
    );
}

#[test]
fn trust_domain_aliases_stand_for_each_other() {
    let mesh = MeshConfig {
        trust_domain: "new.td".to_owned(),
        trust_domain_aliases: vec!["old.td".to_owned()],
        ..MeshConfig::default()
    };
    let peer = |domain: &str| Facts::default().peer(&format!("{domain}/ns/a/sa/b"));
    let rows = [
        // policy value, peer's domain, matches
        ("new.td/ns/a/sa/b", "new.td", true),
        ("new.td/ns/a/sa/b", "old.td", true),
        ("old.td/ns/a/sa/b", "new.td", true),
        ("cluster.local/ns/a/sa/b", "new.td", true),
        ("cluster.local/ns/a/sa/b", "old.td", true),
        ("cluster.local/ns/a/sa/b", "cluster.local", false),
        ("foreign/ns/a/sa/b", "new.td", false),
        ("foreign/ns/a/sa/b", "foreign", true),
        ("*/ns/a/sa/b", "foreign", true),
        ("*w.td/ns/a/sa/b", "new.td", true),
        ("*w.td/ns/a/sa/b", "old.td", true),
        ("new.td/ns/a/sa/*", "old.td", true),
        ("new.td/ns/a*", "old.td", false),
        ("*", "foreign", true),
    ];
    for (value, domain, want) in rows {
        let rule = from(&format!(r#"principals: ["{value}"]"#));
        assert_eq!(matches_in(&mesh, &rule, &peer(domain)), want, "{value} {domain}");
        let rule = from(&format!(r#"notPrincipals: ["{value}"]"#));
        assert_eq!(matches_in(&mesh, &rule, &peer(domain)), !want, "not {value} {domain}");
    }
    let rows = [("new.td", "old.td", true), ("old.td", "new.td", true), ("new*", "old.td", false)];
    for (value, domain, want) in rows {
        let rule = from(&format!(r#"trustDomains: ["{value}"]"#));
        assert_eq!(matches_in(&mesh, &rule, &peer(domain)), want, "{value} {domain}");
    }
    let rule = when("source.trustDomain", r#"values: ["new.td"]"#);
    assert!(matches_in(&mesh, &rule, &peer("old.td")));
}

#[test]
fn request_principals_are_cut_at_the_last_slash() {
    table(
        &alice(),
        &[
            (from(r#"requestPrincipals: ["*"]"#), true),
            (from(r#"requestPrincipals: ["https://kc/realms/r/alice"]"#), true),
            (from(r#"requestPrincipals: ["https://kc/realms/r/*"]"#), true),
            (from(r#"requestPrincipals: ["https://kc/realms/r/al*"]"#), true),
            // The trap: issuer `https://kc/realms`, subjects that begin with `r`.
            (from(r#"requestPrincipals: ["https://kc/realms/r*"]"#), false),
            (from(r#"requestPrincipals: ["https://kc/*"]"#), false),
            (from(r#"requestPrincipals: ["*/alice"]"#), true),
            (from(r#"requestPrincipals: ["*realms/r/alice"]"#), true),
            (from(r#"requestPrincipals: ["*ice"]"#), true),
            (from(r#"requestPrincipals: ["*bob"]"#), false),
            (from(r#"requestPrincipals: ["*/*"]"#), false),
            (from(r#"requestPrincipals: ["alice"]"#), false),
            (from(r#"requestPrincipals: ["https://kc/realms/r/Alice"]"#), false),
            (from(r#"notRequestPrincipals: ["*"]"#), false),
            (when("request.auth.principal", r#"values: ["*/alice"]"#), true),
        ],
    );
    let prefix = Facts::default().token(json!({"iss": "kc-one", "sub": "s"}));
    assert!(matches(&from(r#"requestPrincipals: ["kc-*"]"#), &prefix));
    assert!(!matches(&from(r#"requestPrincipals: ["kd-*"]"#), &prefix));
}

#[test]
fn a_star_needs_both_issuer_and_subject() {
    for claims in [json!({"iss": "i"}), json!({"sub": "s"}), json!({}), json!({"iss": "i", "sub": ""})] {
        let facts = Facts::default().token(claims);
        assert!(!matches(&from(r#"requestPrincipals: ["*"]"#), &facts));
        assert!(matches(&from(r#"notRequestPrincipals: ["*"]"#), &facts));
    }
    assert!(!matches(&from(r#"requestPrincipals: ["*"]"#), &Facts::default()));
    assert!(matches(&from(r#"notRequestPrincipals: ["*"]"#), &Facts::default()));
}

#[test]
fn addresses_of_both_families_and_both_ends() {
    let facts = Facts::default();
    table(
        &facts,
        &[
            (from(r#"ipBlocks: ["10.0.0.7"]"#), true),
            (from(r#"ipBlocks: ["10.0.0.0/8"]"#), true),
            (from(r#"ipBlocks: ["10.9.9.9/8"]"#), true),
            (from(r#"ipBlocks: ["10.0.1.0/24", "2001:db8::/32"]"#), false),
            (from(r#"ipBlocks: ["0.0.0.0/0"]"#), true),
            (from(r#"ipBlocks: ["::/0"]"#), false),
            (from(r#"ipBlocks: ["::ffff:10.0.0.7"]"#), true),
            (from(r#"notIpBlocks: ["10.0.0.0/8"]"#), false),
            (from(r#"remoteIpBlocks: ["198.51.100.0/24"]"#), true),
            (from(r#"remoteIpBlocks: ["10.0.0.0/8"]"#), false),
            (from(r#"notRemoteIpBlocks: ["10.0.0.0/8"]"#), true),
            (when("source.ip", r#"values: ["10.0.0.7/32"]"#), true),
            (when("remote.ip", r#"values: ["198.51.100.7"]"#), true),
            (when("destination.ip", r#"values: ["10.0.0.9"]"#), true),
            (when("destination.ip", r#"notValues: ["10.0.0.9"]"#), false),
            (when("destination.ip", r#"values: ["10.0.0.7"]"#), false),
        ],
    );
    let six = Facts { ip: "2001:db8::7".parse().unwrap(), ..Facts::default() };
    assert!(matches(&from(r#"ipBlocks: ["2001:db8::/32"]"#), &six));
    assert!(!matches(&from(r#"ipBlocks: ["0.0.0.0/0"]"#), &six));
    let mapped = Facts { ip: "::ffff:10.0.0.7".parse().unwrap(), ..Facts::default() };
    assert!(matches(&from(r#"ipBlocks: ["10.0.0.0/24"]"#), &mapped));
}

#[test]
fn hosts_ignore_case_and_keep_the_port() {
    let facts = Facts::default().host("FHIR.Example:8080");
    table(
        &facts,
        &[
            (to(r#"hosts: ["fhir.example:8080"]"#), true),
            (to(r#"hosts: ["FHIR.EXAMPLE:8080"]"#), true),
            (to(r#"hosts: ["fhir.example"]"#), false),
            (to(r#"hosts: ["fhir.example:*"]"#), true),
            (to(r#"hosts: ["*.EXAMPLE:8080"]"#), true),
            (to(r#"hosts: ["*"]"#), true),
            (to(r#"notHosts: ["fhir.example:*"]"#), false),
            (to(r#"notHosts: ["fhir.example"]"#), true),
        ],
    );
}

#[test]
fn ports_are_the_workloads() {
    table(
        &Facts::default(),
        &[
            (to(r#"ports: ["8080"]"#), true),
            (to(r#"ports: ["80", "8081"]"#), false),
            (to(r#"notPorts: ["8080"]"#), false),
            (to(r#"notPorts: ["80"]"#), true),
            (when("destination.port", r#"values: ["8080"]"#), true),
            (when("destination.port", r#"values: ["8080"], notValues: ["8080"]"#), false),
        ],
    );
}

#[test]
fn methods_keep_their_case() {
    table(
        &Facts::default(),
        &[
            (to(r#"methods: ["GET"]"#), true),
            (to(r#"methods: ["get"]"#), false),
            (to(r#"methods: ["G*"]"#), true),
            (to(r#"methods: ["*ET"]"#), true),
            (to(r#"methods: ["*"]"#), true),
            (to(r#"notMethods: ["GET"]"#), false),
        ],
    );
    assert!(!matches(&to(r#"methods: ["GET"]"#), &Facts::default().method("get")));
}

#[test]
fn paths_are_exact_prefix_suffix_or_any() {
    table(
        &Facts::default(),
        &[
            (to(r#"paths: ["/fhir/Patient"]"#), true),
            (to(r#"paths: ["/fhir/Patient/"]"#), false),
            (to(r#"paths: ["/fhir/patient"]"#), false),
            (to(r#"paths: ["/fhir/*"]"#), true),
            (to(r#"paths: ["/f*"]"#), true),
            (to(r#"paths: ["*/Patient"]"#), true),
            (to(r#"paths: ["*"]"#), true),
            (to(r#"paths: ["*/Pat*"]"#), false),
            (to(r#"paths: ["/fhir*Patient"]"#), false),
            (to(r#"notPaths: ["/fhir/*"]"#), false),
            (to(r#"notPaths: ["/metadata"]"#), true),
        ],
    );
    // A value starred at both ends: a suffix with a literal star.
    assert!(matches(&to(r#"paths: ["*/x*"]"#), &Facts::default().path("/a/x*")));
}

#[test]
fn path_templates() {
    let rows = [
        ("/t/{*}", "/t/a", true),
        ("/t/{*}", "/t/", false),
        ("/t/{*}", "/t", false),
        ("/t/{*}", "/t/a/b", false),
        ("/t/{*}", "/t/a/", false),
        ("/t/{*}/", "/t/a/", true),
        ("/t/{*}/", "/t/a", false),
        ("/t/{*}/x", "/t/a/x", true),
        ("/t/{*}/x", "/t//x", false),
        ("/{*}/{*}", "/a/b", true),
        ("/{*}/{*}", "/a", false),
        ("/t/{**}", "/t/", true),
        ("/t/{**}", "/t", false),
        ("/t/{**}", "/t/a/b/c", true),
        ("/t/{**}", "/t//", true),
        ("/t/{*}/{**}", "/t/a/", true),
        ("/t/{*}/{**}", "/t/a", false),
        ("/t/{**}/end", "/t/a/b/end", true),
        ("/t/{**}/end", "/t//end", true),
        ("/t/{**}/end", "/t/end", false),
        ("/{**}", "/", true),
        ("/{**}", "/a/b", true),
        ("/t/{*}", "/t/a%20b;c:d@e!$&'()+,~", true),
        // Envoy's operators do not take this.
        ("/t/{*}", "/t/a[b", false),
        ("/t/{**}", "/t/a/[b", false),
        ("/t.u/{*}", "/txu/a", false),
        ("/fhir/Patient/{*}/_history/{*}", "/fhir/Patient/1/_history/2", true),
    ];
    for (template, path, want) in rows {
        let facts = Facts::default().path(path);
        assert_eq!(matches(&to(&format!(r#"paths: ["{template}"]"#)), &facts), want, "{template} {path}");
        assert_eq!(
            matches(&to(&format!(r#"notPaths: ["{template}"]"#)), &facts),
            !want,
            "not {template} {path}"
        );
    }
}

#[test]
fn bug_an_equals_sign_or_a_star_got_past_a_denied_template() {
    for path in ["/t/=", "/t/a=b", "/t/a*b", "/t/*", "/t/%7B*%7D"] {
        let facts = Facts::default().path(path);
        assert!(matches(&to(r#"paths: ["/t/{*}"]"#), &facts), "{path}");
        assert!(matches(&to(r#"paths: ["/t/{**}"]"#), &facts), "{path}");
    }
}

#[test]
fn bug_a_list_of_presenters_matched_nothing() {
    let claims = serde_json::json!({"iss": "i", "sub": "s", "azp": ["app", 5]});
    let facts = Facts::default().token(claims);
    table(
        &facts,
        &[
            (when("request.auth.presenter", r#"values: ["app"]"#), true),
            (when("request.auth.presenter", r#"values: ["5"]"#), false),
            (when("request.auth.presenter", r#"notValues: ["app"]"#), false),
        ],
    );
}

#[test]
fn headers_are_matched_value_by_value() {
    let facts = Facts::default().header("x-tag", b"a").header("X-Tag", b"b").header("x-empty", b"");
    table(
        &facts,
        &[
            (when("request.headers[X-Tag]", r#"values: ["a"]"#), true),
            (when("request.headers[x-tag]", r#"values: ["b"]"#), true),
            (when("request.headers[x-tag]", r#"values: ["a,b"]"#), false),
            (when("request.headers[x-tag]", r#"values: ["A"]"#), false),
            (when("request.headers[x-tag]", r#"notValues: ["b"]"#), false),
            (when("request.headers[x-tag]", r#"notValues: ["c"]"#), true),
            (when("request.headers[x-empty]", r#"values: ["*"]"#), true),
            (when("request.headers[x-empty]", r#"values: ["a*"]"#), false),
            (when("request.headers[x-none]", r#"values: ["*"]"#), false),
            (when("request.headers[x-none]", r#"notValues: ["*"]"#), true),
            (when("request.headers[host]", r#"values: ["fhir-service:8080"]"#), true),
            (when("request.headers[:authority]", r#"values: ["fhir-*"]"#), true),
            (when("request.headers[:method]", r#"values: ["GET"]"#), true),
        ],
    );
}

#[test]
fn claims_nested_listed_and_named_whole() {
    table(
        &alice(),
        &[
            (when("request.auth.claims[realm_access][roles]", r#"values: ["Patient"]"#), true),
            (when("request.auth.claims[realm_access][roles]", r#"values: ["Medic", "Pat*"]"#), true),
            (when("request.auth.claims[realm_access][roles]", r#"values: ["Medic"]"#), false),
            (when("request.auth.claims[realm_access][roles]", r#"notValues: ["Medic"]"#), true),
            (when("request.auth.claims[realm_access][roles]", r#"values: ["*"]"#), true),
            (when("request.auth.claims[realm_access.roles]", r#"values: ["Patient"]"#), false),
            (when("request.auth.claims[realm_access]", r#"values: ["*"]"#), false),
            (when("request.auth.claims[resource_access][idea][roles]", r#"values: ["reader"]"#), true),
            (when("request.auth.claims[resource_access][idea][roles][x]", r#"values: ["*"]"#), false),
            (when("request.auth.claims[a.b/c]", r#"values: ["dotted"]"#), true),
            (when("request.auth.claims[email]", r#"values: ["*@x"]"#), true),
            (when("request.auth.claims[iss]", r#"values: ["https://kc/*"]"#), true),
            (when("request.auth.claims[none]", r#"values: ["*"]"#), false),
            (when("request.auth.claims[none]", r#"notValues: ["*"]"#), true),
            // Numbers and booleans match nothing.
            (when("request.auth.claims[level]", r#"values: ["3"]"#), false),
            (when("request.auth.claims[level]", r#"values: ["*"]"#), false),
            (when("request.auth.claims[admin]", r#"values: ["true"]"#), false),
            // `scope` is a list by now.
            (when("request.auth.claims[scope]", r#"values: ["openid"]"#), true),
            (when("request.auth.claims[scope]", r#"values: ["openid patient/*.read"]"#), false),
            (when("request.auth.audiences", r#"values: ["fhir"]"#), true),
            (when("request.auth.audiences", r#"values: ["other"]"#), false),
            (when("request.auth.audiences", r#"notValues: ["fhir"]"#), false),
            (when("request.auth.presenter", r#"values: ["idea"]"#), true),
            (when("request.auth.presenter", r#"values: ["*x"]"#), false),
        ],
    );
    table(
        &Facts::default(),
        &[
            (when("request.auth.audiences", r#"notValues: ["fhir"]"#), true),
            (when("request.auth.presenter", r#"values: ["*"]"#), false),
            (when("request.auth.claims[a]", r#"notValues: ["b"]"#), true),
        ],
    );
}

#[test]
fn sni_and_envoy_metadata() {
    let facts = Facts { sni: Some("fhir.example".to_owned()), ..Facts::default() };
    table(
        &facts,
        &[
            (when("connection.sni", r#"values: ["fhir.example"]"#), true),
            (when("connection.sni", r#"values: ["*.example"]"#), true),
            (when("connection.sni", r#"notValues: ["*"]"#), false),
            (when("experimental.envoy.filters.a.b[c]", r#"values: ["[v]"]"#), false),
            (when("experimental.envoy.filters.a.b[c]", r#"notValues: ["v"]"#), true),
        ],
    );
    assert!(!matches(&when("connection.sni", r#"values: ["*"]"#), &Facts::default()));
    assert!(matches(&when("connection.sni", r#"notValues: ["*"]"#), &Facts::default()));
}

#[test]
fn within_a_source_and_between_sources() {
    let facts = Facts::default().peer(SLEEP);
    // Fields of one source are ANDed, sources ORed.
    table(
        &facts,
        &[
            (from(r#"namespaces: ["default"], ipBlocks: ["10.0.0.0/8"]"#), true),
            (from(r#"namespaces: ["default"], ipBlocks: ["11.0.0.0/8"]"#), false),
            (from(r#"namespaces: ["*"], notPrincipals: ["*/sa/sleep"]"#), false),
            (
                r#"from: [{source: {namespaces: ["x"]}}, {source: {namespaces: ["default"]}}]"#.to_owned(),
                true,
            ),
            (
                r#"to: [{operation: {methods: ["POST"]}}, {operation: {methods: ["GET"], paths: ["/x"]}}]"#
                    .to_owned(),
                false,
            ),
            // Conditions are all to hold.
            (
                r#"when: [{key: source.ip, values: ["10.0.0.7"]}, {key: destination.port, values: ["1"]}]"#
                    .to_owned(),
                false,
            ),
            ("{}".to_owned(), true),
        ],
    );
}
