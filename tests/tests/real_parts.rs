//! Each real component by itself: what the whole-proxy tests take for granted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tests::real::{Envoy, EnvoyStart, Hapi, Keycloak, KeycloakOptions, Newman, Prometheus, free_port};

const HOSTNAME: &str = "https://keycloak.idea.lst.tfo.upm.es";

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn get(url: &str) -> Value {
    client().get(url).send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
}

async fn key_ids(keycloak: &Keycloak) -> Vec<String> {
    let jwks = get(&keycloak.jwks_uri("IDEA4RC")).await;
    let keys = jwks["keys"].as_array().unwrap();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// One start for all of it: a start costs 20 s.
#[tokio::test]
async fn keycloak_issues_tokens_rotates_keys_and_comes_back_after_a_kill() {
    let mut keycloak = Keycloak::start(KeycloakOptions::default()).await.unwrap();
    assert_eq!(keycloak.issuer("IDEA4RC"), format!("{}/realms/IDEA4RC", keycloak.base_url()));

    let alice = claims(&keycloak.alice().await.unwrap());
    assert_eq!(alice["iss"], keycloak.issuer("IDEA4RC"));
    assert_eq!(alice["realm_access"]["roles"], json!(["Patient"]));
    assert!(alice["sub"].as_str().is_some_and(|sub| !sub.is_empty()));
    let bob = keycloak.bob().await.unwrap();
    assert_eq!(claims(&bob)["realm_access"]["roles"], json!(["Medic"]));
    let other = claims(&keycloak.bob_of_the_other_realm().await.unwrap());
    assert_eq!(other["iss"], keycloak.issuer("OTHER"));
    let service = claims(&keycloak.service_token().await.unwrap());
    assert_eq!(service["azp"], "idea-svc");
    let brief = keycloak.brief_token("bob", "bob1234!").await.unwrap();
    let lifetime = |claims: &Value| claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    // Two where the clock should tick between the making of the one and the other.
    assert!((1..=2).contains(&lifetime(&claims(brief.token()))));
    let set = keycloak.token_set("IDEA4RC", "idea", "bob", "bob1234!").await.unwrap();
    keycloak.refresh("IDEA4RC", &set.refresh_token.unwrap()).await.unwrap();
    let refused = keycloak.token("IDEA4RC", "idea", "bob", "wrong").await.unwrap_err();
    assert!(refused.to_string().contains("invalid_grant"), "{refused}");

    let first = Keycloak::kid_of(&bob).unwrap();
    let rotation = keycloak.rotate_keys("IDEA4RC").await.unwrap();
    assert_ne!(rotation.kid, first);
    assert_eq!(Keycloak::kid_of(&keycloak.bob().await.unwrap()).unwrap(), rotation.kid);
    assert!(key_ids(&keycloak).await.contains(&first), "the old key stays until it is retired");
    keycloak.retire_keys(&rotation).await.unwrap();
    let left = key_ids(&keycloak).await;
    assert!(left.contains(&rotation.kid) && !left.contains(&first), "{left:?}");

    keycloak.kill();
    assert!(client().get(keycloak.base_url()).send().await.is_err(), "killed, and still there");
    keycloak.start_again().await.unwrap();
    let after = keycloak.bob().await.unwrap();
    assert_eq!(
        Keycloak::kid_of(&after).unwrap(),
        rotation.kid,
        "the data outlive a kill; the first key was {first}"
    );
    keycloak.stop().await.unwrap();
    assert!(client().get(keycloak.base_url()).send().await.is_err(), "stopped, and still there");
}

#[tokio::test]
async fn keycloak_issues_tokens_in_the_name_of_another_host() {
    let options = KeycloakOptions { hostname: Some(HOSTNAME.to_owned()), ..KeycloakOptions::default() };
    let keycloak = Keycloak::start(options).await.unwrap();
    let issuer = format!("{HOSTNAME}/realms/IDEA4RC");
    assert_eq!(keycloak.issuer("IDEA4RC"), issuer);
    assert_eq!(claims(&keycloak.bob().await.unwrap())["iss"], issuer);
    let discovery = format!("{}/realms/IDEA4RC/.well-known/openid-configuration", keycloak.base_url());
    let document = get(&discovery).await;
    assert_eq!(document["issuer"], issuer);
    assert_eq!(document["jwks_uri"], keycloak.jwks_uri("IDEA4RC"));
    let rotation = keycloak.rotate_keys("IDEA4RC").await.unwrap();
    assert_eq!(Keycloak::kid_of(&keycloak.alice().await.unwrap()).unwrap(), rotation.kid);
}

async fn stores_a_patient(hapi: &Hapi) {
    let url = format!("{}/Patient/p1", hapi.base_url());
    let patient = json!({"resourceType": "Patient", "id": "p1", "name": [{"family": "Doe"}]});
    let put = client()
        .put(&url)
        .header("content-type", "application/fhir+json")
        .body(patient.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), 201);
    let stored = get(&url).await;
    assert_eq!(stored["name"][0]["family"], "Doe");
    assert_eq!(stored["meta"]["versionId"], "1");
    let found = get(&format!("{}/Patient?_id=p1", hapi.base_url())).await;
    assert_eq!(found["entry"].as_array().unwrap().len(), 1);
    let missing = client().get(format!("{}/Patient/none", hapi.base_url())).send().await.unwrap();
    assert_eq!(missing.status(), 404);
}

