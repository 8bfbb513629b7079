//! The userinfo endpoint (OpenID Connect Core 1.0, 5.3).

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use jsonwebtoken::Validation;
use serde::Deserialize;
use serde_json::Value;

use super::claims::profile;
use super::realm::{Endpoint, Realm};
use super::routes::{Face, Refusal};

#[derive(Deserialize)]
struct AccessClaims {
    sub: String,
    typ: String,
    #[serde(default)]
    scope: String,
}

pub(super) async fn userinfo(
    State(face): State<Face>,
    Path(realm): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let realm = face.enter(&realm, Endpoint::UserInfo).await?;
    let refuse = |status, error, text| Refusal::Bearer(status, error, text, realm.name().to_owned());
    let token = bearer(&headers)
        .ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "invalid_request", "Token not provided"))?;
    let invalid = || refuse(StatusCode::UNAUTHORIZED, "invalid_token", "Token verification failed");
    let claims = verify(&realm, token).ok_or_else(invalid)?;
    if !claims.scope.split(' ').any(|scope| scope == "openid") {
        return Err(refuse(StatusCode::FORBIDDEN, "insufficient_scope", "Missing openid scope"));
    }
    let user = realm.user_by_subject(&claims.sub).ok_or_else(invalid)?;
    let mut answer = profile(user);
    answer.insert("sub".to_owned(), claims.sub.into());
    Ok(([(CONTENT_TYPE, "application/json")], Value::Object(answer).to_string()).into_response())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// The claims of a token that one of the realm's published keys signed and that is still good.
fn verify(realm: &Realm, token: &str) -> Option<AccessClaims> {
    let header = jsonwebtoken::decode_header(token).ok()?;
    let keys = realm.keys();
    let key = keys.verifier(header.kid.as_deref()?)?;
    let mut rules = Validation::new(header.alg);
    rules.leeway = 0;
    rules.validate_aud = false;
    rules.set_issuer(&[realm.issuer()]);
    let claims = jsonwebtoken::decode::<AccessClaims>(token, key, &rules).ok()?.claims;
    (claims.typ == "Bearer").then_some(claims)
}
