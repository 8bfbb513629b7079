#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use http::Version;
use serde_json::json;

use super::EngineSettings;
use crate::{
    Refusal,
    admit::AdmitError,
    offline::{OfflineOutcome, OfflineVerdict, run_tcp},
    testing::{BASE, ISSUER, NOW, OUTSIDER, ROLES, World, exchange, sleep, to_server},
};

fn text(outcome: &OfflineOutcome) -> (u16, String) {
    let body = String::from_utf8(outcome.body.to_vec()).unwrap();
    (outcome.status.map_or(0, |status| status.as_u16()), body)
}

#[tokio::test]
async fn the_tutorials_table() {
    let world = World::new(&[BASE, ROLES]);
    let other = World::new(&[BASE, ROLES]);
    let patient = world.bearer("Patient");
    let medic = world.bearer("Medic");
    let stranger = other.bearer("Medic");
    let late = world.token(json!({"realm_access": {"roles": ["Patient"]}, "exp": NOW - 3600}));
    let late = format!("Bearer {late}");
    let realm = world.token(json!({"iss": "https://idp.example/realms/x"}));
    let realm = format!("Bearer {realm}");
    let denied = || (403, "RBAC: access denied".to_owned());
    let fine = || (200, "ok".to_owned());
    let no = |text: &str| (401, text.to_owned());
    let cases = [
        ("GET", "", denied()),
        ("POST", "", denied()),
        (
            "GET",
            "Bearer garbage",
            no("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"),
        ),
        ("GET", late.as_str(), no("Jwt is expired")),
        ("GET", realm.as_str(), no("Jwt issuer is not configured")),
        ("POST", stranger.as_str(), no("Jwt verification fails")),
        ("GET", patient.as_str(), fine()),
        ("POST", patient.as_str(), denied()),
        ("GET", medic.as_str(), denied()),
        ("POST", medic.as_str(), fine()),
        ("PUT", medic.as_str(), denied()),
        ("DELETE", patient.as_str(), denied()),
    ];
    for (method, token, wanted) in cases {
        let headers: &[_] = if token.is_empty() { &[] } else { &[("Authorization", token)] };
        let asked = exchange(to_server(OUTSIDER, None), method, "/fhir/Patient/1", headers);
        let outcome = world.ask(asked).await;
        assert_eq!(text(&outcome), wanted, "{method} {token}");
        assert_eq!(outcome.forwarded.is_some(), wanted.0 == 200);
    }
}

#[tokio::test]
async fn what_was_judged_is_what_is_forwarded() {
    let world = World::new(&[BASE, ROLES]);
    let token = world.bearer("Patient");
    let headers = [("Authorization", token.as_str()), ("X-Keep", "1")];
    let asked = exchange(to_server(OUTSIDER, None), "GET", "/fhir/x/../Patient/%31?a=%2F#b", &headers);
    let outcome = world.ask(asked).await;
    let forwarded = outcome.forwarded.unwrap();
    assert_eq!(forwarded.path, "/fhir/Patient/1?a=%2F");
    assert_eq!(forwarded.method, "GET");
    assert_eq!(forwarded.headers.get("host").unwrap(), "fhir.example");
    assert_eq!(forwarded.headers.get("x-keep").unwrap(), "1");
    assert!(!forwarded.headers.contains_key("authorization"), "forwardOriginalToken is off");
    assert_eq!(outcome.rule.as_deref(), Some("ns[datamesh]-policy[patient]-rule[0]"));
}

