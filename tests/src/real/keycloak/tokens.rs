//! Tokens from a real Keycloak: by password, by client credentials, by refresh, and brief ones.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::{Keycloak, REALM};
use crate::real::error::{RealError, Result};

/// How much of a refusal's body goes into the error, in characters.
const BODY_SHOWN: usize = 500;
/// The client of the realm `IDEA4RC` whose tokens are over after one second.
const BRIEF_CLIENT: &str = "idea-brief";
const CLIENT: &str = "idea";

/// What the token endpoint gives.
#[derive(Debug, Clone, Deserialize)]
pub struct TokenSet {
    /// The access token, a JWT.
    pub access_token: String,
    /// The refresh token; client credentials give none.
    pub refresh_token: Option<String>,
    /// For how long the access token holds, in seconds.
    pub expires_in: u64,
}

/// An access token that was over a second after it was issued. Verifiers forgive some seconds of
/// clock skew, so take it early and use it late.
#[derive(Debug, Clone)]
pub struct BriefToken {
    token: String,
    expires: SystemTime,
}

impl BriefToken {
    /// Waits until the token has been expired for longer than `skew`, and gives it.
    pub async fn expired_by(self, skew: Duration) -> String {
        let usable = self.expires + skew + Duration::from_secs(1);
        if let Ok(wait) = usable.duration_since(SystemTime::now()) {
            tokio::time::sleep(wait).await;
        }
        self.token
    }

    /// The token as it is now.
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl Keycloak {
    /// An access token by user name and password. Users: `alice` (Patient) and `bob` (Medic) of the
    /// realm `IDEA4RC`, and another `bob` of `OTHER`; passwords `alice1234!` and `bob1234!`.
    ///
    /// # Errors
    /// When Keycloak cannot be reached or refuses.
    pub async fn token(&self, realm: &str, client: &str, user: &str, password: &str) -> Result<String> {
        Ok(self.token_set(realm, client, user, password).await?.access_token)
    }

    /// As [`token`](Self::token), with the refresh token.
    ///
    /// # Errors
    /// When Keycloak cannot be reached or refuses.
    pub async fn token_set(&self, realm: &str, client: &str, user: &str, password: &str) -> Result<TokenSet> {
        let form = [
            ("grant_type", "password"),
            ("client_id", client),
            ("username", user),
            ("password", password),
            ("scope", "openid"),
        ];
        self.grant(realm, &form).await
    }

    /// Alice's token: role `Patient`, realm `IDEA4RC`.
    ///
    /// # Errors
    /// When Keycloak cannot be reached or refuses.
    pub async fn alice(&self) -> Result<String> {
        self.token(REALM, CLIENT, "alice", "alice1234!").await
    }

    /// Bob's token: role `Medic`, realm `IDEA4RC`.
    ///
    /// # Errors
    /// When Keycloak cannot be reached or refuses.
    pub async fn bob(&self) -> Result<String> {
        self.token(REALM, CLIENT, "bob", "bob1234!").await
    }

    /// A token of the same user and role from the realm `OTHER`.
    ///
    /// # Errors
    /// When Keycloak cannot be reached or refuses.
    pub async fn bob_of_the_other_realm(&self) -> Result<String> {
        self.token("OTHER", CLIENT, "bob", "bob1234!").await
    }

    /// The token of the client `idea-svc` itself: no user, no role.
    ///
    /// # Errors
    /// When Keycloak cannot be reached or refuses.
    pub async fn service_token(&self) -> Result<String> {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", "idea-svc"),
            ("client_secret", self.service_secret()),
        ];
        Ok(self.grant(REALM, &form).await?.access_token)
    }

    /// A new set for a refresh token of the client `idea`.
    ///
    /// # Errors
    /// When Keycloak cannot be reached or refuses.
    pub async fn refresh(&self, realm: &str, refresh_token: &str) -> Result<TokenSet> {
        let form = [("grant_type", "refresh_token"), ("client_id", CLIENT), ("refresh_token", refresh_token)];
        self.grant(realm, &form).await
    }

    /// A token of the realm `IDEA4RC` that is over after one second.
    ///
    /// # Errors
    /// When Keycloak cannot be reached or refuses.
    pub async fn brief_token(&self, user: &str, password: &str) -> Result<BriefToken> {
        let token = self.token(REALM, BRIEF_CLIENT, user, password).await?;
        let seconds = claims(&token)?.get("exp").and_then(Value::as_u64);
        let seconds = seconds.ok_or_else(|| RealError::Shape("a token without exp".to_owned()))?;
        Ok(BriefToken { token, expires: UNIX_EPOCH + Duration::from_secs(seconds) })
    }

    pub(super) async fn grant(&self, realm: &str, form: &[(&str, &str)]) -> Result<TokenSet> {
        let response = self.http.post(self.token_url(realm)).form(form).send().await?;
        Ok(checked("a token request", response).await?.json().await?)
    }
}

/// The answer, where its status says success.
pub(super) async fn checked(what: &str, response: reqwest::Response) -> Result<reqwest::Response> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let body = response.text().await?.chars().take(BODY_SHOWN).collect();
    Err(RealError::Refused { what: what.to_owned(), status, body })
}

/// The claims of a JWT, unverified.
pub(super) fn claims(token: &str) -> Result<Value> {
    segment(token, 1)
}

/// The `kid` of a JWT's header, unverified.
pub(super) fn kid(token: &str) -> Result<String> {
    let header = segment(token, 0)?;
    let kid = header.get("kid").and_then(Value::as_str);
    kid.map(str::to_owned).ok_or_else(|| RealError::Shape("a token without kid".to_owned()))
}

fn segment(token: &str, index: usize) -> Result<Value> {
    let shape = || RealError::Shape("not a JWT".to_owned());
    let text = token.split('.').nth(index).ok_or_else(shape)?;
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| shape())?;
    serde_json::from_slice(&bytes).map_err(|_| shape())
}
