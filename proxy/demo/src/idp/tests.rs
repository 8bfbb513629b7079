#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Value, json};

use super::*;
use crate::Answer;
use crate::clients::{Grant, IdpClient, http_client};

const ALICE: Grant<'_> = Grant::Password { client: "idea", username: "alice", password: "alice1234!" };

async fn small() -> Idp {
    let realms = vec![RealmSettings::idea4rc()];
    start(Settings { realms, ..Settings::default() }).await.unwrap()
}

fn path(idp: &Idp, rest: &str) -> String {
    format!("{}/realms/IDEA4RC{rest}", idp.base_url())
}

const CERTS: &str = "/protocol/openid-connect/certs";
const TOKEN: &str = "/protocol/openid-connect/token";

/// The claims, once the published keys have verified the token.
async fn verified(idp: &Idp, token: &str) -> Result<Value, String> {
    let client = http_client(idp.ca_pem()).unwrap();
    let jwks: JwkSet = client.get(path(idp, CERTS)).send().await.unwrap().json().await.unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let jwk = jwks.find(header.kid.as_deref().unwrap()).ok_or("no such kid")?;
    assert_eq!(serde_json::to_value(jwk).unwrap()["use"], "sig");
    let mut rules = Validation::new(header.alg);
    rules.set_audience(&["fhir"]);
    rules.leeway = 0;
    let key = DecodingKey::from_jwk(jwk).unwrap();
    let decoded = jsonwebtoken::decode::<Value>(token, &key, &rules);
    decoded.map(|token| token.claims).map_err(|error| error.to_string())
}

async fn post(idp: &Idp, form: &[(&str, &str)]) -> (u16, Value) {
    let client = http_client(idp.ca_pem()).unwrap();
    let response = client.post(path(idp, TOKEN)).form(form).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn password_token_has_keycloaks_claims_and_verifies_with_published_jwks() {
    let idp = small().await;
    let answer = IdpClient::of(&idp).unwrap().grant("IDEA4RC", ALICE).await.unwrap();
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], 3600);
    assert_eq!(answer["scope"], "openid profile email");
    let claims = verified(&idp, answer["access_token"].as_str().unwrap()).await.unwrap();
    let has = |name: &str| claims.get(name).is_some();
    assert!(["exp", "iat", "jti", "sid", "sub"].into_iter().all(has), "{claims}");
    let fixed = json!({
        "iss": format!("{}/realms/IDEA4RC", idp.base_url()),
        "aud": "fhir", "typ": "Bearer", "azp": "idea", "acr": "1", "allowed-origins": ["*"],
        "realm_access": { "roles":
            ["default-roles-idea4rc", "offline_access", "uma_authorization", "Patient"] },
        "scope": "openid profile email", "email_verified": true, "name": "Alice P",
        "preferred_username": "alice", "given_name": "Alice", "family_name": "P",
        "email": "alice@example.test", "patient_id": "p1",
    });
    for (name, value) in fixed.as_object().unwrap() {
        assert_eq!(&claims[name], value, "{name}");
    }
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);
}

#[tokio::test]
async fn subject_is_stable_and_differs_by_user_and_realm() {
    let (first, second) = (start(Settings::default()).await.unwrap(), small().await);
    let sub = |idp: &Idp, realm: &str, user: &str| {
        idp.realm(realm).unwrap().access_claims("idea", user).unwrap()["sub"].clone()
    };
    let alice = sub(&first, "IDEA4RC", "alice");
    assert_eq!(alice, sub(&second, "IDEA4RC", "alice"));
    assert_ne!(alice, sub(&first, "IDEA4RC", "bob"));
    assert_ne!(alice, sub(&first, "OTHER", "alice"));
    assert!(uuid::Uuid::parse_str(alice.as_str().unwrap()).is_ok());
}

