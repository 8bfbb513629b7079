//! The HTTP face of the provider.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, PRAGMA};
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::json;

use super::Realms;
use super::realm::{Endpoint, Realm};
use super::{discovery, grants, userinfo};
use crate::faults::Answer;

/// The largest form that the token endpoint reads, in bytes.
const MAX_FORM: usize = 16 * 1024;

const JSON: (HeaderName, &str) = (CONTENT_TYPE, "application/json");

/// What every handler needs: the realms, and the address by which this listener is known.
#[derive(Clone)]
pub(super) struct Face {
    realms: Arc<Realms>,
    pub(super) scheme: &'static str,
    pub(super) addr: SocketAddr,
}

/// An answer other than success.
pub(super) enum Refusal {
    /// Keycloak's answer for a realm that does not exist.
    NoRealm,
    /// What a knob asks for.
    Planned(Box<Answer>),
    /// An OAuth error (RFC 6749, 5.2) in Keycloak's words.
    OAuth(StatusCode, &'static str, String),
    /// A userinfo error (RFC 6750, 3), with its challenge.
    Bearer(StatusCode, &'static str, &'static str, String),
    /// A failure of ours; its text goes to the log.
    Internal(crate::Error),
}

impl From<crate::Error> for Refusal {
    fn from(error: crate::Error) -> Self {
        Self::Internal(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let oauth = |error: &str, description: &str| {
            json!({ "error": error, "error_description": description }).to_string()
        };
        match self {
            Self::NoRealm => {
                let body = json!({ "error": "Realm does not exist" }).to_string();
                (StatusCode::NOT_FOUND, [JSON], body).into_response()
            }
            Self::Planned(answer) => answer.into_response(),
            Self::OAuth(status, error, description) => {
                let headers = [JSON, (CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")];
                (status, headers, oauth(error, &description)).into_response()
            }
            Self::Bearer(status, error, description, realm) => {
                let challenge = format!(
                    "Bearer realm=\"{realm}\", error=\"{error}\", error_description=\"{description}\""
                );
                let headers = [(http::header::WWW_AUTHENTICATE, challenge)];
                (status, headers, [JSON], oauth(error, description)).into_response()
            }
            Self::Internal(error) => {
                tracing::error!(%error, "identity provider");
                let body = json!({ "error": "unknown_error" }).to_string();
                (StatusCode::INTERNAL_SERVER_ERROR, [JSON], body).into_response()
            }
        }
    }
}

impl Face {
    /// The realm of a request, once its knob has let the request through.
    pub(super) async fn enter(&self, name: &str, at: Endpoint) -> Result<Arc<Realm>, Refusal> {
        let realm = self.realms.get(name).ok_or(Refusal::NoRealm)?;
        match realm.knobs.pass(at).await {
            Some(answer) => Err(Refusal::Planned(Box::new(answer))),
            None => Ok(Arc::clone(realm)),
        }
    }
}

pub(super) fn router(realms: Arc<Realms>, scheme: &'static str, addr: SocketAddr) -> Router {
    Router::new()
        .route("/realms/{realm}", get(discovery::realm))
        .route("/realms/{realm}/.well-known/openid-configuration", get(discovery::document))
        .route("/realms/{realm}/protocol/openid-connect/certs", get(certs))
        .route("/realms/{realm}/protocol/openid-connect/token", post(grants::token))
        .route(
            "/realms/{realm}/protocol/openid-connect/userinfo",
            get(userinfo::userinfo).post(userinfo::userinfo),
        )
        .route("/realms/{realm}/fhirward-demo/expired-token", get(expired_token))
        .route("/realms/{realm}/fhirward-demo/service-secret", get(service_secret))
        .route("/admin/realms/{realm}/rotate-keys", post(rotate_keys))
        .route("/admin/realms/{realm}/drop-old-keys", post(drop_old_keys))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .with_state(Face { realms, scheme, addr })
}

async fn certs(
    State(face): State<Face>,
    Path(realm): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let realm = face.enter(&realm, Endpoint::Jwks).await?;
    let keys = realm.keys();
    let (body, etag) = keys.document();
    let caching = [(CACHE_CONTROL, "no-cache"), (ETAG, etag)];
    if headers.get_all(IF_NONE_MATCH).iter().any(|value| names_tag(value.as_bytes(), etag)) {
        realm.count_not_modified();
        return Ok((StatusCode::NOT_MODIFIED, caching).into_response());
    }
    Ok((caching, [JSON], body).into_response())
}

/// Whether an If-None-Match value names this tag (RFC 9110, 13.1.2: a list, weak comparison).
fn names_tag(value: &[u8], etag: &str) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    let mut tags = value.split(',').map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

async fn expired_token(State(face): State<Face>, Path(realm): Path<String>) -> Result<Response, Refusal> {
    let realm = face.enter(&realm, Endpoint::Demo).await?;
    Ok(secret_text(realm.expired_token("idea", "alice")?))
}

async fn service_secret(State(face): State<Face>, Path(realm): Path<String>) -> Result<Response, Refusal> {
    let realm = face.enter(&realm, Endpoint::Demo).await?;
    Ok(secret_text(realm.client_secret("idea-svc")?.to_owned()))
}

fn secret_text(text: String) -> Response {
    ([(CONTENT_TYPE, "text/plain"), (CACHE_CONTROL, "no-store")], text).into_response()
}

async fn rotate_keys(State(face): State<Face>, Path(realm): Path<String>) -> Result<Response, Refusal> {
    let realm = face.enter(&realm, Endpoint::Admin).await?;
    let kid = realm.rotate_keys().await?;
    Ok(([JSON], json!({ "kid": kid }).to_string()).into_response())
}

async fn drop_old_keys(State(face): State<Face>, Path(realm): Path<String>) -> Result<Response, Refusal> {
    let realm = face.enter(&realm, Endpoint::Admin).await?;
    let dropped = realm.drop_old_keys();
    Ok(([JSON], json!({ "dropped": dropped }).to_string()).into_response())
}

async fn not_found(_: Request) -> Response {
    let body = json!({ "error": "HTTP 404 Not Found" }).to_string();
    (StatusCode::NOT_FOUND, [JSON], body).into_response()
}
