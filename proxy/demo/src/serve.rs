//! The listening half that both servers share: HTTP/1.1 and HTTP/2 (by preface or ALPN) on one
//! loopback port, with or without TLS, ended gracefully or at once.

use std::net::SocketAddr;
use std::os::unix::process::parent_id;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;

/// Connections held at once; more wait in the system's backlog.
const MAX_CONNECTIONS: usize = 2048;
/// HTTP/2 streams at once on one connection.
const MAX_STREAMS: u32 = 1024;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an HTTP/1.1 connection may sit between or within request heads.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests in flight may take to finish when the server is stopped.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// The pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running listener. Dropping it ends it at once.
pub(crate) struct Server {
    addr: SocketAddr,
    drain: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Serves `router` on the listener until stopped.
    pub(crate) fn spawn(
        listener: TcpListener,
        router: Router,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> std::io::Result<Self> {
        let server = Self {
            addr: listener.local_addr()?,
            drain: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let accept = Accept {
            router,
            tls: tls.map(TlsAcceptor::from),
            drain: server.drain.clone(),
            kill: server.kill.clone(),
            tasks: server.tasks.clone(),
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        };
        server.tasks.spawn(accept.run(listener));
        Ok(server)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting, lets requests in flight finish for at most [`DRAIN_LIMIT`], then cuts.
    pub(crate) async fn stop(self) {
        self.drain.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_LIMIT, self.tasks.wait()).await.is_err() {
            self.kill.cancel();
            self.tasks.wait().await;
        }
    }

    /// Cuts every connection at once, as `kill -9` would.
    pub(crate) async fn kill(self) {
        self.kill.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

/// Listens on a loopback address, or on any in a network namespace of its own, which leads nowhere
/// but to the demo's other pods; port 0 takes a free one.
pub(crate) async fn bind(addr: SocketAddr) -> Result<TcpListener, Error> {
    if !addr.ip().is_loopback() && !in_own_namespace() {
        return Err(Error::NotLoopback { addr });
    }
    TcpListener::bind(addr).await.map_err(|source| Error::Listen { addr, source })
}

/// Whether this process is in another network namespace than the one that started it, as the processes
/// of the demo's pods are; not where that cannot be told.
fn in_own_namespace() -> bool {
    let namespace = |process: String| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let (own, parent) = (namespace("self".to_owned()), namespace(parent_id().to_string()));
    matches!((own, parent), (Some(own), Some(parent)) if own != parent)
}

/// TLS with this leaf, offering HTTP/2 and HTTP/1.1, asking for no client certificate.
pub(crate) fn tls_config(leaf: &certs::Leaf) -> Result<Arc<rustls::ServerConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.certificate_der().clone()], leaf.key_der())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[derive(Clone)]
struct Accept {
    router: Router,
    tls: Option<TlsAcceptor>,
    drain: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
    room: Arc<Semaphore>,
}

impl Accept {
    async fn run(self, listener: TcpListener) {
        loop {
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = self.drain.cancelled() => return,
                () = self.kill.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let this = self.clone();
            self.tasks.spawn(async move {
                let kill = this.kill.clone();
                tokio::select! {
                    () = kill.cancelled() => {}
                    () = this.connection(stream) => {}
                }
                drop(permit);
            });
        }
    }

    async fn connection(&self, stream: TcpStream) {
        // Without it small answers wait for the peer's delayed acknowledgement; a socket that
        // refuses the option still works.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.http(stream).await };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.http(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        }
    }

    async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
        let service = TowerToHyperService::new(self.router.clone());
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.drain.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        }
    }
}
