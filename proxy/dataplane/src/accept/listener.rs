//! Listening sockets: bound with their settings, accepted from until the proxy drains.

use std::{io, net::SocketAddr, sync::Arc};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::{Entry, Queue};
use crate::secure::{Speaking, Tls, TlsError, TlsFiles, WorkloadTls};

/// Connections that the kernel keeps for us until we accept them.
const BACKLOG: i32 = 4096;

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
    pub(crate) queue: Queue,
}

/// What connections need to know of their listener. Apart from the socket, which must close before
/// they do.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) entry: Entry,
    pub(crate) tls: Option<Arc<Tls>>,
    /// The mTLS of the workload that the listener stands for, where there are certificates.
    pub(crate) own: Option<Arc<WorkloadTls>>,
    /// How it is spoken here, instead of `tls`; none: not at all.
    pub(crate) speaking: Option<Speaking>,
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
            Ok((socket, local)) => {
                let place = Arc::new(Place { name, entry, tls, own: None, speaking: None, local });
                Ok(Bound { queue: Queue::new(place.name.clone(), socket), place })
            }
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

    /// The same, with the mTLS of the workload that it stands for: to call with, and, where `speaking` says
    /// how, to be called by, as far as PeerAuthentication says so.
    #[must_use]
    pub fn with_mesh(self, own: Arc<WorkloadTls>, speaking: Option<Speaking>) -> Self {
        let Place { name, entry, tls, local, .. } = &*self.place;
        let place = Place {
            name: name.clone(),
            entry: entry.clone(),
            tls: tls.clone(),
            own: Some(own),
            speaking,
            local: *local,
        };
        Self { place: Arc::new(place), ..self }
    }

    /// Its certificate, for status and reloads.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.place.tls.as_ref()
    }
}
