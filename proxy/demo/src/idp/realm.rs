//! One realm: its people, its keys, and its knobs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::{Algorithm, Header};
use serde_json::Value;
use uuid::Uuid;

use super::keys::KeyRing;
use super::settings::{Client, RealmSettings, User};
use crate::Error;
use crate::faults::{Answer, Knobs};

/// Bytes of the secret that signs refresh tokens, which only this provider reads (HS512).
const REFRESH_SECRET_BYTES: usize = 64;

/// The endpoints that have a knob and a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/realms/{realm}`.
    Realm,
    /// `/.well-known/openid-configuration`.
    Discovery,
    /// The token endpoint.
    Token,
    /// The JWKS document, 304 answers included.
    Jwks,
    /// The userinfo endpoint.
    UserInfo,
    /// Key rotation and the other administrative endpoints.
    Admin,
    /// The demo's own endpoints, such as the expired token.
    Demo,
}

/// A realm of a running provider. All methods may be called while it serves.
pub struct Realm {
    name: String,
    issuer: String,
    lifespan: AtomicU64,
    refresh_lifespan: Duration,
    default_roles: bool,
    optional_scopes: Vec<String>,
    users: HashMap<String, User>,
    clients: HashMap<String, Client>,
    keys: RwLock<Arc<KeyRing>>,
    refresh_secret: Vec<u8>,
    not_modified: AtomicU64,
    pub(super) knobs: Knobs<Endpoint>,
}

impl Realm {
    pub(super) async fn create(settings: RealmSettings, frontend: &str) -> Result<Self, Error> {
        let (name, es256) = (settings.name.clone(), settings.es256);
        let keys = generate(move || KeyRing::generate(&name, es256)).await?;
        let mut refresh_secret = vec![0; REFRESH_SECRET_BYTES];
        aws_lc_rs::rand::fill(&mut refresh_secret)
            .map_err(|_| Error::Key("no random bytes for the refresh tokens"))?;
        let default_issuer = || format!("{frontend}/realms/{}", settings.name);
        Ok(Self {
            issuer: settings.issuer.clone().unwrap_or_else(default_issuer),
            name: settings.name,
            lifespan: AtomicU64::new(settings.token_lifespan.as_secs()),
            refresh_lifespan: settings.refresh_lifespan,
            default_roles: settings.default_roles,
            optional_scopes: settings.optional_scopes,
            users: settings.users.into_iter().map(|u| (u.username.clone(), u)).collect(),
            clients: settings.clients.into_iter().map(|c| (c.client_id.clone(), c)).collect(),
            keys: RwLock::new(Arc::new(keys)),
            refresh_secret,
            not_modified: AtomicU64::new(0),
            knobs: Knobs::default(),
        })
    }

    /// Its name, as in its URLs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The secret of a confidential client.
    ///
    /// # Errors
    /// [`Error::Unknown`] when there is no such client or it is public.
    pub fn client_secret(&self, client_id: &str) -> Result<&str, Error> {
        let secret = self.client(client_id)?.secret.as_deref();
        secret.ok_or_else(|| unknown("confidential client", client_id))
    }

    /// How long access tokens issued from now on live, in whole seconds.
    pub fn set_token_lifespan(&self, lifespan: Duration) {
        self.lifespan.store(lifespan.as_secs(), Ordering::Relaxed);
    }

    /// Makes an endpoint wait before it answers; zero ends that.
    pub fn set_delay(&self, endpoint: Endpoint, delay: Duration) {
        self.knobs.set_delay(endpoint, delay);
    }

    /// Makes an endpoint give this answer in place of its own; `None` ends that.
    pub fn set_answer(&self, endpoint: Endpoint, answer: Option<Answer>) {
        self.knobs.set_answer(endpoint, answer);
    }

    /// How many requests reached an endpoint, refused and delayed ones included.
    pub fn requests(&self, endpoint: Endpoint) -> u64 {
        self.knobs.asked(endpoint)
    }

    /// How many JWKS requests were answered 304.
    pub fn not_modified(&self) -> u64 {
        self.not_modified.load(Ordering::Relaxed)
    }

