//! What is said beside a refusal whose reason the authority keeps to itself.

use std::fs;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Istiod, Mood, PATIENT_MS, id, problem, settings, start};

/// As kubelet mounts it for a pod (`kubectl create token --bound-object-kind Pod`).
fn claims() -> Value {
    json!({
        "aud": ["istio-ca"], "exp": 4_000_000_000_u32, "iss": "https://kubernetes.default.svc.cluster.local",
        "kubernetes.io": {
            "namespace": "istio-system", "node": {"name": "n1", "uid": "1"},
            "pod": {"name": "fhirward-n1", "uid": "2"}, "serviceaccount": {"name": "fhirward", "uid": "3"}
        },
        "sub": "system:serviceaccount:istio-system:fhirward"
    })
}

fn jwt(claims: &Value) -> String {
    format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn with(field: &str, value: Value) -> String {
    let mut claims = claims();
    claims[field] = value;
    jwt(&claims)
}

#[tokio::test]
async fn a_refusal_without_a_reason_says_what_the_token_lacks() {
    let istiod = Istiod::start(Mood::Refuse).await;
    let supply = start(settings(&istiod, PATIENT_MS));
    let _handle = supply.workload(&id());
    let unbound = json!({"namespace": "istio-system", "serviceaccount": {"name": "fhirward", "uid": "3"}});
    let no_node = json!({
        "namespace": "istio-system", "pod": {"name": "p"}, "serviceaccount": {"name": "a\nb"}
    });
    let accounts = "istiod must have istio-system/";
    for (token, said) in [
        ("garbage".to_owned(), "(clusterId Kubernetes; the token is not a JWT)".to_owned()),
        ("a.b!.c".to_owned(), "the token is not a JWT".to_owned()),
        (with("exp", json!(1_000)), "the token has expired".to_owned()),
        (
            with("aud", json!(["vault", "a\u{7}"])),
            "the token is for vault, a\\u{7}, not for istio-ca".to_owned(),
        ),
        (with("aud", json!("vault")), "the token is for vault, not for istio-ca".to_owned()),
        (with("kubernetes.io", unbound), "the token is bound to no pod".to_owned()),
        (
            jwt(&claims()),
            format!(
                "{accounts}fhirward in CA_TRUSTED_NODE_ACCOUNTS, and a pod of datamesh/fhir-server on n1"
            ),
        ),
        (
            with("kubernetes.io", no_node),
            format!(
                "{accounts}a\\nb in CA_TRUSTED_NODE_ACCOUNTS, and a pod of datamesh/fhir-server on the node of"
            ),
        ),
    ] {
        fs::write(istiod.token_file(), token).unwrap();
        problem(&supply, &said).await;
        problem(&supply, "Unauthenticated: no\\u{7}thing of mine (clusterId Kubernetes; ").await;
    }
    let mut own = settings(&istiod, PATIENT_MS);
    let settings = own.istio_ca.as_mut().unwrap();
    (settings.impersonate, settings.cluster_id) = (false, String::new());
    let supply = start(own);
    let _handle = supply.workload(&id());
    fs::write(istiod.token_file(), jwt(&claims())).unwrap();
    problem(&supply, "(no clusterId; the token's claims look right)").await;
}

#[test]
fn the_cluster_is_the_one_that_istio_calls_so_by_itself() {
    let text = r#"{"address": "istiod:15012", "caFile": "root", "tokenFile": "token"}"#;
    let settings: crate::spiffe::IstioCaSettings = serde_json::from_str(text).unwrap();
    assert_eq!(settings.cluster_id, "Kubernetes", "istiod impersonates for no cluster that it does not know");
}
