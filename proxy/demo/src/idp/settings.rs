//! What the provider is told to be.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::Error;

/// The access tokens' life in the realm file that the real Keycloak imports.
const TOKEN_LIFESPAN: Duration = Duration::from_secs(3600);
/// Keycloak's default SSO idle time, which bounds a refresh token.
const REFRESH_LIFESPAN: Duration = Duration::from_secs(1800);
/// Bytes of a generated client secret.
const SECRET_BYTES: usize = 32;
/// The most realms, so that key generation at the start stays bounded.
const MAX_REALMS: usize = 16;

/// The provider's settings.
#[derive(Clone)]
pub struct Settings {
    /// Where to listen without TLS; port 0 takes a free one.
    pub http: Option<SocketAddr>,
    /// Where to listen with TLS, under a throw-away CA.
    pub https: Option<SocketAddr>,
    /// DNS names and IP addresses in the TLS certificate.
    pub certificate_names: Vec<String>,
    /// The public address that tokens name as their issuer's beginning, such as
    /// `https://keycloak.example` (no final slash). `None`: the address it listens on.
    pub frontend_url: Option<String>,
    /// The realms, by name.
    pub realms: Vec<RealmSettings>,
}

impl Default for Settings {
    /// HTTP on a free loopback port, with the realms [`RealmSettings::idea4rc`] and
    /// [`RealmSettings::other`].
    fn default() -> Self {
        Self {
            http: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            https: None,
            certificate_names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            frontend_url: None,
            realms: vec![RealmSettings::idea4rc(), RealmSettings::other()],
        }
    }
}

impl Settings {
    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |text: String| Err(Error::Settings(text));
        if self.http.is_none() && self.https.is_none() {
            return wrong("the identity provider needs an HTTP or an HTTPS address".to_owned());
        }
        if self.realms.is_empty() || self.realms.len() > MAX_REALMS {
            return wrong(format!("1 to {MAX_REALMS} realms, not {}", self.realms.len()));
        }
        let mut names: Vec<_> = self.realms.iter().map(|realm| realm.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() != self.realms.len() {
            return wrong("two realms have the same name".to_owned());
        }
        Ok(())
    }
}

/// One realm.
#[derive(Clone)]
pub struct RealmSettings {
    /// Its name, as in its URLs.
    pub name: String,
    /// The issuer in full, when it is not `{frontend_url}/realms/{name}`.
    pub issuer: Option<String>,
    /// How long access tokens live, where the client does not say.
    pub token_lifespan: Duration,
    /// How long refresh tokens live.
    pub refresh_lifespan: Duration,
    /// Also publish an ES256 key (Keycloak's `ecdsa-generated` provider).
    pub es256: bool,
    /// Give every user Keycloak's default roles besides their own.
    pub default_roles: bool,
    /// Scopes that a client may ask for besides `openid profile email`.
    pub optional_scopes: Vec<String>,
    /// Who may log in.
    pub users: Vec<User>,
    /// What may ask for tokens.
    pub clients: Vec<Client>,
}

impl RealmSettings {
    /// A realm of this name with the tutorial's users and clients: alice (Patient), bob (Medic),
    /// the public client `idea`, and `idea-svc` with a secret made now.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            issuer: None,
            token_lifespan: TOKEN_LIFESPAN,
            refresh_lifespan: REFRESH_LIFESPAN,
            es256: false,
            default_roles: true,
            optional_scopes: Vec::new(),
            users: vec![User::alice(), User::bob()],
            clients: vec![Client::public("idea"), Client::confidential("idea-svc")],
        }
    }

    /// The tutorial's realm.
    pub fn idea4rc() -> Self {
        Self::named("IDEA4RC")
    }

    /// A second realm with the same people, whose tokens the tutorial's manifests do not trust.
    pub fn other() -> Self {
        Self::named("OTHER")
    }
}

/// Someone who logs in with a password.
#[derive(Clone)]
pub struct User {
    /// Login name.
    pub username: String,
    /// Password, in the clear: these users exist to be tried out.
    pub password: String,
    /// `given_name`.
    pub first_name: String,
    /// `family_name`.
    pub last_name: String,
    /// `email`.
    pub email: String,
    /// Realm roles.
    pub roles: Vec<String>,
    /// Further claims of the user's access tokens (Keycloak's attribute mappers).
    pub attributes: BTreeMap<String, Value>,
}

impl User {
    /// alice/alice1234!, role Patient, `patient_id` p1.
    pub fn alice() -> Self {
        Self::person("alice", "Alice", "P", "Patient", ("patient_id", "p1"))
    }

    /// bob/bob1234!, role Medic, `patient_list` l1.
    pub fn bob() -> Self {
        Self::person("bob", "Bob", "M", "Medic", ("patient_list", "l1"))
    }

    fn person(name: &str, first: &str, last: &str, role: &str, attribute: (&str, &str)) -> Self {
        Self {
            username: name.to_owned(),
            password: format!("{name}1234!"),
            first_name: first.to_owned(),
            last_name: last.to_owned(),
            email: format!("{name}@example.test"),
            roles: vec![role.to_owned()],
            attributes: BTreeMap::from([(attribute.0.to_owned(), attribute.1.into())]),
        }
    }
}

/// An application that asks for tokens.
#[derive(Clone)]
pub struct Client {
    /// Client ID.
    pub client_id: String,
    /// The secret of a confidential client; `None` for a public one.
    pub secret: Option<String>,
    /// Whether it may use the password grant.
    pub direct_access_grants: bool,
    /// Whether it may use client credentials (confidential clients only).
    pub service_account: bool,
    /// Realm roles of its service account.
    pub service_roles: Vec<String>,
    /// `aud` of its access tokens: a string for one, an array for several, absent for none.
    pub audience: Vec<String>,
    /// How long its access tokens live (Keycloak's client attribute `access.token.lifespan`).
    pub token_lifespan: Option<Duration>,
}

impl Client {
    /// A public client with the password grant and Keycloak's audience mapper set to `fhir`.
    pub fn public(client_id: &str) -> Self {
        Self {
            client_id: client_id.to_owned(),
            secret: None,
            direct_access_grants: true,
            service_account: false,
            service_roles: Vec::new(),
            audience: vec!["fhir".to_owned()],
            token_lifespan: None,
        }
    }

    /// A confidential client with a service account that has no roles, and a secret made now.
    pub fn confidential(client_id: &str) -> Self {
        Self {
            client_id: client_id.to_owned(),
            secret: Some(random_text(SECRET_BYTES)),
            direct_access_grants: false,
            service_account: true,
            service_roles: Vec::new(),
            audience: Vec::new(),
            token_lifespan: None,
        }
    }
}

/// Unguessable text of `bytes` random bytes in base64url.
fn random_text(bytes: usize) -> String {
    let mut raw = vec![0; bytes];
    // A UUID carries 122 random bits from the system's generator; the second source is there for
    // a platform whose generator cannot answer yet.
    if aws_lc_rs::rand::fill(&mut raw).is_err() {
        return uuid::Uuid::new_v4().simple().to_string();
    }
    URL_SAFE_NO_PAD.encode(raw)
}
