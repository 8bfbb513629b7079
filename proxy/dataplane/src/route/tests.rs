#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use observe::record::Reporter;

use crate::{
    offline::OfflineVerdict,
    testing::{BASE, GATEWAY, ROLES, World, exchange, to_gateway},
};

const ONLY_THE_GATEWAY: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: gateway-only, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  rules:
  - from: [{source: {principals: ["cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"], remoteIpBlocks: ["198.51.100.7"]}}]
    to: [{operation: {paths: ["/fhir/Patient/1"], ports: ["8080"], hosts: ["fhir.example"]}}]
"#;

#[tokio::test]
async fn the_destination_judges_what_the_gateway_sends() {
    let world = World::new(&[BASE, GATEWAY, ONLY_THE_GATEWAY]);
    let outcome = world.ask(exchange(to_gateway(), "GET", "/api/fhir/Patient/1?x=y", &[])).await;
    assert_eq!(outcome.verdict, OfflineVerdict::Allow, "{:#?}", outcome.reasons);
    assert_eq!(outcome.rule.as_deref(), Some("ns[datamesh]-policy[gateway-only]-rule[0]"));
    let forwarded = outcome.forwarded.unwrap();
    assert_eq!(forwarded.path, "/fhir/Patient/1?x=y");
    assert_eq!(forwarded.headers.get("x-by").unwrap(), "gateway");
    assert_eq!(forwarded.headers.get("x-forwarded-for").unwrap(), "198.51.100.7");
    assert!(!outcome.headers.contains_key("server"), "the route removes it");
    let record = outcome.record;
    assert_eq!(record.reporter, Reporter::Destination);
    assert_eq!(record.source.workload.unwrap().workload, "istio-ingressgateway");
    assert_eq!(record.destination.workload.unwrap().workload, "fhir-server");
    assert!(record.mutual_tls && record.route.is_some());
    let other = world.ask(exchange(to_gateway(), "GET", "/api/fhir/Patient/2", &[])).await;
    assert_eq!(other.status.unwrap(), 403);
}

#[tokio::test]
async fn a_rewrite_cannot_hide_from_the_destinations_rules() {
    let deny = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  action: DENY
  rules: [{to: [{operation: {paths: ["/admin*"]}}]}]
"#;
    let world = World::with(&[BASE, GATEWAY, deny], |mesh, engine| {
        mesh.strict_target = false;
        engine.strict_target = false;
    });
    for target in ["/api/admin", "/api//../admin", "/api/x/%2e%2e/admin", "/api/x/..;/admin"] {
        let outcome = world.ask(exchange(to_gateway(), "GET", target, &[])).await;
        let path = outcome.forwarded.map(|forwarded| forwarded.path);
        assert!(path.as_ref().is_none_or(|path| !path.starts_with("/admin")), "{target}: {path:?}");
    }
}

#[tokio::test]
async fn what_the_route_answers_itself() {
    let world = World::new(&[BASE, GATEWAY]);
    let missing = world.ask(exchange(to_gateway(), "GET", "/other", &[])).await;
    assert_eq!((missing.status.unwrap().as_u16(), missing.body.len()), (404, 0));
    assert_eq!((missing.record.flags, missing.record.reporter), ("NR", Reporter::Source));
    let elsewhere = world.ask(exchange(to_gateway(), "GET", "/api/x", &[("Host", "other.example")])).await;
    assert_eq!(elsewhere.status.unwrap(), 404);
    let moved = world.ask(exchange(to_gateway(), "GET", "/moved", &[])).await;
    assert_eq!((moved.status.unwrap().as_u16(), moved.verdict), (301, OfflineVerdict::Allow));
    assert!(moved.forwarded.is_none());
    assert_eq!(moved.headers.get("location").unwrap(), "http://fhir.example/elsewhere");
    let nowhere = world.ask(exchange(to_gateway(), "GET", "/nowhere", &[])).await;
    assert_eq!(nowhere.status.unwrap().as_u16() / 100, 5, "{:?}", nowhere.reasons);
}

#[tokio::test]
async fn the_gateways_own_policies_come_first() {
    let closed = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: istio-system}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  action: DENY
  rules: [{from: [{source: {remoteIpBlocks: ["198.51.100.0/24"]}}]}]
"#;
    let world = World::new(&[BASE, GATEWAY, closed]);
    let outcome = world.ask(exchange(to_gateway(), "GET", "/api/x", &[("X-Forwarded-For", "1.2.3.4")])).await;
    assert_eq!(outcome.status.unwrap(), 403);
    assert_eq!(outcome.rule.as_deref(), Some("ns[istio-system]-policy[closed]-rule[0]"));
    let trusting = World::with(&[BASE, GATEWAY, closed], |_, engine| engine.trusted_proxies = 1);
    let outcome =
        trusting.ask(exchange(to_gateway(), "GET", "/api/x", &[("X-Forwarded-For", "1.2.3.4")])).await;
    assert_eq!(outcome.status.unwrap(), 200);
}

#[tokio::test]
async fn tokens_are_verified_at_the_destination() {
    let world = World::new(&[BASE, GATEWAY, ROLES]);
    let token = world.bearer("Patient");
    let ask = |method, token: &str| {
        exchange(to_gateway(), method, "/api/fhir/Patient/1", &[("Authorization", token)])
    };
    let read = world.ask(ask("GET", &token)).await;
    assert_eq!(read.verdict, OfflineVerdict::Allow);
    assert!(!read.forwarded.unwrap().headers.contains_key("authorization"));
    assert_eq!(world.ask(ask("POST", &token)).await.status.unwrap(), 403);
    let garbage = world.ask(ask("GET", "Bearer x.y.z")).await;
    assert_eq!(garbage.status.unwrap(), 401);
    let challenge = garbage.headers.get("www-authenticate").unwrap().to_str().unwrap();
    assert_eq!(challenge, "Bearer realm=\"http://fhir.example/api/fhir/Patient/1\", error=\"invalid_token\"");
}

#[tokio::test]
async fn ambiguous_targets_end_before_routing() {
    let world = World::new(&[BASE, GATEWAY]);
    let outcome = world.ask(exchange(to_gateway(), "GET", "/api/x;y=z", &[])).await;
    assert_eq!(outcome.status.unwrap(), 400);
    assert!(outcome.record.route.is_none());
    // A mesh that is lax by default, a destination that is not.
    let lax = World::with(&[BASE, GATEWAY], |mesh, engine| {
        mesh.workloads.iter_mut().for_each(|workload| workload.strict_target = Some(true));
        engine.strict_target = false;
    });
    let outcome = lax.ask(exchange(to_gateway(), "GET", "/api/x;y=z", &[])).await;
    assert_eq!(outcome.status.unwrap(), 400);
    assert!(outcome.record.route.is_some());
}
