#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use mesh::routing::GatewayKey;

use super::{Labels, service_of_host};
use crate::testing::{BASE, GATEWAY, ROLES, World, exchange, to_gateway};

#[test]
fn cards_are_made_once_per_snapshot() {
    let world = World::new(&[BASE]);
    let labels = Labels::default();
    let snapshot = world.mesh.borrow().clone().unwrap();
    let server = snapshot.workload(&"datamesh/fhir-server".parse().unwrap()).unwrap();
    let key = GatewayKey { labels: [("istio".to_owned(), "x".to_owned())].into(), port: 80 };
    let gateway = snapshot.gateway_workload(&key).unwrap();
    let first = labels.card(&snapshot, server);
    let made_up = labels.card(&snapshot, gateway);
    assert!(Arc::ptr_eq(&first, &labels.card(&snapshot, server)));
    assert!(Arc::ptr_eq(&made_up, &labels.card(&snapshot, gateway)));
    world.publish(&[BASE], 2);
    let next = world.mesh.borrow().clone().unwrap();
    let server = next.workload(&"datamesh/fhir-server".parse().unwrap()).unwrap();
    assert!(!Arc::ptr_eq(&first, &labels.card(&next, server)));
}

#[test]
fn hosts_are_taken_apart() {
    let service = service_of_host(&"a.b.svc.cluster.local".into());
    assert_eq!((service.name.as_deref(), service.namespace.as_deref()), (Some("a"), Some("b")));
    let outside = service_of_host(&"api.example.org".into());
    assert_eq!((outside.name.as_deref(), outside.namespace.as_deref()), (Some("api.example.org"), None));
}

#[tokio::test]
async fn audit_rules_of_gateway_and_destination_are_told_together() {
    let audit = |name: &str, namespace: &str, label: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{action: AUDIT, selector: {{matchLabels: {{{label}}}}}, rules: [{{}}]}}\n"
        )
    };
    let at_gateway = audit("g", "istio-system", "istio: ingressgateway");
    let at_server = audit("s", "datamesh", "app: fhir-server");
    let world = World::new(&[BASE, GATEWAY, ROLES, &at_gateway, &at_server]);
    let outcome = world.ask(exchange(to_gateway(), "GET", "/api/fhir/Patient/1", &[])).await;
    assert_eq!(outcome.status.unwrap(), 403);
    let audited = outcome.record.decision.unwrap().audited;
    let audited: Vec<&str> = audited.iter().map(|rule| &**rule).collect();
    assert_eq!(audited, ["ns[istio-system]-policy[g]-rule[0]", "ns[datamesh]-policy[s]-rule[0]"]);
}
