#![allow(clippy::unwrap_used)]

use mesh::{MeshSettings, Snapshot, WorkloadSettings};
use policy::manifest;

use super::*;

const RULES: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: d}
spec:
  jwtRules:
  - issuer: https://idp.example
    fromHeaders: [{name: x-token}]
    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [{header: x-user, claim: sub}]
"#;

#[test]
fn a_trailer_cannot_stand_for_a_verified_claim() {
    let (objects, _) = manifest::parse("rules.yaml", RULES);
    let settings =
        MeshSettings { workloads: vec![WorkloadSettings::named("d/fhir")], ..MeshSettings::default() };
    let (snapshot, _) = Snapshot::build(&objects, &settings, 1).unwrap();
    let workload = snapshot.workload(&"d/fhir".parse().unwrap()).unwrap();
    let mut trailers = HeaderMap::new();
    for name in ["x-token", "x-payload", "x-user", "x-end"] {
        trailers.insert(name, "1".parse().unwrap());
    }
    remove_claim_trailers(&mut trailers, workload);
    assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-end"]);
}

#[test]
fn a_trailer_cannot_say_what_only_heads_and_proxies_say() {
    let mut trailers = HeaderMap::new();
    let names = [
        "authorization",
        "x-forwarded-for",
        "x-forwarded-client-cert",
        "forwarded",
        "x-envoy-internal",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-request-id",
        "expect",
        "x-\"quoted",
        "grpc-status",
    ];
    for name in names {
        trailers.insert(HeaderName::from_lowercase(name.as_bytes()).unwrap(), "1".parse().unwrap());
    }
    remove_forbidden_trailers(&mut trailers);
    assert_eq!(trailers.keys().collect::<Vec<_>>(), ["grpc-status"]);
}