#[tokio::test]
async fn the_record_tells_the_story() {
    let world = World::new(&[BASE, ROLES]);
    let token = world.bearer("Patient");
    let headers = [("Authorization", token.as_str()), ("x-request-id", "abc")];
    let asked = exchange(to_server("10.0.0.7", Some(sleep())), "GET", "/fhir/Patient/1?name=x", &headers);
    let record = world.ask(asked).await.record;
    assert_eq!((record.status, record.flags, record.token), (Some(200), "-", "ok"));
    assert_eq!(record.details, "via_upstream");
    assert_eq!((record.method.as_str(), record.path.as_str()), ("GET", "/fhir/Patient/1"));
    assert_eq!(record.query.as_deref(), Some("name=x"));
    assert_eq!((record.request_id.as_str(), record.snapshot), ("abc", 1));
    assert_eq!(record.interaction, Some(("read", Some("Patient"))));
    assert_eq!(record.issuer.as_deref(), Some(ISSUER));
    assert_eq!(record.upstream, Some("127.0.0.1:18080".parse().unwrap()));
    let source = record.source.workload.unwrap();
    assert_eq!((source.workload.as_str(), source.canonical_service.as_str()), ("sleep", "sleep"));
    assert_eq!(record.source.principal.as_deref(), Some("spiffe://cluster.local/ns/datamesh/sa/default"));
    let destination = record.destination.workload.unwrap();
    assert_eq!(destination.workload, "fhir-server");
    assert_eq!(destination.canonical_revision, "v1");
    assert_eq!(record.service.host.as_deref(), Some("fhir-service.datamesh.svc.cluster.local"));
    assert!(record.mutual_tls);
}

#[tokio::test]
async fn a_denial_speaks_fhir_to_those_who_ask_for_it() {
    let world = World::new(&[BASE, ROLES]);
    let ask = |accept: &'static str, target: &'static str| {
        exchange(to_server(OUTSIDER, None), "GET", target, &[("Accept", accept)])
    };
    let plain = world.ask(ask("*/*", "/fhir/Patient/1")).await;
    assert_eq!(text(&plain), (403, "RBAC: access denied".to_owned()));
    for (accept, target, media_type) in [
        ("application/fhir+json", "/fhir/Patient/1", "application/fhir+json"),
        ("*/*", "/fhir/Patient/1?_format=xml", "application/fhir+xml"),
        ("application/fhir+json", "/fhir/Patient;x/1", "application/fhir+json"),
    ] {
        let outcome = world.ask(ask(accept, target)).await;
        assert_eq!(outcome.headers.get("content-type").unwrap(), media_type, "{target}");
        assert!(text(&outcome).1.contains("OperationOutcome"));
        assert_eq!(outcome.verdict, OfflineVerdict::Deny);
    }
}

#[tokio::test]
async fn strict_peer_authentication_drops_plaintext() {
    let strict = r"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: datamesh}
spec: {mtls: {mode: STRICT}}
";
    let world = World::new(&[BASE, strict]);
    let plain = world.ask(exchange(to_server("10.0.0.7", None), "GET", "/", &[])).await;
    assert_eq!((plain.verdict, plain.status), (OfflineVerdict::Drop, None));
    let verified = exchange(to_server("10.0.0.7", Some(sleep())), "GET", "/", &[]);
    assert_eq!(world.ask(verified).await.verdict, OfflineVerdict::Allow);
}

#[tokio::test]
async fn without_a_snapshot_or_a_workload_nothing_passes() {
    let world = World::new(&[BASE]);
    world.mesh.send_replace(None);
    let asked = exchange(to_server(OUTSIDER, None), "GET", "/", &[]);
    assert_eq!(world.ask(asked).await.verdict, OfflineVerdict::Drop);
    assert!(matches!(world.engine.admit(&to_server(OUTSIDER, None)), Err(AdmitError::NoSnapshot)));
    let unknown = World::with(&[BASE], |settings, _| settings.workloads.clear());
    assert!(matches!(unknown.engine.admit(&to_server(OUTSIDER, None)), Err(AdmitError::UnknownWorkload(_))));
}

#[tokio::test]
async fn each_request_reads_the_newest_policy() {
    let world = World::new(&[BASE]);
    let ask = || exchange(to_server(OUTSIDER, None), "GET", "/fhir/Patient/1", &[]);
    assert_eq!(world.ask(ask()).await.verdict, OfflineVerdict::Allow);
    world.publish(&[BASE, ROLES], 2);
    let outcome = world.ask(ask()).await;
    assert_eq!((outcome.verdict, outcome.record.snapshot), (OfflineVerdict::Deny, 2));
}

