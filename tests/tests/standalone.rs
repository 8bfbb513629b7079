//! `fhirward run` as a stranger would start it, with the embedded provider and store around it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use demo::clients::{self, tutorial_table};
use serde_json::Value;
use tests::harness::{Hospital, Load, Outcome};

/// Manifests must be taken up within this; polling and a loaded machine are allowed for.
const SOON: Duration = Duration::from_secs(10);

async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn status(url: &str, token: &str) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(url).bearer_auth(token).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorials_table_holds_with_the_manifests_unchanged() {
    let hospital = Hospital::open("").await.unwrap();
    let outcomes = clients::run(&hospital.proxy.url("ingress"), None, &hospital.tokens, &tutorial_table())
        .await
        .unwrap();
    let mut report = Vec::new();
    let good = clients::write_report(&mut report, &outcomes).unwrap();
    assert!(good, "{}\n{}", String::from_utf8_lossy(&report), hospital.proxy.log());

    // The token is taken away before the store sees the request (forwardOriginalToken is false).
    for seen in hospital.store.recorded() {
        assert!(!seen.headers.contains_key("authorization"), "{seen:?}");
    }
    // What happened is told, with every label, and without patients' names or tokens.
    let allowed = hospital
        .proxy
        .metric("istio_requests_total", &["response_code=\"200\"", "destination_workload=\"fhir-server\""])
        .await
        .unwrap();
    assert!(allowed >= 1.0);
    let log = hospital.proxy.log();
    assert!(
        log.contains("\"verdict\":\"deny\"")
            && log.contains("ns[datamesh]-policy[require-jwt-patient]-rule[0]")
    );
    assert!(!log.contains(&hospital.tokens.alice) && !log.contains("Demo"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_manifest_is_taken_up_and_a_broken_one_leaves_the_last_good_policy() {
    let hospital = Hospital::open("").await.unwrap();
    let url = format!("{}/Patient", hospital.proxy.url("ingress"));
    assert_eq!(status(&url, &hospital.tokens.bob).await, 403);

    let file = "manifests/09-authorization-patient.yaml";
    let text = std::fs::read_to_string(hospital.proxy.folder().join(file)).unwrap();
    hospital.proxy.write(file, &text.replace("[\"Patient\"]", "[\"Patient\", \"Medic\"]")).unwrap();
    eventually("Bob may GET", async || status(&url, &hospital.tokens.bob).await == 200).await;

    hospital.proxy.write(file, &text.replace("methods:", "method:")).unwrap();
    eventually("/readyz tells the broken file", async || {
        hospital.proxy.readiness().await.unwrap()["current"] == Value::Bool(false)
    })
    .await;
    let readiness = hospital.proxy.readiness().await.unwrap();
    let problem = &readiness["problems"][0];
    assert!(problem["file"].as_str().unwrap().ends_with("09-authorization-patient.yaml"), "{readiness}");
    assert!(problem["line"].as_u64().unwrap() > 10, "{readiness}");
    assert_eq!(problem["field"], "spec.rules[0].to[0].operation.method", "{readiness}");
    assert_eq!(status(&url, &hospital.tokens.bob).await, 200, "the last good policy holds");
    assert_eq!(status(&url, "garbage").await, 401);
    assert!(hospital.proxy.metric("fhirward_manifest_problems", &[]).await.unwrap() >= 1.0);
    assert!(hospital.proxy.log().contains("operation.method"), "{}", hospital.proxy.log());

    hospital.proxy.write(file, &text).unwrap();
    eventually("the mended policy holds", async || status(&url, &hospital.tokens.bob).await == 403).await;
    eventually("/readyz is content", async || {
        hospital.proxy.readiness().await.unwrap()["current"] == Value::Bool(true)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_manifest_from_the_start_everything_is_refused() {
    let hospital = Hospital::open("").await.unwrap();
    let mut proxy = hospital.proxy;
    proxy.terminate().await.unwrap();
    proxy.write("manifests/broken.yaml", "kind: [unclosed\n").unwrap();
    proxy.launch().await.unwrap();
    assert_eq!(proxy.page("/readyz").await.unwrap().0, 503);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(proxy.url("ingress")).bearer_auth(&hospital.tokens.alice).send().await;
    assert!(answer.is_err(), "no snapshot: closed without an answer, not {answer:?}");
    std::fs::remove_file(proxy.folder().join("manifests/broken.yaml")).unwrap();
    eventually("ready", async || proxy.page("/readyz").await.unwrap().0 == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_fails_no_request() {
    let hospital = Hospital::open("").await.unwrap();
    let mut proxy = hospital.proxy;
    hospital.store.set_delay(Duration::from_millis(20));
    let url = format!("{}/Patient", proxy.url("ingress"));
    let token = hospital.tokens.alice.clone();
    let load = Load::start(16, Duration::from_millis(1), move |client| client.get(&url).bearer_auth(&token));
    while load.count() < 300 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.terminate().await.unwrap();
    let outcomes = load.finish().await;
    for outcome in outcomes.keys() {
        assert!(matches!(outcome, Outcome::Status(200) | Outcome::NotConnected), "{outcomes:?}");
    }
    assert!(outcomes.contains_key(&Outcome::NotConnected), "the proxy did end: {outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_provider_costs_no_valid_token_anything() {
    let hospital = Hospital::open("").await.unwrap();
    let url = format!("{}/Patient", hospital.proxy.url("ingress"));
    assert_eq!(status(&url, &hospital.tokens.alice).await, 200);
    hospital.idp.kill().await;
    let realm = hospital.idp.realm("IDEA4RC").unwrap();
    // Tokens the proxy has never seen, signed by the key it knows.
    for number in 0..20 {
        let claims = serde_json::json!({
            "iss": realm.issuer(), "sub": format!("alice-{number}"), "realm_access": {"roles": ["Patient"]},
            "exp": 4_000_000_000_u64,
        });
        assert_eq!(status(&url, &realm.sign(&claims).unwrap()).await, 200);
    }
    assert_eq!(status(&url, &hospital.tokens.expired).await, 401);
    assert_eq!(status(&url, "garbage").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_keys_are_fetched_when_first_seen() {
    let hospital = Hospital::open("").await.unwrap();
    let url = format!("{}/Patient", hospital.proxy.url("ingress"));
    assert_eq!(status(&url, &hospital.tokens.alice).await, 200);
    let realm = hospital.idp.realm("IDEA4RC").unwrap();
    realm.rotate_keys().await.unwrap();
    let tokens = clients::Tokens::from_demo(&hospital.idp).await.unwrap();
    assert_eq!(status(&url, &tokens.alice).await, 200, "the new key, at its first use");
    assert_eq!(status(&url, &hospital.tokens.alice).await, 200, "the old key is still published");
}
