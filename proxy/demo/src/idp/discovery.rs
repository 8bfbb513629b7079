//! The realm's own page and its discovery document.

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::uri::Authority;
use serde_json::{Value, json};

use super::realm::{Endpoint, Realm};
use super::routes::{Face, Refusal};

pub(super) async fn realm(
    State(face): State<Face>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let base = asked_base(&face, &request);
    let realm = face.enter(&name, Endpoint::Realm).await?;
    let page = json!({
        "realm": realm.name(),
        "public_key": realm.keys().public_key(),
        "token-service": format!("{base}/realms/{name}/protocol/openid-connect"),
        "account-service": format!("{base}/realms/{name}/account"),
        "tokens-not-before": 0,
    });
    Ok(json_page(&page))
}

pub(super) async fn document(
    State(face): State<Face>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let base = asked_base(&face, &request);
    let realm = face.enter(&name, Endpoint::Discovery).await?;
    Ok(json_page(&describe(&realm, &base)))
}

/// Keycloak's field names; only what this provider can do is claimed.
fn describe(realm: &Realm, base: &str) -> Value {
    let openid = format!("{base}/realms/{}/protocol/openid-connect", realm.name());
    let signing = realm.keys().es256_kid().map_or(json!(["RS256"]), |_| json!(["RS256", "ES256"]));
    json!({
        "issuer": realm.issuer(),
        "token_endpoint": format!("{openid}/token"),
        "userinfo_endpoint": format!("{openid}/userinfo"),
        "jwks_uri": format!("{openid}/certs"),
        "grant_types_supported": ["password", "refresh_token", "client_credentials"],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": signing,
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "claims_supported": [
            "aud", "sub", "iss", "name", "given_name", "family_name", "preferred_username",
            "email", "acr",
        ],
        "claim_types_supported": ["normal"],
        "scopes_supported": scopes(realm),
    })
}

fn scopes(realm: &Realm) -> Vec<&str> {
    let always = ["openid", "profile", "email"];
    always.into_iter().chain(realm.optional_scopes().iter().map(String::as_str)).collect()
}

/// The base URL by which the client reached us; its own word for it only where that is a plain
/// authority, else our address.
fn asked_base(face: &Face, request: &Request) -> String {
    let host = || request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let named = request.uri().authority().map(Authority::as_str).or_else(host);
    let parsed = named.and_then(|name| name.parse::<Authority>().ok());
    match parsed.filter(|authority| !authority.as_str().contains('@')) {
        Some(authority) => format!("{}://{authority}", face.scheme),
        None => format!("{}://{}", face.scheme, face.addr),
    }
}

fn json_page(page: &Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json;charset=UTF-8"), (CACHE_CONTROL, "no-cache")];
    (headers, page.to_string()).into_response()
}
