//! Tokens, got as an application gets them.

use serde_json::Value;

use super::{Error, ask, http_client};
use crate::idp::Idp;

/// How much of an unexpected answer is shown.
const SHOWN: usize = 300;

/// A way to ask for a token.
#[derive(Clone, Copy, Debug)]
pub enum Grant<'a> {
    /// A user's password, through a public client.
    Password {
        /// Client ID.
        client: &'a str,
        /// Login name.
        username: &'a str,
        /// Password.
        password: &'a str,
    },
    /// A refresh token, through a public client.
    Refresh {
        /// Client ID.
        client: &'a str,
        /// The refresh token.
        token: &'a str,
    },
    /// A confidential client's own account.
    ClientCredentials {
        /// Client ID.
        client: &'a str,
        /// Its secret.
        secret: &'a str,
    },
}

impl Grant<'_> {
    fn form(&self) -> Vec<(&'static str, &str)> {
        match *self {
            Self::Password { client, username, password } => vec![
                ("grant_type", "password"),
                ("client_id", client),
                ("username", username),
                ("password", password),
                ("scope", "openid"),
            ],
            Self::Refresh { client, token } => {
                vec![("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", token)]
            }
            Self::ClientCredentials { client, secret } => {
                vec![("grant_type", "client_credentials"), ("client_id", client), ("client_secret", secret)]
            }
        }
    }
}

/// A client of any identity provider with Keycloak's URL shapes: ours or a real one.
pub struct IdpClient {
    http: reqwest::Client,
    base: String,
}

impl IdpClient {
    /// For the provider at this base URL (no final slash), which `ca_pem` vouches for where it
    /// has TLS.
    ///
    /// # Errors
    /// [`Error::Client`] when the CA is not PEM.
    pub fn new(base: impl Into<String>, ca_pem: Option<&str>) -> Result<Self, Error> {
        Ok(Self { http: http_client(ca_pem)?, base: base.into() })
    }

    /// For a provider of this process.
    ///
    /// # Errors
    /// [`Error::Client`] when the HTTP client cannot be set up.
    pub fn of(idp: &Idp) -> Result<Self, Error> {
        Self::new(idp.base_url(), idp.ca_pem())
    }

    /// The token endpoint's whole JSON answer.
    ///
    /// # Errors
    /// [`Error::NoAnswer`], or [`Error::NoToken`] for any status but 200.
    pub async fn grant(&self, realm: &str, grant: Grant<'_>) -> Result<Value, Error> {
        let url = format!("{}/realms/{realm}/protocol/openid-connect/token", self.base);
        let (status, body) = ask(self.http.post(&url).form(&grant.form()), &url).await?;
        let parsed = serde_json::from_slice(&body).ok().filter(|_| status == 200);
        parsed.ok_or_else(|| {
            let body = String::from_utf8_lossy(&body).chars().take(SHOWN).collect();
            Error::NoToken { url, status, body }
        })
    }

    /// The access token alone.
    ///
    /// # Errors
    /// As [`IdpClient::grant`].
    pub async fn access_token(&self, realm: &str, grant: Grant<'_>) -> Result<String, Error> {
        let answer = self.grant(realm, grant).await?;
        let token = answer.get("access_token").and_then(Value::as_str).map(str::to_owned);
        token.ok_or_else(|| Error::NoToken {
            url: self.base.clone(),
            status: 200,
            body: "an answer without access_token".to_owned(),
        })
    }
}

/// One token for each kind of credential in the table.
#[derive(Clone)]
pub struct Tokens {
    /// Alice's (Patient).
    pub alice: String,
    /// Bob's (Medic).
    pub bob: String,
    /// Of Alice's, ended long enough ago that no clock skew saves it.
    pub expired: String,
    /// Alice's, from a realm that the manifests do not trust.
    pub other_realm: String,
    /// A service account's without roles.
    pub service: String,
}

impl Tokens {
    /// Gets them from a provider of this process with the realms IDEA4RC and OTHER: over HTTP,
    /// all but the expired one, which is signed on the spot.
    ///
    /// # Errors
    /// As [`IdpClient::grant`]; [`crate::Error::Unknown`] when a realm or a user is missing.
    pub async fn from_demo(idp: &Idp) -> Result<Self, FromDemoError> {
        let client = IdpClient::of(idp)?;
        let realm = idp.realm("IDEA4RC")?;
        let alice = Grant::Password { client: "idea", username: "alice", password: "alice1234!" };
        let bob = Grant::Password { client: "idea", username: "bob", password: "bob1234!" };
        let service =
            Grant::ClientCredentials { client: "idea-svc", secret: realm.client_secret("idea-svc")? };
        Ok(Self {
            alice: client.access_token("IDEA4RC", alice).await?,
            bob: client.access_token("IDEA4RC", bob).await?,
            expired: realm.expired_token("idea", "alice")?,
            other_realm: client.access_token("OTHER", alice).await?,
            service: client.access_token("IDEA4RC", service).await?,
        })
    }
}

/// Why [`Tokens::from_demo`] failed.
#[derive(Debug, thiserror::Error)]
pub enum FromDemoError {
    /// Over HTTP.
    #[error(transparent)]
    Client(#[from] Error),
    /// In the provider itself.
    #[error(transparent)]
    Provider(#[from] crate::Error),
}