#[tokio::test]
async fn raw_tcp_follows_the_policies_of_layer_4() {
    let deny = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-outsiders, namespace: datamesh}
spec: {action: DENY, rules: [{from: [{source: {notPrincipals: ["cluster.local/ns/datamesh/sa/default"]}}]}]}
"#;
    let world = World::new(&[BASE, deny]);
    let outsider = run_tcp(&world.engine, &to_server(OUTSIDER, None));
    assert_eq!((outsider.verdict, outsider.status), (OfflineVerdict::Drop, None));
    assert_eq!(outsider.rule.as_deref(), Some("ns[datamesh]-policy[no-outsiders]-rule[0]"));
    let friend = run_tcp(&world.engine, &to_server("10.0.0.7", Some(sleep())));
    assert_eq!(friend.verdict, OfflineVerdict::Allow);
    let passed = world.engine.decide_tcp(&to_server("10.0.0.7", Some(sleep()))).unwrap();
    assert_eq!(passed.upstream(), "127.0.0.1:18080".parse().unwrap());
}

#[tokio::test]
async fn live_and_explained_decisions_are_one() {
    let world = World::with(&[BASE, ROLES], |_, settings| settings.keep_reasons = true);
    let silent = World::with(&[BASE, ROLES], |_, settings| *settings = EngineSettings::default());
    for world in [&world, &silent] {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.uri = "/fhir/Patient/1".parse().unwrap();
        parts.version = Version::HTTP_11;
        parts.headers.insert("host", "a".parse().unwrap());
        let connection = to_server(OUTSIDER, None);
        let live = world.engine.decide(&connection, parts.clone()).await.unwrap_err();
        let (explained, steps) = world.engine.explain(&connection, parts).await;
        let explained = explained.unwrap_err();
        assert!(
            matches!((&live.refusal, &explained.refusal), (Refusal::Denied(a), Refusal::Denied(b)) if a == b)
        );
        assert!(!steps.is_empty());
        let kept = world.engine.settings.keep_reasons;
        assert_eq!(live.story.steps.is_empty(), !kept, "kept only where asked for");
        assert_eq!(live.story.details, "rbac_access_denied_matched_policy[none]");
    }
}

#[tokio::test]
async fn a_head_refused_early_is_still_told() {
    let world = World::new(&[BASE]);
    let long = format!("/{};x", "a".repeat(5000));
    let record = world.ask(exchange(to_server(OUTSIDER, None), "GET", &long, &[])).await.record;
    assert_eq!(record.refused, Some("target_matrix_parameter"));
    assert_eq!(record.status, Some(400));
    assert_eq!(record.path.len(), 1024);
    assert_eq!(record.authority, "fhir.example");
}

#[tokio::test]
async fn a_request_that_is_judged_again_need_not_have_a_token_that_outlived_it() {
    let world = World::new(&[BASE, ROLES]);
    let token = world.token(json!({"realm_access": {"roles": ["Patient"]}, "exp": NOW - 3600}));
    let connection = to_server(OUTSIDER, None);
    let head = || {
        let request = http::Request::get("/fhir/Patient/1").header("host", "fhir.example");
        request.header("authorization", format!("Bearer {token}")).body(()).unwrap().into_parts().0
    };
    assert!(world.engine.decide(&connection, head()).await.is_err());
    assert!(world.engine.decide_again(&connection, head(), NOW - 3700).await.is_ok());
    assert!(world.engine.decide(&connection, head()).await.is_err(), "a new one is a new one");
    // The issuer is trusted no longer.
    world.publish(&[BASE, &ROLES.replace("idp.example", "elsewhere.example")], 2);
    assert!(world.engine.decide_again(&connection, head(), NOW - 3700).await.is_err());
}
