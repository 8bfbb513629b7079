//! The workload that stands for a gateway, and the policies that hold there.

use policy::{Destination, Question, Source, Verdict};

use super::*;

/// Whether a raw connection to the gateway is let in: what DENY without HTTP fields decides.
fn admitted(snapshot: &Snapshot, key: &GatewayKey) -> bool {
    let workload = snapshot.gateway_workload(key).unwrap();
    let ip = "198.51.100.7".parse().unwrap();
    let question = Question {
        source: Source { ip, remote_ip: ip, identity: None },
        destination: Destination { ip: workload.ip, port: key.port, sni: None },
        request: None,
    };
    workload.policy.decide(&question).verdict == Verdict::Allow
}

fn deny(namespace: &str, target: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: deny, namespace: {namespace}}}\nspec: {{action: DENY, rules: [{{}}], {target}}}\n---\n"
    )
}

const API_GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: kgw, namespace: auth}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
";

#[test]
fn policies_that_select_a_gateway_hold_at_it() {
    let cases = [
        ("istio-system", "selector: {matchLabels: {istio: ingressgateway}}", false),
        ("istio-system", "selector: {matchLabels: {app: istio-ingressgateway}}", false),
        ("istio-system", "selector: {matchLabels: {app: other}}", true),
        ("datamesh", "selector: {matchLabels: {istio: ingressgateway}}", true),
        ("auth", "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: kgw}]", false),
        ("auth", "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: other}]", true),
    ];
    for (namespace, target, wanted) in cases {
        let snapshot = mesh(&format!("{API_GATEWAY}{}", deny(namespace, target)));
        assert_eq!(admitted(&snapshot, &ingress(80)), wanted, "{namespace} {target}");
    }
    // The Gateway API Gateway listens on port 80 alone.
    let target = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: kgw}]";
    assert!(admitted(&mesh(&format!("{API_GATEWAY}{}", deny("auth", target))), &ingress(81)));
}

#[test]
fn a_real_gateway_workload_stands_for_itself() {
    let manifests = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: my-gateway, namespace: edge}\n\
        spec: {template: {metadata: {labels: {istio: ingressgateway}}, spec: {serviceAccountName: edge}}}\n";
    let snapshot = mesh(manifests);
    let workload = snapshot.gateway_workload(&ingress(80)).unwrap();
    assert_eq!(workload.identity.to_string(), "spiffe://cluster.local/ns/edge/sa/edge");
    let made_up = mesh("").gateway_workload(&ingress(80)).unwrap().clone();
    assert_eq!(
        made_up.identity.to_string(),
        "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"
    );
    assert_eq!(made_up.name.to_string(), "istio-system/istio-ingressgateway");
}

#[test]
fn beyond_the_limit_of_gateways_nothing_is_served() {
    let snapshot = mesh(&virtual_service(&format!("  -\n{TO_FHIR}")));
    for port in 1000..1063 {
        assert!(snapshot.gateway_workload(&ingress(port)).is_some());
    }
    assert_eq!(goes(&snapshot, "GET http://h/", &[]), "fhir:8080");
    assert!(snapshot.gateway_workload(&ingress(9999)).is_none());
    assert_eq!(told(&ask("GET http://h/", &[]).at(&snapshot, &ingress(9999))), "404");
    assert_eq!(goes(&snapshot, "GET http://h/", &[]), "fhir:8080");
}

#[test]
fn jwt_rules_of_workloads_and_gateways_are_listed_once() {
    let rule = |name: &str, namespace: &str, selector: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
             metadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{{selector} jwtRules: [{{issuer: 'https://{name}.example'}}]}}\n---\n"
        )
    };
    let manifests = rule("all", "istio-system", "")
        + &rule("edge", "istio-system", "selector: {matchLabels: {istio: ingressgateway}},")
        + &rule("own", "datamesh", "selector: {matchLabels: {app: fhir}},")
        + &rule("nobody", "datamesh", "selector: {matchLabels: {app: none}},");
    let snapshot = mesh(&manifests);
    let mut issuers: Vec<&str> = snapshot.jwt_rules().map(|rule| rule.issuer.as_str()).collect();
    issuers.sort_unstable();
    assert_eq!(issuers, ["https://all.example", "https://edge.example", "https://own.example"]);
}
