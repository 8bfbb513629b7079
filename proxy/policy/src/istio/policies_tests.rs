#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fmt::Write as _, time::Instant};

use super::*;
use crate::{istio::KeySource, manifest::parse};

fn workload(name: &str, labels: &[(&str, &str)]) -> WorkloadFacts {
    WorkloadFacts {
        name: name.parse().unwrap(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        services: vec!["fhir-service".to_owned()],
        gateways: Vec::new(),
        gateway_classes: Vec::new(),
    }
}

fn read(text: &str) -> (Policies, Vec<Problem>) {
    let (objects, problems) = parse("p.yaml", text);
    assert_eq!(problems, []);
    Policies::read(&objects)
}

fn request(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1beta1\nkind: RequestAuthentication\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[test]
fn rules_of_both_levels_are_concatenated_and_sorted_by_issuer() {
    let jwks = |which: &str| format!("'https://idp/{which}'");
    let text = request(
        "own",
        "datamesh",
        &format!("{{jwtRules: [{{issuer: b, jwksUri: {}}}, {{issuer: a}}]}}", jwks("own")),
    ) + &request(
        "root",
        "istio-system",
        &format!("{{jwtRules: [{{issuer: b, jwksUri: {}}}, {{issuer: c}}]}}", jwks("root")),
    ) + &request("other", "elsewhere", "{jwtRules: [{issuer: d}]}")
        + &request("not-it", "datamesh", "{selector: {matchLabels: {app: x}}, jwtRules: [{issuer: e}]}");
    let (policies, problems) = read(&text);
    assert_eq!(problems, []);
    let compiled = policies.compile(&MeshConfig::default(), &workload("datamesh/fhir", &[("app", "fhir")]));
    let issuers: Vec<_> = compiled.jwt_rules().iter().map(|rule| rule.issuer.as_str()).collect();
    assert_eq!(issuers, ["a", "b", "b", "c"]);
    // The root namespace comes first, and the sort keeps that.
    assert_eq!(compiled.jwt_rules()[1].keys, KeySource::Uri("https://idp/root".to_owned()));
    assert_eq!(compiled.jwt_rules()[2].keys, KeySource::Uri("https://idp/own".to_owned()));
}

#[test]
fn target_refs_select_what_they_name() {
    let mesh = MeshConfig::default();
    let mut gateway = workload("infra/gw", &[]);
    gateway.gateways = vec!["datamesh/public".parse().unwrap()];
    gateway.gateway_classes = vec!["istio".to_owned()];
    let fhir = workload("datamesh/fhir", &[]);
    let cases = [
        ("datamesh", "{kind: Service, group: '', name: fhir-service}", true, false),
        ("datamesh", "{kind: Service, group: core, name: other}", false, false),
        ("istio-system", "{kind: Service, name: fhir-service}", false, false),
        ("datamesh", "{kind: Gateway, group: gateway.networking.k8s.io, name: public}", false, true),
        ("istio-system", "{kind: Gateway, group: gateway.networking.k8s.io, name: public}", false, false),
        ("istio-system", "{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio}", false, true),
        ("datamesh", "{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio}", false, false),
        ("datamesh", "{kind: ServiceEntry, group: networking.istio.io, name: fhir-service}", false, false),
    ];
    for (namespace, target, at_fhir, at_gateway) in cases {
        for spec in [format!("targetRef: {target}"), format!("targetRefs: [{target}]")] {
            let (policies, problems) =
                read(&request("t", namespace, &format!("{{{spec}, jwtRules: [{{issuer: i}}]}}")));
            assert_eq!(problems, [], "{spec}");
            let found = |workload| !policies.compile(&mesh, workload).jwt_rules().is_empty();
            assert_eq!((found(&fhir), found(&gateway)), (at_fhir, at_gateway), "{namespace} {spec}");
        }
    }
}

#[test]
fn selections_that_admission_refuses_are_refused() {
    let cases = [
        ("{selector: {}, targetRefs: []}", "selector-and-target-ref", "spec.targetRefs"),
        ("{selector: {}, targetRef: {kind: Service, name: a}}", "selector-and-target-ref", "spec.targetRef"),
        (
            "{targetRef: {kind: Service, name: a}, targetRefs: []}",
            "selector-and-target-ref",
            "spec.targetRefs",
        ),
        ("{selector: {matchlabels: {}}}", "unknown-field", "spec.selector.matchlabels"),
        ("{selector: {matchLabels: {a: '*'}}}", "invalid-selector", "spec.selector.matchLabels.a"),
        ("{selector: {matchLabels: {'': b}}}", "invalid-selector", "spec.selector.matchLabels[\"\"]"),
        ("{selector: {matchLabels: {a: yes}}}", "wrong-type", "spec.selector.matchLabels.a"),
        ("{targetRef: {kind: Deployment, group: apps, name: a}}", "invalid-target-ref", "spec.targetRef"),
        ("{targetRef: {kind: Gateway, name: a}}", "invalid-target-ref", "spec.targetRef"),
        ("{targetRef: {kind: Service, name: ''}}", "invalid-target-ref", "spec.targetRef"),
        ("{targetRef: {kind: Service, name: a, namespace: b}}", "invalid-target-ref", "spec.targetRef"),
        ("{targetRef: {kind: Service}}", "missing-field", "spec.targetRef"),
    ];
    for (spec, code, field) in cases {
        let (policies, problems) = read(&request("t", "datamesh", spec));
        let told: Vec<_> = problems.iter().map(|one| (one.code, one.field.as_str())).collect();
        assert!(told.contains(&(code, field)), "{spec}: {told:?}");
        assert_eq!(policies.requests.all().count(), 0, "{spec}");
    }
    let many = vec!["{kind: Service, name: a}"; 17].join(",");
    let (_, problems) = read(&request("t", "datamesh", &format!("{{targetRefs: [{many}]}}")));
    assert_eq!(problems[0].code, "too-many");
}

#[test]
fn an_object_twice_names_both_places() {
    let text = request("jwt", "default", "{}") + &request("jwt", "''", "{}");
    let (_, problems) = read(&text);
    assert_eq!((problems.len(), problems[0].code, problems[0].place.line), (1, "duplicate-object", 7));
    assert!(problems[0].message.contains("p.yaml:2:1"), "{}", problems[0]);
    let other_kind = text.replacen("RequestAuthentication", "PeerAuthentication", 1);
    assert_eq!(read(&other_kind).1, []);
}

#[test]
fn unknown_kinds_versions_names_and_fields_are_refused() {
    let object = |version: &str, kind: &str, rest: &str| {
        format!("apiVersion: security.istio.io/{version}\nkind: {kind}\n{rest}\n")
    };
    let named = "metadata: {name: a}";
    let cases = [
        (object("v1", "AuthorisationPolicy", named), "unknown-kind", 2),
        (object("v1", "authorizationpolicy", named), "unknown-kind", 2),
        (object("v1alpha1", "PeerAuthentication", named), "unknown-version", 1),
        (object("v2", "AuthorizationPolicy", named), "unknown-version", 1),
        (object("v1", "PeerAuthentication", "metadata: {}"), "invalid-name", 3),
        (object("v1", "PeerAuthentication", "metadata: {name: A_b}"), "invalid-name", 3),
        (object("v1", "PeerAuthentication", "metadata: {name: a, namespace: b.c}"), "invalid-name", 3),
        (
            object("v1", "AuthorizationPolicy", "metadata: {name: a}\nSpec: {action: DENY}"),
            "unknown-field",
            4,
        ),
    ];
    for (text, code, line) in cases {
        let (_, problems) = read(&text);
        assert_eq!((problems[0].code, problems[0].place.line), (code, line), "{text}: {problems:?}");
        assert!(problems[0].is_error());
    }
    let (_, problems) = read(&object("v1", "AuthorisationPolicy", named));
    assert!(problems[0].message.contains("did you mean `AuthorizationPolicy`"), "{}", problems[0]);
}

#[test]
fn other_groups_are_left_alone() {
    let text = "apiVersion: policy.linkerd.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {x: 1}\n\
        ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {on: x}\n";
    assert_eq!(read(text).1, []);
}

#[test]
fn ten_thousand_policies_compile_fast() {
    let mut text = String::new();
    for index in 0..10_000 {
        let namespace = format!("ns-{}", index % 100);
        write!(
            text,
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: p-{index}, namespace: {namespace}}}\n\
             spec: {{selector: {{matchLabels: {{app: a-{}}}}}, rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}]}}\n",
            index / 100
        )
        .unwrap();
    }
    let start = Instant::now();
    let (policies, problems) = read(&text);
    assert_eq!(problems, []);
    let read_in = start.elapsed();
    let (mesh, facts) = (MeshConfig::default(), workload("ns-7/a", &[("app", "a-3")]));
    let start = Instant::now();
    for _ in 0..100 {
        let _ = policies.compile(&mesh, &facts);
    }
    let compiled_in = start.elapsed() / 100;
    // Debug build on a shared machine: generous, yet far below anything quadratic.
    assert!(read_in.as_secs() < 20, "{read_in:?}");
    assert!(compiled_in.as_millis() < 20, "{compiled_in:?}");
}