#[tokio::test]
async fn hapi_stores_a_patient() {
    let hapi = Hapi::light().await.unwrap();
    stores_a_patient(&hapi).await;
    hapi.pause().unwrap();
    let frozen = client().get(format!("{}/Patient/p1", hapi.base_url()));
    assert!(frozen.timeout(Duration::from_millis(500)).send().await.unwrap_err().is_timeout());
    hapi.resume().unwrap();
    get(&format!("{}/Patient/p1", hapi.base_url())).await;
}

#[tokio::test]
async fn hapi_jpa_stores_a_patient() {
    let hapi = Hapi::jpa().await.unwrap();
    stores_a_patient(&hapi).await;
    let observation = json!({
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "weight"},
        "subject": {"reference": "Patient/p1"},
    });
    let post = client()
        .post(format!("{}/Observation", hapi.base_url()))
        .header("content-type", "application/fhir+json")
        .body(observation.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(post.status(), 201);
    let everything = get(&format!("{}/Patient/p1/$everything", hapi.base_url())).await;
    assert_eq!(everything["entry"].as_array().unwrap().len(), 2);
    let delete = client().delete(format!("{}/Patient/p1", hapi.base_url())).send().await.unwrap();
    assert_eq!(delete.status(), 409, "referential integrity is on");
}

#[tokio::test]
async fn prometheus_answers() {
    let exporter = exporter_of("fhirward_smoke_total{part=\"prometheus\"} 42\n").await;
    let prometheus = Prometheus::start(&[exporter]).await.unwrap();
    let limit = Duration::from_secs(20);
    let samples =
        prometheus.query_until("fhirward_smoke_total", limit, |samples| !samples.is_empty()).await.unwrap();
    assert!((samples[0].value - 42.0).abs() < f64::EPSILON, "{samples:?}");
    assert_eq!(samples[0].labels["part"], "prometheus");
    assert_eq!(samples[0].labels["instance"], exporter.to_string());
    assert!(prometheus.query("no (such").await.unwrap_err().to_string().contains("400"));
}

/// Answers every request with `metrics`, for as long as the test runs.
async fn exporter_of(metrics: &'static str) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = [0_u8; 4096];
            let _ = socket.read(&mut head).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n{metrics}",
                metrics.len()
            );
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    address
}

fn collection(folder: &Path, expected: u16) -> std::path::PathBuf {
    let path = folder.join("collection.json");
    let test = format!("pm.test('status', () => pm.response.to.have.status({expected}));");
    let collection = json!({
        "info": {
            "name": "smoke",
            "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
        },
        "item": [{
            "name": "metadata",
            "request": {"method": "GET", "url": "{{base}}/metadata"},
            "event": [{"listen": "test", "script": {"exec": [test]}}],
        }],
    });
    std::fs::write(&path, collection.to_string()).unwrap();
    path
}

#[tokio::test]
async fn newman_runs() {
    let hapi = Hapi::light().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let variables = [("base", hapi.base_url())];
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (*name, value.as_str())).collect();

    let report = Newman::run(&collection(folder.path(), 200), None, &variables).await.unwrap();
    assert_eq!((report.passed, report.failed, report.requests), (1, 0, 1), "{}", report.output);
    let report = Newman::run(&collection(folder.path(), 404), None, &variables).await.unwrap();
    assert_eq!((report.passed, report.failed), (0, 1), "{}", report.output);
    assert!(report.failures[0].contains("metadata: status"), "{:?}", report.failures);
}

#[tokio::test]
async fn envoy_starts_and_says_why_it_does_not() {
    let admin = std::net::SocketAddr::from(([127, 0, 0, 1], free_port().await.unwrap()));
    let config = format!(
        "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}",
        admin.port()
    );
    let start = EnvoyStart { config: &config, admin, concurrency: 1, prefix: &[] };
    let envoy = Envoy::start(start).await.unwrap();
    assert!(envoy.page("/server_info").await.unwrap().contains("/1.40.0/"));
    let name = std::fs::read_to_string(format!("/proc/{}/comm", envoy.pid().unwrap())).unwrap();
    assert!(name.starts_with("envoy"), "{name}");
    envoy.stop().await.unwrap();

    let broken = EnvoyStart { config: "static_resources: {listener: []}", ..start };
    let error = Envoy::start(broken).await.unwrap_err().to_string();
    assert!(error.contains("listener"), "{error}");
}
