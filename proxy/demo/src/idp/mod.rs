//! An identity provider with Keycloak 26's URL shapes, claims and error bodies.
//!
//! What it serves, for each realm `R`:
//! | path | what |
//! |---|---|
//! | `GET /realms/R` | name and public key |
//! | `GET /realms/R/.well-known/openid-configuration` | discovery (OpenID Connect Discovery 1.0, 3) |
//! | `POST /realms/R/protocol/openid-connect/token` | password, refresh_token, client_credentials |
//! | `GET /realms/R/protocol/openid-connect/certs` | JWKS (RFC 7517), with an ETag |
//! | `GET,POST /realms/R/protocol/openid-connect/userinfo` | OpenID Connect Core 1.0, 5.3 |
//! | `POST /admin/realms/R/rotate-keys`, `.../drop-old-keys` | ours: key rotation on demand |
//! | `GET /realms/R/fhirward-demo/expired-token` | ours: a token of Alice's that ended two hours ago |
//! | `GET /realms/R/fhirward-demo/service-secret` | ours: the secret of `idea-svc`, made at the start |
//!
//! The issuer in tokens and in discovery is a setting, so that the provider can claim to be
//! `https://keycloak.example/realms/R` while it listens on loopback. The endpoints in discovery
//! follow the address by which they were asked, as Keycloak's `hostname-backchannel-dynamic` does.

mod claims;
mod discovery;
mod grants;
mod keys;
mod realm;
mod routes;
mod settings;
mod userinfo;

#[cfg(test)]
mod tests;

pub use jsonwebtoken::{Algorithm, Header};
pub use realm::{Endpoint, Realm};
pub use settings::{Client, RealmSettings, Settings, User};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::Error;
use crate::serve::{self, Server};

/// A running identity provider. Dropping it ends it at once.
pub struct Idp {
    realms: Arc<Realms>,
    http: Option<SocketAddr>,
    https: Option<SocketAddr>,
    tls: Option<Tls>,
    servers: Mutex<Vec<Server>>,
}

type Realms = BTreeMap<String, Arc<Realm>>;

struct Tls {
    ca_pem: String,
    config: Arc<rustls::ServerConfig>,
}

/// Starts the provider: generates the keys of every realm and listens.
///
/// # Errors
/// [`Error::Settings`], [`Error::NotLoopback`], [`Error::Listen`], or a failure to make keys or
/// certificates.
pub async fn start(settings: Settings) -> Result<Idp, Error> {
    settings.check()?;
    let tls = settings.https.map(|_| Tls::mint(&settings.certificate_names)).transpose()?;
    let http = listen(settings.http).await?;
    let https = listen(settings.https).await?;
    let mut idp = Idp {
        realms: Arc::default(),
        http: address(&http)?,
        https: address(&https)?,
        tls,
        servers: Mutex::default(),
    };
    let frontend = settings.frontend_url.unwrap_or_else(|| idp.base_url());
    let mut realms = Realms::new();
    for realm in settings.realms {
        let realm = Realm::create(realm, &frontend).await?;
        realms.insert(realm.name().to_owned(), Arc::new(realm));
    }
    idp.realms = Arc::new(realms);
    idp.serve(http, https).await?;
    Ok(idp)
}

impl Tls {
    fn mint(names: &[String]) -> Result<Self, Error> {
        let authority = certs::Authority::mint("Fhirward demo identity provider CA")?;
        let mut request = certs::LeafRequest::for_names(names);
        request.purpose = certs::Purpose::Server;
        let config = serve::tls_config(&authority.issue(&request)?)?;
        Ok(Self { ca_pem: authority.certificate_pem(), config })
    }
}

impl Idp {
    /// Where it listens without TLS.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Where it listens with TLS.
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.https
    }

    /// Its own address as a URL without a final slash: `https://127.0.0.1:PORT` where it has TLS,
    /// else `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> String {
        match (self.https, self.http) {
            (Some(addr), _) => format!("https://{addr}"),
            (None, Some(addr)) => format!("http://{addr}"),
            (None, None) => String::new(),
        }
    }

    /// The CA that signed its TLS certificate, as PEM; `None` without TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.tls.as_ref().map(|tls| tls.ca_pem.as_str())
    }

    /// One realm, to read its tokens' claims, sign with its keys, or make it misbehave.
    ///
    /// # Errors
    /// [`Error::Unknown`] when there is no such realm.
    pub fn realm(&self, name: &str) -> Result<&Realm, Error> {
        let unknown = || Error::Unknown { kind: "realm", name: name.to_owned() };
        self.realms.get(name).map(Arc::as_ref).ok_or_else(unknown)
    }

    /// Stops listening; requests in flight finish. Keys stay, so [`Idp::resume`] can follow.
    pub async fn stop(&self) {
        for server in self.servers.lock().await.drain(..) {
            server.stop().await;
        }
    }

    /// Cuts every connection and stops listening at once, as `kill -9` would. Keys stay.
    pub async fn kill(&self) {
        for server in self.servers.lock().await.drain(..) {
            server.kill().await;
        }
    }

    /// Listens again at the same addresses, with the same keys.
    ///
    /// # Errors
    /// [`Error::Listen`] when an address was taken meanwhile.
    pub async fn resume(&self) -> Result<(), Error> {
        let http = listen(self.http).await?;
        let https = listen(self.https).await?;
        self.serve(http, https).await
    }

    async fn serve(
        &self,
        http: Option<tokio::net::TcpListener>,
        https: Option<tokio::net::TcpListener>,
    ) -> Result<(), Error> {
        let mut servers = self.servers.lock().await;
        let plain = http.map(|listener| (listener, "http", None));
        let tls = self.tls.as_ref().map(|tls| Arc::clone(&tls.config));
        let secure = https.map(|listener| (listener, "https", tls));
        for (listener, scheme, tls) in plain.into_iter().chain(secure) {
            let addr = listener.local_addr().map_err(|source| unplaced(self.http, source))?;
            let router = routes::router(Arc::clone(&self.realms), scheme, addr);
            let server =
                Server::spawn(listener, router, tls).map_err(|source| Error::Listen { addr, source })?;
            servers.push(server);
        }
        Ok(())
    }
}

async fn listen(addr: Option<SocketAddr>) -> Result<Option<tokio::net::TcpListener>, Error> {
    match addr {
        Some(addr) => serve::bind(addr).await.map(Some),
        None => Ok(None),
    }
}

fn address(listener: &Option<tokio::net::TcpListener>) -> Result<Option<SocketAddr>, Error> {
    let local = listener.as_ref().map(tokio::net::TcpListener::local_addr);
    local.transpose().map_err(|source| unplaced(None, source))
}

fn unplaced(addr: Option<SocketAddr>, source: std::io::Error) -> Error {
    Error::Listen { addr: addr.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))), source }
}