/// Names that specs know, and some that they do not.
fn word() -> impl proptest::strategy::Strategy<Value = String> {
    proptest::sample::select(
        "selector matchLabels targetRefs targetRef kind group name jwtRules issuer jwks jwksUri fromHeaders \
         prefix timeout mtls mode portLevelMtls 8080 STRICT rules from to when source operation key values \
         requestPrincipals paths methods ports hosts ipBlocks principals namespaces action DENY CUSTOM provider \
         request.auth.claims[a][b] request.headers[x] source.ip /a/{*}/{**} *x x* * 10.0.0.0/8 https://x/y é"
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    )
}

fn spec() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
    use proptest::{collection, prelude::*};
    use serde_json::Value;
    let leaf =
        prop_oneof![word().prop_map(Value::from), any::<bool>().prop_map(Value::from), Just(Value::Null)];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            collection::btree_map(word(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest::proptest! {
    #[test]
    fn no_spec_panics(spec in spec(), kind in 0..3_usize) {
        let object = serde_json::json!({
            "apiVersion": "security.istio.io/v1", "kind": KINDS[kind],
            "metadata": {"name": "a", "namespace": "datamesh"}, "spec": spec,
        });
        let (objects, problems) = parse("f", &object.to_string());
        proptest::prop_assert_eq!(&problems, &[]);
        let (policies, _) = Policies::read(&objects);
        let (mesh, facts) = (MeshConfig::default(), workload("datamesh/a", &[]));
        let _ = policies.lint(&mesh, &objects, std::slice::from_ref(&facts));
        let _ = policies.compile(&mesh, &facts);
    }
}