#[tokio::test]
async fn errors_are_keycloaks() {
    let idp = small().await;
    let good = [("grant_type", "password"), ("client_id", "idea"), ("username", "alice")];
    let with = |more: &[(&'static str, &'static str)]| [&good[..], more].concat();
    let secret = idp.realm("IDEA4RC").unwrap().client_secret("idea-svc").unwrap().to_owned();
    type Row<'a> = (Vec<(&'a str, &'a str)>, u16, &'a str, &'a str);
    let table: Vec<Row<'_>> = vec![
        (with(&[("password", "wrong")]), 400, "invalid_grant", "Invalid user credentials"),
        (with(&[]), 400, "invalid_grant", "Invalid user credentials"),
        (
            vec![("grant_type", "password"), ("client_id", "idea"), ("username", "eve"), ("password", "x")],
            400,
            "invalid_grant",
            "Invalid user credentials",
        ),
        (
            vec![("grant_type", "password"), ("client_id", "none")],
            401,
            "invalid_client",
            "Invalid client or Invalid client credentials",
        ),
        (vec![("client_id", "idea")], 400, "invalid_request", "Missing form parameter: grant_type"),
        (
            vec![("grant_type", "urn:x"), ("client_id", "idea")],
            400,
            "unsupported_grant_type",
            "Unsupported grant_type",
        ),
        (
            vec![("grant_type", "client_credentials"), ("client_id", "idea")],
            401,
            "unauthorized_client",
            "Public client not allowed to retrieve service account",
        ),
        (
            vec![("grant_type", "client_credentials"), ("client_id", "idea-svc"), ("client_secret", "no")],
            401,
            "unauthorized_client",
            "Invalid client or Invalid client credentials",
        ),
        (
            vec![
                ("grant_type", "password"),
                ("client_id", "idea-svc"),
                ("client_secret", &secret),
                ("username", "alice"),
                ("password", "alice1234!"),
            ],
            400,
            "unauthorized_client",
            "Client not allowed for direct access grants",
        ),
        (
            with(&[("password", "alice1234!"), ("scope", "openid patient/*.read")]),
            400,
            "invalid_scope",
            "Invalid scopes: openid patient/*.read",
        ),
        (with(&[("username", "bob")]), 400, "invalid_request", "duplicated parameter"),
        (
            vec![("grant_type", "refresh_token"), ("client_id", "idea"), ("refresh_token", "x")],
            400,
            "invalid_grant",
            "Invalid refresh token",
        ),
    ];
    for (form, status, error, description) in table {
        let expected = json!({ "error": error, "error_description": description });
        assert_eq!(post(&idp, &form).await, (status, expected), "{form:?}");
    }
    let client = http_client(None).unwrap();
    let response = client.get(format!("{}/realms/none", idp.base_url())).send().await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.json::<Value>().await.unwrap(), json!({"error": "Realm does not exist"}));
}

#[tokio::test]
async fn refresh_keeps_the_session_and_serves_one_client_only() {
    let idp = small().await;
    let client = IdpClient::of(&idp).unwrap();
    let first = client.grant("IDEA4RC", ALICE).await.unwrap();
    let token = first["refresh_token"].as_str().unwrap();
    assert_eq!(jsonwebtoken::decode_header(token).unwrap().alg, Algorithm::HS512);
    let second = client.grant("IDEA4RC", Grant::Refresh { client: "idea", token }).await.unwrap();
    assert_eq!(second["session_state"], first["session_state"]);
    assert_ne!(second["access_token"], first["access_token"]);
    verified(&idp, second["access_token"].as_str().unwrap()).await.unwrap();
    let secret = idp.realm("IDEA4RC").unwrap().client_secret("idea-svc").unwrap();
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "idea-svc"),
        ("client_secret", secret),
        ("refresh_token", token),
    ];
    let (status, body) = post(&idp, &form).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_grant")));
    let access = first["access_token"].as_str().unwrap();
    let form = [("grant_type", "refresh_token"), ("client_id", "idea"), ("refresh_token", access)];
    assert_eq!(post(&idp, &form).await.0, 400, "an access token does not refresh");
}

#[tokio::test]
async fn expired_refresh_token_is_not_active() {
    let realm = RealmSettings { refresh_lifespan: Duration::ZERO, ..RealmSettings::idea4rc() };
    let idp = start(Settings { realms: vec![realm], ..Settings::default() }).await.unwrap();
    let answer = IdpClient::of(&idp).unwrap().grant("IDEA4RC", ALICE).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let token = answer["refresh_token"].as_str().unwrap();
    let form = [("grant_type", "refresh_token"), ("client_id", "idea"), ("refresh_token", token)];
    let (status, body) = post(&idp, &form).await;
    assert_eq!((status, &body["error_description"]), (400, &json!("Token is not active")));
}

