//! The whole of it on real parts: Keycloak's tokens, HAPI's server, the tutorial's own manifests
//! unchanged, the Postman collection, Prometheus.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use demo::clients::{self, Tokens, tutorial_table};
use tests::{
    harness::{Hospital, ISSUER_BASE, Load, Outcome, Proxy, repository},
    real::{Hapi, Keycloak, KeycloakOptions, Newman, Prometheus},
};

/// Verifiers forgive a minute of skew.
const BEYOND_SKEW: Duration = Duration::from_secs(65);

async fn keycloak() -> Keycloak {
    let options = KeycloakOptions { hostname: Some(ISSUER_BASE.to_owned()), ..KeycloakOptions::default() };
    Keycloak::start(options).await.unwrap()
}

async fn proxy(hapi: &Hapi, keycloak: &Keycloak) -> Proxy {
    Hospital::proxy(hapi.address(), &keycloak.jwks_uri("IDEA4RC"), "").await.unwrap()
}

async fn get(url: &str, token: &str) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(url).bearer_auth(token).send().await.unwrap().status().as_u16()
}

/// Only answers of this status, and some of them.
fn all(outcomes: &std::collections::BTreeMap<Outcome, u64>, status: u16, proxy: &Proxy) {
    assert!(outcomes.values().sum::<u64>() > 20, "too few to tell: {outcomes:?}");
    assert!(
        outcomes.keys().all(|outcome| *outcome == Outcome::Status(status)),
        "{outcomes:?}\n{}",
        tail(proxy)
    );
}

fn tail(proxy: &Proxy) -> String {
    let log = proxy.log();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorials_table_holds_with_keycloak_and_the_full_hapi_server() {
    let (keycloak, hapi) = tokio::join!(keycloak(), Hapi::jpa());
    let hapi = hapi.unwrap();
    let brief = keycloak.brief_token("alice", "alice1234!").await.unwrap();
    let proxy = proxy(&hapi, &keycloak).await;
    let tokens = Tokens {
        alice: keycloak.alice().await.unwrap(),
        bob: keycloak.bob().await.unwrap(),
        other_realm: keycloak.bob_of_the_other_realm().await.unwrap(),
        service: keycloak.service_token().await.unwrap(),
        expired: brief.expired_by(BEYOND_SKEW).await,
    };
    let base = format!("{}/fhir", proxy.url("ingress"));
    let outcomes = clients::run(&base, None, &tokens, &tutorial_table()).await.unwrap();
    let mut report = Vec::new();
    let good = clients::write_report(&mut report, &outcomes).unwrap();
    assert!(good, "{}\n{}", String::from_utf8_lossy(&report), tail(&proxy));

    let postman = repository().join("postman");
    let secret = keycloak.service_secret();
    let report = Newman::run(
        &postman.join("fhirward.postman_collection.json"),
        Some(&postman.join("keycloak.postman_environment.json")),
        &[
            ("proxy", base.as_str()),
            ("idp", keycloak.base_url()),
            ("expiredToken", tokens.expired.as_str()),
            ("serviceClientSecret", secret),
        ],
    )
    .await
    .unwrap();
    assert_eq!(report.failed, 0, "{:?}\n{}", report.failures, report.output);
    assert!(report.passed >= 20, "{}", report.output);

    let prometheus = Prometheus::start(&[proxy.admin()]).await.unwrap();
    for (query, least) in [
        (
            "sum(istio_requests_total{reporter=\"destination\",destination_workload=\"fhir-server\",response_code=\"200\"})",
            1.0,
        ),
        ("sum(istio_requests_total{response_code=\"403\"})", 4.0),
        ("min(fhirward_issuer_up)", 1.0),
        ("sum(fhirward_jwks_keys)", 1.0),
    ] {
        prometheus
            .query_until(query, Duration::from_secs(30), |samples| {
                samples.first().is_some_and(|sample| sample.value >= least)
            })
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postman_collection_holds_against_the_demo() {
    let hospital = Hospital::open("").await.unwrap();
    let postman = repository().join("postman");
    let realm = hospital.idp.realm("IDEA4RC").unwrap();
    let proxy = hospital.proxy.url("ingress");
    let idp = hospital.idp.base_url();
    let report = Newman::run(
        &postman.join("fhirward.postman_collection.json"),
        Some(&postman.join("demo.postman_environment.json")),
        &[
            ("proxy", proxy.as_str()),
            ("idp", idp.as_str()),
            ("expiredToken", hospital.tokens.expired.as_str()),
            ("serviceClientSecret", realm.client_secret("idea-svc").unwrap()),
        ],
    )
    .await
    .unwrap();
    assert_eq!(report.failed, 0, "{:?}\n{}", report.failures, report.output);
    assert!(report.passed >= 20, "{}", report.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_and_outage_of_keycloak_refuse_no_valid_token() {
    let mut keycloak = keycloak().await;
    let hapi = Hapi::light().await.unwrap();
    let proxy = proxy(&hapi, &keycloak).await;
    let url = format!("{}/fhir/Patient", proxy.url("ingress"));
    let before = keycloak.alice().await.unwrap();
    assert_eq!(get(&url, &before).await, 200);

    // Rotation under load: the old token and, from its first use, the new one.
    let old = {
        let (url, token) = (url.clone(), before.clone());
        Load::start(2, Duration::from_millis(10), move |client| client.get(&url).bearer_auth(&token))
    };
    keycloak.rotate_keys("IDEA4RC").await.unwrap();
    let after = keycloak.alice().await.unwrap();
    assert_ne!(Keycloak::kid_of(&before).unwrap(), Keycloak::kid_of(&after).unwrap());
    assert_eq!(get(&url, &after).await, 200, "{}", tail(&proxy));
    let new = {
        let (url, token) = (url.clone(), after.clone());
        Load::start(2, Duration::from_millis(10), move |client| client.get(&url).bearer_auth(&token))
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    all(&old.finish().await, 200, &proxy);
    all(&new.finish().await, 200, &proxy);

    // Killed and started again under load.
    let load = {
        let (url, token) = (url.clone(), after.clone());
        Load::start(2, Duration::from_millis(10), move |client| client.get(&url).bearer_auth(&token))
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    keycloak.kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(get(&url, "garbage").await, 401);
    keycloak.start_again().await.unwrap();
    let fresh = keycloak.alice().await.unwrap();
    assert_eq!(get(&url, &fresh).await, 200);
    all(&load.finish().await, 200, &proxy);
}
