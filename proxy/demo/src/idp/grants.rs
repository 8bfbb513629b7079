//! The token endpoint: password, refresh_token and client_credentials (RFC 6749, 4.3, 6, 4.4).

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use http::{HeaderMap, StatusCode};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::claims::{OPENID_SCOPE, PLAIN_SCOPE, Session};
use super::realm::{Endpoint, Realm};
use super::routes::{Face, Refusal};
use super::settings::Client;

type Pairs = Vec<(String, String)>;

pub(super) async fn token(
    State(face): State<Face>,
    Path(realm): Path<String>,
    headers: HeaderMap,
    form: Result<Form<Pairs>, FormRejection>,
) -> Result<Response, Refusal> {
    let realm = face.enter(&realm, Endpoint::Token).await?;
    let Form(pairs) = form
        .map_err(|rejection| Refusal::OAuth(rejection.status(), "invalid_request", rejection.body_text()))?;
    let form = Parameters::read(pairs)?;
    let grant = form
        .get("grant_type")
        .ok_or_else(|| bad_request("invalid_request", "Missing form parameter: grant_type"))?;
    let client = authenticate(&realm, &headers, &form)?;
    let answer = match grant {
        "password" => password(&realm, client, &form),
        "refresh_token" => refresh(&realm, client, &form),
        "client_credentials" => client_credentials(&realm, client),
        _ => Err(bad_request("unsupported_grant_type", "Unsupported grant_type")),
    }?;
    let caching = [(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")];
    Ok((caching, [(CONTENT_TYPE, "application/json")], answer.to_string()).into_response())
}

struct Parameters(Pairs);

impl Parameters {
    /// RFC 6749, 3.2: no parameter may come twice.
    fn read(pairs: Pairs) -> Result<Self, Refusal> {
        let mut names: Vec<_> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(bad_request("invalid_request", "duplicated parameter"));
        }
        Ok(Self(pairs))
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

fn bad_request(error: &'static str, description: &str) -> Refusal {
    Refusal::OAuth(StatusCode::BAD_REQUEST, error, description.to_owned())
}

fn unauthorized(error: &'static str, description: &str) -> Refusal {
    Refusal::OAuth(StatusCode::UNAUTHORIZED, error, description.to_owned())
}

/// RFC 6749, 2.3.1: by Basic authentication or in the form. Keycloak says `invalid_client` of a
/// client that it does not know and `unauthorized_client` of a wrong secret.
fn authenticate<'a>(realm: &'a Realm, headers: &HeaderMap, form: &Parameters) -> Result<&'a Client, Refusal> {
    const WRONG: &str = "Invalid client or Invalid client credentials";
    let basic = basic_credentials(headers);
    let (id, secret) = match &basic {
        Some((id, secret)) => (Some(id.as_str()), Some(secret.as_str())),
        None => (form.get("client_id"), form.get("client_secret")),
    };
    let known = id.and_then(|id| realm.client(id).ok());
    let client = known.ok_or_else(|| unauthorized("invalid_client", WRONG))?;
    match (&client.secret, secret) {
        (None, _) => Ok(client),
        (Some(right), Some(given)) if right == given => Ok(client),
        (Some(_), _) => Err(unauthorized("unauthorized_client", WRONG)),
    }
}

fn basic_credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

fn password(realm: &Realm, client: &Client, form: &Parameters) -> Result<Value, Refusal> {
    if !client.direct_access_grants {
        let text = "Client not allowed for direct access grants";
        return Err(bad_request("unauthorized_client", text));
    }
    let scope = scope(realm, form)?;
    let missing = || unauthorized("invalid_request", "Missing parameter: username");
    let username = form.get("username").ok_or_else(missing)?;
    let wrong = || bad_request("invalid_grant", "Invalid user credentials");
    let user = realm.user(username).map_err(|_| wrong())?;
    if form.get("password") != Some(user.password.as_str()) {
        return Err(wrong());
    }
    let sid = Uuid::new_v4().to_string();
    grant(realm, &Session { client, user, sid, scope })
}

/// The scope of the answer: what everyone gets, then what was asked for and is allowed.
fn scope(realm: &Realm, form: &Parameters) -> Result<String, Refusal> {
    let asked = form.get("scope").unwrap_or_default();
    let mut further = Vec::new();
    let mut granted = PLAIN_SCOPE.to_owned();
    for name in asked.split(' ').filter(|name| !name.is_empty()) {
        match name {
            "openid" => granted = OPENID_SCOPE.to_owned(),
            "profile" | "email" => {}
            _ if realm.optional_scopes().iter().any(|allowed| allowed == name) => further.push(name),
            _ => return Err(bad_request("invalid_scope", &format!("Invalid scopes: {asked}"))),
        }
    }
    for name in further {
        granted.push(' ');
        granted.push_str(name);
    }
    Ok(granted)
}

fn grant(realm: &Realm, session: &Session<'_>) -> Result<Value, Refusal> {
    let access = realm.sign(&realm.user_access_claims(session))?;
    let mut answer = Map::new();
    let mut put = |name: &str, value: Value| answer.insert(name.to_owned(), value);
    put("expires_in", realm.lifespan(session.client).into());
    put("refresh_expires_in", realm.refresh_lifespan().into());
    put("refresh_token", realm.refresh_token(session)?.into());
    put("token_type", "Bearer".into());
    if session.scope.split(' ').any(|name| name == "openid") {
        put("id_token", realm.id_token(session, &access)?.into());
    }
    put("access_token", access.into());
    put("not-before-policy", 0.into());
    put("session_state", session.sid.clone().into());
    put("scope", session.scope.clone().into());
    Ok(Value::Object(answer))
}

#[derive(Deserialize)]
struct RefreshClaims {
    typ: String,
    azp: String,
    sub: String,
    sid: String,
    scope: String,
}

fn refresh(realm: &Realm, client: &Client, form: &Parameters) -> Result<Value, Refusal> {
    let invalid = |text: &str| bad_request("invalid_grant", text);
    let token =
        form.get("refresh_token").ok_or_else(|| bad_request("invalid_request", "No refresh token"))?;
    let mut rules = Validation::new(Algorithm::HS512);
    rules.leeway = 0;
    rules.set_issuer(&[realm.issuer()]);
    rules.set_audience(&[realm.issuer()]);
    let key = DecodingKey::from_secret(realm.refresh_secret());
    let decoded = jsonwebtoken::decode::<RefreshClaims>(token, &key, &rules);
    let claims = decoded.map_err(|error| match error.kind() {
        ErrorKind::ExpiredSignature => invalid("Token is not active"),
        _ => invalid("Invalid refresh token"),
    })?;
    let claims = claims.claims;
    if claims.typ != "Refresh" {
        return Err(invalid("Invalid refresh token"));
    }
    if claims.azp != client.client_id {
        return Err(invalid("Invalid refresh token. Token client and authorized client don't match"));
    }
    let user = realm.user_by_subject(&claims.sub).ok_or_else(|| invalid("User not found"))?;
    grant(realm, &Session { client, user, sid: claims.sid, scope: claims.scope })
}

fn client_credentials(realm: &Realm, client: &Client) -> Result<Value, Refusal> {
    if client.secret.is_none() {
        let text = "Public client not allowed to retrieve service account";
        return Err(unauthorized("unauthorized_client", text));
    }
    if !client.service_account {
        let text = "Client not enabled to retrieve service account";
        return Err(unauthorized("unauthorized_client", text));
    }
    let access = realm.sign(&realm.service_claims(client))?;
    Ok(json!({
        "access_token": access,
        "expires_in": realm.lifespan(client),
        "refresh_expires_in": 0,
        "token_type": "Bearer",
        "not-before-policy": 0,
        "scope": PLAIN_SCOPE,
    }))
}
