//! TLS at the listener: certificates from files, replaced when the files change.
//!
//! A new pair that cannot be used keeps the old one in service, and is told: in the log and by
//! [`Tls::status`]. TLS 1.2 and 1.3; ALPN `h2` and `http/1.1`; no client certificates. mTLS between
//! workloads is [`WorkloadTls`].

mod files;
mod mesh;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::serve::Speaks;

pub use files::{TlsError, TlsFiles};
pub use mesh::{Certificates, Speaking, Whose, WorkloadTls, WorkloadTlsStatus};
pub(crate) use mesh::{
    Client, Connected, HANDSHAKE_RECORD, Handshaken, Outgoing, SecureError, mesh_connection,
};

use files::Loaded;

/// How often the files are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// TLS of one listener.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    acceptor: Acceptor,
    current: Arc<Current>,
    state: Mutex<State>,
}

struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

/// What was read last, whether or not it could be used.
#[derive(Debug)]
struct State {
    seen: files::Fingerprint,
    reloads: u64,
    problem: Option<String>,
}

/// How a listener's certificate stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsStatus {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// How often the pair was replaced.
    pub reloads: u64,
    /// Why the files' present content is not in use.
    pub problem: Option<String>,
}

/// The pair in service.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// A connection after its handshake.
pub(crate) struct Secured {
    pub(crate) io: TlsStream<TcpStream>,
    pub(crate) sni: Option<String>,
    pub(crate) speaks: Speaks,
}

impl Tls {
    /// Loads a certificate chain and its key (PEM).
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let Loaded { key, fingerprint } = files.load()?;
        let current = Arc::new(Current(ArcSwap::new(key)));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&current) as _;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Provider)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = Acceptor(TlsAcceptor::from(Arc::new(config)));
        let state = Mutex::new(State { seen: fingerprint, reloads: 0, problem: None });
        Ok(Self { files, acceptor, current, state })
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> TlsStatus {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        TlsStatus {
            certificate: self.files.certificate.clone(),
            reloads: state.reloads,
            problem: state.problem.clone(),
        }
    }

    /// Looks at the files and takes their pair into service if it changed and can be used.
    /// Blocks on the file system.
    pub(crate) fn look(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fingerprint = match self.files.fingerprint() {
            Ok(fingerprint) if fingerprint == state.seen => return,
            Ok(fingerprint) => fingerprint,
            Err(error) => return self.keep_old(&mut state, &error),
        };
        match self.files.load() {
            Ok(Loaded { key, fingerprint }) => {
                self.current.0.store(key);
                state.seen = fingerprint;
                state.reloads += 1;
                state.problem = None;
                let file = self.files.certificate.display();
                tracing::info!(certificate = %file, "certificate reloaded");
            }
            Err(error) => {
                state.seen = fingerprint;
                self.keep_old(&mut state, &error);
            }
        }
    }

    fn keep_old(&self, state: &mut State, error: &TlsError) {
        let problem = error.to_string();
        if state.problem.as_ref() != Some(&problem) {
            tracing::warn!(%error, "the certificate's files cannot be used; the old pair stays");
            state.problem = Some(problem);
        }
    }

    /// Shakes hands. `None`: it failed, or took too long.
    pub(crate) async fn accept(&self, socket: TcpStream, limit: Duration) -> Option<Secured> {
        let io = match tokio::time::timeout(limit, self.acceptor.0.accept(socket)).await {
            Ok(Ok(io)) => io,
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                return None;
            }
            Err(_) => {
                tracing::debug!("TLS handshake took too long");
                return None;
            }
        };
        let session = io.get_ref().1;
        let sni = session.server_name().map(str::to_owned);
        let speaks = match session.alpn_protocol() {
            Some(b"h2") => Speaks::Http2,
            _ => Speaks::Http1,
        };
        Some(Secured { io, sni, speaks })
    }
}