#[tokio::test]
async fn client_credentials_token_has_no_roles_and_takes_basic_authentication() {
    let idp = small().await;
    let secret = idp.realm("IDEA4RC").unwrap().client_secret("idea-svc").unwrap();
    assert!(secret.len() >= 32);
    let client = http_client(None).unwrap();
    let response = client
        .post(path(&idp, TOKEN))
        .basic_auth("idea-svc", Some(secret))
        .form(&[("grant_type", "client_credentials")])
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["refresh_expires_in"], 0);
    assert!(answer.get("refresh_token").is_none());
    let token = answer["access_token"].as_str().unwrap();
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    assert!(claims.get("realm_access").is_none());
    assert_eq!(claims["preferred_username"], "service-account-idea-svc");
    let other = small().await;
    assert_ne!(other.realm("IDEA4RC").unwrap().client_secret("idea-svc").unwrap(), secret);
}

#[tokio::test]
async fn jwks_has_a_signing_and_an_encryption_key_and_answers_304() {
    let realm = RealmSettings { es256: true, ..RealmSettings::idea4rc() };
    let idp = start(Settings { realms: vec![realm], ..Settings::default() }).await.unwrap();
    let realm = idp.realm("IDEA4RC").unwrap();
    let client = http_client(None).unwrap();
    let response = client.get(path(&idp, CERTS)).send().await.unwrap();
    let etag = response.headers()["etag"].clone();
    let jwks: Value = response.json().await.unwrap();
    let of = |key: &Value| format!("{} {} {}", key["kty"], key["use"], key["alg"]).replace('"', "");
    let kinds: Vec<_> = jwks["keys"].as_array().unwrap().iter().map(of).collect();
    assert_eq!(kinds, ["RSA enc RSA-OAEP", "RSA sig RS256", "EC sig ES256"]);
    let again = |tag: &str| client.get(path(&idp, CERTS)).header("if-none-match", tag).send();
    for tag in [etag.to_str().unwrap().to_owned(), format!("\"x\", W/{}", etag.to_str().unwrap())] {
        let response = again(&tag).await.unwrap();
        assert_eq!(response.status(), 304);
        assert_eq!(response.headers()["etag"], etag);
        assert!(response.bytes().await.unwrap().is_empty());
    }
    assert_eq!(again("\"x\"").await.unwrap().status(), 200);
    assert_eq!((realm.requests(Endpoint::Jwks), realm.not_modified()), (4, 2));
    realm.rotate_keys().await.unwrap();
    let response = again(etag.to_str().unwrap()).await.unwrap();
    assert_eq!(response.status(), 200, "a rotation changes the tag");
}

#[tokio::test]
async fn rotation_keeps_old_keys_until_they_are_dropped() {
    let idp = small().await;
    let realm = idp.realm("IDEA4RC").unwrap();
    let old = realm.token("idea", "alice").unwrap();
    let client = http_client(None).unwrap();
    let admin = |verb: &str| client.post(format!("{}/admin/realms/IDEA4RC/{verb}", idp.base_url())).send();
    let answer: Value = admin("rotate-keys").await.unwrap().json().await.unwrap();
    assert_eq!(answer["kid"], realm.kid());
    let new = realm.token("idea", "alice").unwrap();
    let kid = |token: &str| jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    assert_ne!(kid(&old), kid(&new));
    assert_eq!(kid(&new), realm.kid());
    verified(&idp, &old).await.unwrap();
    verified(&idp, &new).await.unwrap();
    let answer: Value = admin("drop-old-keys").await.unwrap().json().await.unwrap();
    assert_eq!(answer["dropped"], 1);
    assert_eq!(verified(&idp, &old).await.unwrap_err(), "no such kid");
    verified(&idp, &new).await.unwrap();
}

