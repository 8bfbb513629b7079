//! Listening sockets: bound with their settings, accepted from until the proxy drains.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::Entry;
use crate::secure::{Tls, TlsError, TlsFiles};

/// Connections that the kernel keeps for us until we accept them.
const BACKLOG: i32 = 4096;
/// Pause after an accept that failed for want of file descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Draining: how long after the last one we still look for a connection in the kernel's queue.
const BACKLOG_GRACE: Duration = Duration::from_millis(20);

/// Classic BPF over the TCP header (filter.rst of the kernel's networking documentation): a segment
/// with SYN and without ACK is dropped, every other passes.
const DROP_SYN: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13), // load the byte with the flags (RFC 9293 §3.1)
    SockFilter::new(0x54, 0, 0, 0x12), // keep SYN and ACK
    SockFilter::new(0x15, 0, 1, 0x02), // SYN alone?
    SockFilter::new(0x06, 0, 0, 0),  // drop
    SockFilter::new(0x06, 0, 0, 0xffff_ffff), // pass
];

/// A listener, as the settings describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name, for logs and status.
    pub name: String,
    /// Where to listen; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// What it stands for.
    pub entry: Entry,
    /// TLS with certificates from files; none: plain.
    pub tls: Option<TlsFiles>,
}

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken, or not ours.
    #[error("listener {name}: cannot listen on {address}: {source}")]
    Bind {
        /// The listener's name.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its certificate or key cannot be used.
    #[error("listener {name}: {source}")]
    Tls {
        /// The listener's name.
        name: String,
        /// Why.
        source: TlsError,
    },
}

/// A listener that has its socket.
#[derive(Debug)]
pub struct Bound {
    pub(crate) place: Arc<Place>,
    socket: TcpListener,
}

/// What connections need to know of their listener. Apart from the socket, which must close before
/// they do.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) entry: Entry,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) local: SocketAddr,
}

impl Listener {
    /// Opens the socket and loads the certificate.
    ///
    /// # Errors
    /// [`ListenError`]
    pub fn bind(self) -> Result<Bound, ListenError> {
        let Self { name, address, entry, tls } = self;
        let tls = match tls.map(Tls::load).transpose() {
            Ok(tls) => tls.map(Arc::new),
            Err(source) => return Err(ListenError::Tls { name, source }),
        };
        let opened = open(address).and_then(|socket| {
            let local = socket.local_addr()?;
            Ok((socket, local))
        });
        match opened {
            Ok((socket, local)) => Ok(Bound { place: Arc::new(Place { name, entry, tls, local }), socket }),
            Err(source) => Err(ListenError::Bind { name, address, source }),
        }
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl Bound {
    /// Where it really listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.place.local
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// Its certificate, for status and reloads.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.place.tls.as_ref()
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok((socket, peer)) => match socket.set_nodelay(true) {
                    Ok(()) => return (socket, peer),
                    Err(error) => tracing::debug!(%error, "connection gone before it was served"),
                },
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(listener = self.place.name, %error, "cannot accept connections");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    /// Draining begins: the kernel takes no more connections for us, silently, so that the queue
    /// empties however many clients come; their SYN is sent again a second later and then refused.
    /// Handshakes under way still end: closing the socket right away would reset them, and with them
    /// requests that were sent in good faith.
    pub(crate) fn refuse_new(&self) {
        if let Err(error) = SockRef::from(&self.socket).attach_filter(&DROP_SYN) {
            tracing::warn!(listener = self.place.name, %error, "new connections cannot be held off");
        }
    }

    /// What is left in the kernel's queue; `None` when it is empty.
    pub(crate) async fn accept_rest(&self) -> Option<(TcpStream, SocketAddr)> {
        let accepted = tokio::time::timeout(BACKLOG_GRACE, self.accept()).await.ok();
        // Once more without waiting: what came in while the timer fired is not to be reset.
        accepted.or_else(|| self.accept().now_or_never())
    }
}

/// Errors of one connection, not of the listener.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