    pub(super) fn count_not_modified(&self) {
        self.not_modified.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes new signing keys and returns the new RS256 key's ID. The old keys stay published
    /// until [`Realm::drop_old_keys`].
    ///
    /// # Errors
    /// [`Error::Key`] when no key could be made; the old ones then stay in use.
    pub async fn rotate_keys(&self) -> Result<String, Error> {
        let (present, name) = (self.keys(), self.name.clone());
        let next = Arc::new(generate(move || present.rotated(&name)).await?);
        let kid = next.kid().to_owned();
        self.replace_keys(next);
        Ok(kid)
    }

    /// Stops publishing every key but the present ones; returns how many went.
    pub fn drop_old_keys(&self) -> usize {
        let (next, dropped) = self.keys().without_old();
        self.replace_keys(Arc::new(next));
        dropped
    }

    /// ID of the present RS256 key.
    pub fn kid(&self) -> String {
        self.keys().kid().to_owned()
    }

    /// The JWKS document as it is published now.
    pub fn jwks(&self) -> bytes::Bytes {
        self.keys().document().0
    }

    /// The header of this realm's tokens: RS256 with the present key's ID, or ES256 on request.
    pub fn header(&self, alg: Algorithm) -> Header {
        let keys = self.keys();
        let kid = if alg == Algorithm::ES256 { keys.es256_kid() } else { Some(keys.kid()) };
        Header { kid: kid.map(str::to_owned), ..Header::new(alg) }
    }

    /// Signs any claims with the present RS256 key, as this realm signs its own tokens.
    ///
    /// # Errors
    /// [`Error::Sign`] when the claims cannot be written as JSON.
    pub fn sign(&self, claims: &Value) -> Result<String, Error> {
        self.sign_with(&self.header(Algorithm::RS256), claims)
    }

    /// Signs any claims under any header: RS and PS algorithms with the present RSA key, ES256
    /// with the present P-256 key. `kid`, `typ`, `crit` and the rest are taken as given.
    ///
    /// # Errors
    /// [`Error::Key`] when the realm has no key for the algorithm, else [`Error::Sign`].
    pub fn sign_with(&self, header: &Header, claims: &Value) -> Result<String, Error> {
        self.keys().sign(header, claims)
    }

    pub(super) fn keys(&self) -> Arc<KeyRing> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace_keys(&self, next: Arc<KeyRing>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    pub(super) fn user(&self, username: &str) -> Result<&User, Error> {
        self.users.get(username).ok_or_else(|| unknown("user", username))
    }

    pub(super) fn user_by_subject(&self, subject: &str) -> Option<&User> {
        self.users.values().find(|user| self.subject(&user.username).to_string() == subject)
    }

    pub(super) fn client(&self, client_id: &str) -> Result<&Client, Error> {
        self.clients.get(client_id).ok_or_else(|| unknown("client", client_id))
    }

    pub(super) fn lifespan(&self, client: &Client) -> u64 {
        let of_realm = || self.lifespan.load(Ordering::Relaxed);
        client.token_lifespan.map_or_else(of_realm, |lifespan| lifespan.as_secs())
    }

    pub(super) fn refresh_lifespan(&self) -> u64 {
        self.refresh_lifespan.as_secs()
    }

    pub(super) fn refresh_secret(&self) -> &[u8] {
        &self.refresh_secret
    }

    pub(super) fn optional_scopes(&self) -> &[String] {
        &self.optional_scopes
    }

    /// A user's roles in the order Keycloak lists them: its own defaults, then the user's.
    pub(super) fn roles(&self, user: &User) -> Vec<String> {
        let mut roles = Vec::with_capacity(user.roles.len() + 3);
        if self.default_roles {
            roles.push(format!("default-roles-{}", self.name.to_ascii_lowercase()));
            roles.extend(["offline_access", "uma_authorization"].map(str::to_owned));
        }
        roles.extend(user.roles.iter().cloned());
        roles
    }

    /// The same person has the same `sub` after a restart, and another one in another realm.
    pub(super) fn subject(&self, username: &str) -> Uuid {
        let hash = digest(&SHA256, format!("{}/{username}", self.name).as_bytes());
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

fn unknown(kind: &'static str, name: &str) -> Error {
    Error::Unknown { kind, name: name.to_owned() }
}

/// Key generation takes tenths of a second of one core: not on the runtime's own threads.
async fn generate(make: impl FnOnce() -> Result<KeyRing, Error> + Send + 'static) -> Result<KeyRing, Error> {
    let made = tokio::task::spawn_blocking(make).await;
    made.map_err(|_| Error::Key("key generation was cancelled"))?
}