#[tokio::test]
async fn signs_any_claims_under_any_header() {
    let realm = RealmSettings { es256: true, ..RealmSettings::idea4rc() };
    let idp = start(Settings { realms: vec![realm], ..Settings::default() }).await.unwrap();
    let realm = idp.realm("IDEA4RC").unwrap();
    let claims = json!({ "aud": "fhir", "exp": 4_000_000_000_u64, "odd": [1, { "a": null }] });
    for alg in [Algorithm::RS256, Algorithm::RS512, Algorithm::PS384, Algorithm::ES256] {
        let token = realm.sign_with(&realm.header(alg), &claims).unwrap();
        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert_eq!(header.alg, alg);
        let keys: JwkSet = serde_json::from_slice(&realm.jwks()).unwrap();
        let key = DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
        let mut rules = Validation::new(alg);
        rules.set_audience(&["fhir"]);
        let decoded = jsonwebtoken::decode::<Value>(&token, &key, &rules).unwrap();
        assert_eq!(decoded.claims, claims);
    }
    let expired = realm.expired_token("idea", "alice").unwrap();
    assert_eq!(verified(&idp, &expired).await.unwrap_err(), "ExpiredSignature");
    let url = path(&idp, "/fhirward-demo/expired-token");
    let given = http_client(None).unwrap().get(url).send().await.unwrap().text().await.unwrap();
    assert_eq!(verified(&idp, &given).await.unwrap_err(), "ExpiredSignature");
    let url = path(&idp, "/fhirward-demo/service-secret");
    let secret = http_client(None).unwrap().get(url).send().await.unwrap().text().await.unwrap();
    assert_eq!(secret, realm.client_secret("idea-svc").unwrap());
    let without = Header { kid: None, ..realm.header(Algorithm::RS256) };
    let token = realm.sign_with(&without, &claims).unwrap();
    assert_eq!(jsonwebtoken::decode_header(&token).unwrap().kid, None);
}

#[tokio::test]
async fn https_with_its_own_ca_claims_a_public_issuer() {
    let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = Settings {
        http: Some(loopback),
        https: Some(loopback),
        certificate_names: vec!["keycloak.example".into(), "127.0.0.1".into()],
        frontend_url: Some("https://keycloak.example".into()),
        ..Settings::default()
    };
    let idp = start(settings).await.unwrap();
    assert!(idp.base_url().starts_with("https://127.0.0.1:"));
    assert_ne!(idp.http_addr(), idp.https_addr());
    let url = path(&idp, "/.well-known/openid-configuration");
    assert!(http_client(None).unwrap().get(&url).send().await.is_err(), "an unknown CA");
    let client = http_client(idp.ca_pem()).unwrap();
    let document: Value = client.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(document["issuer"], "https://keycloak.example/realms/IDEA4RC");
    assert_eq!(document["jwks_uri"], path(&idp, CERTS), "it follows the address asked");
    let token = idp.realm("IDEA4RC").unwrap().token("idea", "bob").unwrap();
    let claims = verified(&idp, &token).await.unwrap();
    assert_eq!(claims["iss"], "https://keycloak.example/realms/IDEA4RC");
    let named = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(idp.ca_pem().unwrap().as_bytes()).unwrap()])
        .resolve("keycloak.example", idp.https_addr().unwrap())
        .build()
        .unwrap();
    let port = idp.https_addr().unwrap().port();
    let url = format!("https://keycloak.example:{port}/realms/OTHER/.well-known/openid-configuration");
    let document: Value = named.get(&url).send().await.unwrap().json().await.unwrap();
    let jwks = document["jwks_uri"].as_str().unwrap();
    assert_eq!(jwks, format!("https://keycloak.example:{port}/realms/OTHER{CERTS}"));
}

