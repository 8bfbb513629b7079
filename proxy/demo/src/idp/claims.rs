//! The claims of tokens, as Keycloak 26 writes them.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::realm::Realm;
use super::settings::{Client, User};
use crate::Error;

/// The scopes of a login that asks for none, and of one that asks for `openid`.
pub(super) const PLAIN_SCOPE: &str = "profile email";
pub(super) const OPENID_SCOPE: &str = "openid profile email";
/// How long ago the expired sample ended: past any clock skew that a proxy allows.
const EXPIRED_AGO: u64 = 2 * 60 * 60;

/// Seconds since 1970; 0 when the clock is before that, so that tokens come out expired.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// One login: what its tokens have in common.
pub(super) struct Session<'a> {
    pub(super) client: &'a Client,
    pub(super) user: &'a User,
    pub(super) sid: String,
    pub(super) scope: String,
}

impl Realm {
    /// The claims that a password login of this user through this client would give now, to be
    /// changed and signed by a test ([`Realm::sign`]).
    ///
    /// # Errors
    /// [`Error::Unknown`] when there is no such client or user.
    pub fn access_claims(&self, client_id: &str, username: &str) -> Result<Value, Error> {
        let session = Session {
            client: self.client(client_id)?,
            user: self.user(username)?,
            sid: Uuid::new_v4().to_string(),
            scope: OPENID_SCOPE.to_owned(),
        };
        Ok(self.user_access_claims(&session))
    }

    /// A good token for this user, signed now, without the detour over HTTP.
    ///
    /// # Errors
    /// [`Error::Unknown`] when there is no such client or user.
    pub fn token(&self, client_id: &str, username: &str) -> Result<String, Error> {
        self.sign(&self.access_claims(client_id, username)?)
    }

    /// A token of this user that was good until two hours ago.
    ///
    /// # Errors
    /// [`Error::Unknown`] when there is no such client or user.
    pub fn expired_token(&self, client_id: &str, username: &str) -> Result<String, Error> {
        let mut claims = self.access_claims(client_id, username)?;
        let ended = now().saturating_sub(EXPIRED_AGO);
        if let Some(claims) = claims.as_object_mut() {
            claims.insert("exp".to_owned(), ended.into());
            claims.insert("iat".to_owned(), ended.saturating_sub(60).into());
        }
        self.sign(&claims)
    }

    pub(super) fn user_access_claims(&self, session: &Session<'_>) -> Value {
        let mut claims = self.common(session.client, self.subject(&session.user.username), "Bearer");
        put(&mut claims, "jti", format!("onrtro:{}", Uuid::new_v4()));
        put(&mut claims, "sid", session.sid.clone());
        put(&mut claims, "acr", "1");
        put(&mut claims, "allowed-origins", json!(["*"]));
        let roles = self.roles(session.user);
        if !roles.is_empty() {
            put(&mut claims, "realm_access", json!({ "roles": roles }));
        }
        put(&mut claims, "scope", session.scope.clone());
        claims.extend(profile(session.user));
        claims.extend(session.user.attributes.iter().map(|(k, v)| (k.clone(), v.clone())));
        Value::Object(claims)
    }

    pub(super) fn service_claims(&self, client: &Client) -> Value {
        let account = format!("service-account-{}", client.client_id);
        let mut claims = self.common(client, self.subject(&account), "Bearer");
        put(&mut claims, "jti", format!("trrtcc:{}", Uuid::new_v4()));
        put(&mut claims, "acr", "1");
        if !client.service_roles.is_empty() {
            put(&mut claims, "realm_access", json!({ "roles": client.service_roles }));
        }
        put(&mut claims, "scope", PLAIN_SCOPE);
        put(&mut claims, "clientHost", "127.0.0.1");
        put(&mut claims, "clientAddress", "127.0.0.1");
        put(&mut claims, "email_verified", false);
        put(&mut claims, "preferred_username", account);
        put(&mut claims, "client_id", client.client_id.clone());
        Value::Object(claims)
    }

    /// The ID token of a login (OpenID Connect Core 1.0, 2), bound to its access token.
    pub(super) fn id_token(&self, session: &Session<'_>, access: &str) -> Result<String, Error> {
        let mut claims = self.common(session.client, self.subject(&session.user.username), "ID");
        put(&mut claims, "jti", Uuid::new_v4().to_string());
        put(&mut claims, "aud", session.client.client_id.clone());
        put(&mut claims, "sid", session.sid.clone());
        put(&mut claims, "acr", "1");
        let hash = digest(&SHA256, access.as_bytes());
        let half = hash.as_ref().split_at(hash.as_ref().len() / 2).0;
        put(&mut claims, "at_hash", URL_SAFE_NO_PAD.encode(half));
        claims.extend(profile(session.user));
        self.sign(&Value::Object(claims))
    }

    /// A refresh token: HS512 under a secret that only this provider has, as Keycloak's are.
    pub(super) fn refresh_token(&self, session: &Session<'_>) -> Result<String, Error> {
        let issued = now();
        let claims = json!({
            "exp": issued + self.refresh_lifespan(),
            "iat": issued,
            "jti": Uuid::new_v4().to_string(),
            "iss": self.issuer(),
            "aud": self.issuer(),
            "sub": self.subject(&session.user.username).to_string(),
            "typ": "Refresh",
            "azp": session.client.client_id,
            "sid": session.sid,
            "scope": session.scope,
        });
        let key = EncodingKey::from_secret(self.refresh_secret());
        Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims, &key)?)
    }

    fn common(&self, client: &Client, subject: Uuid, typ: &str) -> Map<String, Value> {
        let issued = now();
        let mut claims = Map::new();
        put(&mut claims, "exp", issued.saturating_add(self.lifespan(client)));
        put(&mut claims, "iat", issued);
        put(&mut claims, "iss", self.issuer());
        match client.audience.as_slice() {
            [] => {}
            // Keycloak writes one audience as a string (RFC 7519, 4.1.3 allows both).
            [one] => put(&mut claims, "aud", one.as_str()),
            several => put(&mut claims, "aud", json!(several)),
        }
        put(&mut claims, "sub", subject.to_string());
        put(&mut claims, "typ", typ);
        put(&mut claims, "azp", client.client_id.as_str());
        claims
    }
}

/// The claims of the scopes `profile` and `email`.
pub(super) fn profile(user: &User) -> Map<String, Value> {
    let mut claims = Map::new();
    put(&mut claims, "email_verified", true);
    put(&mut claims, "name", format!("{} {}", user.first_name, user.last_name));
    put(&mut claims, "preferred_username", user.username.as_str());
    put(&mut claims, "given_name", user.first_name.as_str());
    put(&mut claims, "family_name", user.last_name.as_str());
    put(&mut claims, "email", user.email.as_str());
    claims
}

fn put(claims: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    claims.insert(name.to_owned(), value.into());
}