#[tokio::test]
async fn userinfo_wants_a_good_token_with_the_openid_scope() {
    let idp = small().await;
    let client = http_client(None).unwrap();
    let url = path(&idp, "/protocol/openid-connect/userinfo");
    let ask = |token: &str| client.get(&url).bearer_auth(token).send();
    let realm = idp.realm("IDEA4RC").unwrap();
    let response = ask(&realm.token("idea", "bob").unwrap()).await.unwrap();
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["preferred_username"], &body["email"]), (&json!("bob"), &json!("bob@example.test")));
    let response = ask(&realm.expired_token("idea", "bob").unwrap()).await.unwrap();
    assert_eq!(response.status(), 401);
    let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.starts_with("Bearer realm=\"IDEA4RC\", error=\"invalid_token\""), "{challenge}");
    let mut claims = realm.access_claims("idea", "bob").unwrap();
    claims["scope"] = json!("profile email");
    let response = ask(&realm.sign(&claims).unwrap()).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(client.get(&url).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn knobs_delay_fail_and_count_one_realm_alone() {
    let idp = start(Settings::default()).await.unwrap();
    let (ours, other) = (idp.realm("IDEA4RC").unwrap(), idp.realm("OTHER").unwrap());
    let client = http_client(None).unwrap();
    ours.set_delay(Endpoint::Jwks, Duration::from_millis(300));
    let begun = Instant::now();
    assert_eq!(client.get(path(&idp, CERTS)).send().await.unwrap().status(), 200);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    ours.set_delay(Endpoint::Jwks, Duration::ZERO);
    ours.set_answer(Endpoint::Jwks, Some(Answer::status(StatusCode::SERVICE_UNAVAILABLE)));
    assert_eq!(client.get(path(&idp, CERTS)).send().await.unwrap().status(), 503);
    let elsewhere = format!("{}/realms/OTHER{CERTS}", idp.base_url());
    assert_eq!(client.get(&elsewhere).send().await.unwrap().status(), 200);
    ours.set_answer(Endpoint::Jwks, Some(Answer::json("{not json")));
    let body = client.get(path(&idp, CERTS)).send().await.unwrap().text().await.unwrap();
    assert_eq!(body, "{not json");
    let place = http::HeaderValue::from_static("http://169.254.169.254/");
    ours.set_answer(Endpoint::Jwks, Some(Answer::redirect(place)));
    assert_eq!(client.get(path(&idp, CERTS)).send().await.unwrap().status(), 302);
    ours.set_answer(Endpoint::Jwks, None);
    assert_eq!(client.get(path(&idp, CERTS)).send().await.unwrap().status(), 200);
    assert_eq!((ours.requests(Endpoint::Jwks), other.requests(Endpoint::Jwks)), (5, 1));
}

#[tokio::test]
async fn killed_and_resumed_with_the_same_keys_at_the_same_address() {
    let idp = small().await;
    let token = idp.realm("IDEA4RC").unwrap().token("idea", "alice").unwrap();
    verified(&idp, &token).await.unwrap();
    idp.kill().await;
    let client = http_client(None).unwrap();
    assert!(client.get(path(&idp, CERTS)).send().await.is_err());
    idp.resume().await.unwrap();
    verified(&idp, &token).await.unwrap();
    idp.stop().await;
    assert!(client.get(path(&idp, CERTS)).send().await.is_err());
}

#[tokio::test]
async fn token_lifespan_follows_client_then_realm() {
    let mut settings = RealmSettings::idea4rc();
    let short = Client { token_lifespan: Some(Duration::from_secs(1)), ..Client::public("idea-short") };
    settings.clients.push(short);
    let idp = start(Settings { realms: vec![settings], ..Settings::default() }).await.unwrap();
    let realm = idp.realm("IDEA4RC").unwrap();
    realm.set_token_lifespan(Duration::from_secs(120));
    let life = |client: &str| {
        let claims = realm.access_claims(client, "alice").unwrap();
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap()
    };
    assert_eq!((life("idea"), life("idea-short")), (120, 1));
}

#[tokio::test]
async fn refuses_public_addresses_and_senseless_settings() {
    let public = Settings { http: Some("0.0.0.0:0".parse().unwrap()), ..Settings::default() };
    assert!(matches!(start(public).await, Err(Error::NotLoopback { .. })));
    let nowhere = Settings { http: None, ..Settings::default() };
    assert!(matches!(start(nowhere).await, Err(Error::Settings(_))));
    let twice = vec![RealmSettings::idea4rc(), RealmSettings::idea4rc()];
    let twice = Settings { realms: twice, ..Settings::default() };
    assert!(matches!(start(twice).await, Err(Error::Settings(_))));
}
