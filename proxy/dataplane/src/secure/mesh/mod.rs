//! mTLS of the mesh at a workload's port: with the workload's own certificate, for clients that prove
//! who they are (Istio's sidecars speak it so; PeerAuthentication says whether plaintext is taken too).
//!
//! TLS and plaintext share a port: one peek at the first byte tells them apart. `0x16` begins every
//! ClientHello (RFC 8446 §5.1) and is TLS however slowly the rest comes; nothing else is.
//!
//! A session is resumed only under the certificate and the bundles that it began with (the store of
//! sessions goes with them), and the client's chain is then verified once more: a client certificate
//! that has expired meanwhile ends the connection. There is no early data.
//!
//! A connection ends when its client is verified no longer: at its certificate's end, or when the bundles
//! change and do not vouch for it any more.

mod config;
mod lost;
mod serve;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use identity::spiffe::{
    Handle, Peer, PeerError, Role, Supply, TrustBundles, forwarded_client_cert, handshake_reason, peer_of,
};
use mesh::Snapshot;
use policy::{SpiffeId, WorkloadName, istio::MtlsMode};
use rustls::{HandshakeKind, ServerConnection};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::serve::Speaks;

pub(crate) use serve::mesh_connection;

use config::Ready;

/// First byte of a TLS record that holds a handshake message (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 0x16;
/// Draining: a connection that was accepted and has said nothing yet may still bring its request.
const DRAIN_FIRST_GRACE: Duration = Duration::from_secs(1);

type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// mTLS at one port of one workload.
#[derive(Debug)]
pub struct MeshTls {
    workload: WorkloadName,
    port: u16,
    tls12: bool,
    snapshots: OnceLock<Snapshots>,
    ready: ArcSwapOption<Ready>,
    trust: watch::Receiver<Arc<TrustBundles>>,
    handshakes: Tally,
    /// Connections ended because their client is verified no longer.
    ended: Tally,
}

/// Counts by outcome.
#[derive(Debug, Default)]
struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    fn count(&self, outcome: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(outcome).or_default() += 1;
    }

    fn all(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(outcome, count)| (*outcome, *count)).collect()
    }
}

/// How mTLS at a port stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshTlsStatus {
    /// The workload.
    pub workload: WorkloadName,
    /// Its identity, where it has a certificate that holds now.
    pub identity: Option<SpiffeId>,
    /// Whether the workload is known and has had no certificate yet.
    pub waits: bool,
    /// Handshakes so far, by outcome: `full`, `resumed`, or why one failed.
    pub handshakes: Vec<(&'static str, u64)>,
    /// Connections ended because their client was verified no longer, by why.
    pub ended: Vec<(&'static str, u64)>,
}

/// A connection whose bytes are the application's.
#[derive(Debug)]
pub(crate) struct MeshSecured {
    pub(crate) io: Io,
    /// The verified client; `None` in plaintext.
    pub(crate) client: Option<Client>,
    pub(crate) sni: Option<String>,
    /// By ALPN; `None` where that does not say.
    pub(crate) speaks: Option<Speaks>,
}

/// A client that was verified.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) peer: Peer,
    /// `x-forwarded-client-cert`.
    pub(crate) header: HeaderValue,
    /// Its certificates, to be verified again when trust changes.
    chain: Vec<CertificateDer<'static>>,
    /// Of the bundles that it was verified by.
    version: u64,
}

/// The socket, with or without TLS.
#[derive(Debug)]
pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Limits on what a client may take its time with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience<'a> {
    /// Until the first byte.
    pub(crate) first: Duration,
    /// For the handshake.
    pub(crate) handshake: Duration,
    /// Draining has begun: who has said nothing yet has little time left.
    pub(crate) drain: &'a CancellationToken,
}

/// Why a connection is refused before it says anything to the application. It gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SecureError(pub(crate) &'static str);

impl MeshTls {
    /// mTLS at this port; nothing is taken before [`MeshTls::start`].
    #[must_use]
    pub fn new(workload: WorkloadName, port: u16, supply: &Supply) -> Self {
        Self {
            workload,
            port,
            tls12: supply.allows_tls12(),
            snapshots: OnceLock::new(),
            ready: ArcSwapOption::empty(),
            trust: supply.trust(),
            handshakes: Tally::default(),
            ended: Tally::default(),
        }
    }

    /// Follows the workload's identity, its certificate and the bundles, until told to stop. Needs a
    /// running tokio runtime.
    pub fn start(self: &Arc<Self>, supply: Arc<Supply>, snapshots: Snapshots, stop: CancellationToken) {
        if self.snapshots.set(snapshots.clone()).is_err() {
            return;
        }
        let mesh = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = mesh.follow(&supply, snapshots) => {}
            }
        });
    }

    async fn follow(&self, supply: &Supply, mut snapshots: Snapshots) {
        let mut trust = supply.trust();
        let mut handle: Option<Arc<Handle>> = None;
        loop {
            let id = snapshots.borrow_and_update().as_ref().and_then(|snapshot| self.identity(snapshot));
            if handle.as_ref().map(|handle| handle.id()) != id.as_ref() {
                handle = id.as_ref().map(|id| supply.workload(id));
            }
            let mut svid = handle.as_ref().map(|handle| handle.svid());
            let newest = svid.as_mut().and_then(|svid| svid.borrow_and_update().clone());
            let bundles = Arc::clone(&trust.borrow_and_update());
            let current = self.ready.load_full();
            self.ready.store(match (newest, current) {
                (Some(svid), Some(ready)) if ready.is_of(&svid, &bundles) => Some(ready),
                (Some(svid), _) => Ready::new(svid, bundles, self.tls12)
                    .map(Arc::new)
                    .inspect_err(|error| tracing::error!(%error, "mTLS cannot be set up: a bug of ours"))
                    .ok(),
                (None, _) => None,
            });
            let renewed = async {
                match &mut svid {
                    Some(svid) => svid.changed().await,
                    None => std::future::pending().await,
                }
            };
            let changed = tokio::select! {
                changed = snapshots.changed() => changed,
                changed = trust.changed() => changed,
                changed = renewed => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn identity(&self, snapshot: &Snapshot) -> Option<SpiffeId> {
        snapshot.workload(&self.workload).map(|workload| workload.identity.clone())
    }

    /// How it stands now.
    #[must_use]
    pub fn status(&self) -> MeshTlsStatus {
        let now = now().as_secs();
        let ready = self.ready.load_full();
        let waits = ready.is_none() && self.mode().is_some();
        let holds = |ready: &Arc<Ready>| {
            u64::try_from(ready.svid().not_after()).is_ok_and(|not_after| not_after >= now)
        };
        MeshTlsStatus {
            workload: self.workload.clone(),
            identity: ready.filter(holds).map(|ready| ready.svid().id().clone()),
            waits,
            handshakes: self.handshakes.all(),
            ended: self.ended.all(),
        }
    }

    /// What PeerAuthentication says of the port now; `None`: the workload is not known.
    fn mode(&self) -> Option<MtlsMode> {
        let snapshot = self.snapshots.get()?.borrow().clone()?;
        Some(snapshot.workload(&self.workload)?.policy.mtls_mode(self.port))
    }

    /// Tells TLS from plaintext, and shakes hands where it is TLS. What is refused is closed by a reset.
    ///
    /// # Errors
    /// [`SecureError`] with a stable name.
    pub(crate) async fn secure(
        &self,
        socket: TcpStream,
        patience: Patience<'_>,
    ) -> Result<MeshSecured, SecureError> {
        let Some(mode) = self.mode() else { return Err(reset(&socket, "no_snapshot")) };
        if mode == MtlsMode::Disable {
            return Ok(MeshSecured::plain(socket));
        }
        let first = first_byte(&socket, patience).await.map_err(|reason| reset(&socket, reason))?;
        if first != HANDSHAKE_RECORD {
            return match mode {
                MtlsMode::Strict => Err(reset(&socket, "strict_plaintext")),
                _ => Ok(MeshSecured::plain(socket)),
            };
        }
        let Some(ready) = self.ready.load_full() else {
            self.handshakes.count("no_own_certificate");
            return Err(reset(&socket, "no_own_certificate"));
        };
        match shake_hands(&ready, socket, patience.handshake).await {
            Ok((secured, outcome)) => {
                self.handshakes.count(outcome);
                Ok(secured)
            }
            Err(error) => {
                self.handshakes.count(error.0);
                Err(error)
            }
        }
    }
}

impl MeshSecured {
    fn plain(socket: TcpStream) -> Self {
        Self { io: Io::Plain(socket), client: None, sni: None, speaks: None }
    }
}

/// The caller is told nothing, not even that it is heard.
fn reset(socket: &TcpStream, reason: &'static str) -> SecureError {
    let _ = socket.set_zero_linger();
    SecureError(reason)
}

/// Waits for the first byte and leaves it in the socket.
async fn first_byte(socket: &TcpStream, patience: Patience<'_>) -> Result<u8, &'static str> {
    let mut first = [0_u8; 1];
    let hurried = async {
        patience.drain.cancelled().await;
        tokio::time::sleep(DRAIN_FIRST_GRACE).await;
    };
    let peeked = tokio::select! {
        peeked = timeout(patience.first, socket.peek(&mut first)) => peeked.map_err(|_| "silent")?,
        () = hurried => return Err("silent"),
    };
    match peeked {
        Ok(0) => Err("closed"),
        Ok(_) => Ok(first[0]),
        Err(_) => Err("broken"),
    }
}

async fn shake_hands(
    ready: &Ready,
    socket: TcpStream,
    limit: Duration,
) -> Result<(MeshSecured, &'static str), SecureError> {
    let io = match timeout(limit, ready.acceptor().accept(socket)).await {
        Ok(Ok(io)) => io,
        Ok(Err(error)) => return Err(SecureError(handshake_reason(&error))),
        Err(_) => return Err(SecureError("handshake_timeout")),
    };
    let (socket, session) = io.get_ref();
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let client = match client(ready, session, resumed) {
        Ok(client) => client,
        Err(error) => return Err(reset(socket, error.name())),
    };
    let sni = session.server_name().map(str::to_owned);
    let speaks = config::speaks(session.alpn_protocol());
    let secured = MeshSecured { io: Io::Tls(Box::new(io)), client: Some(client), sni, speaks };
    Ok((secured, if resumed { "resumed" } else { "full" }))
}

/// Who the client is. A resumed session brings the chain of its first handshake: verified as of now.
fn client(ready: &Ready, session: &ServerConnection, resumed: bool) -> Result<Client, PeerError> {
    let chain = session.peer_certificates().unwrap_or_default();
    let (leaf, issuers) = chain.split_first().ok_or(PeerError::NoCertificate)?;
    let peer =
        if resumed { ready.bundles().verify(leaf, issuers, Role::Client, now())? } else { peer_of(leaf)? };
    let header = forwarded_client_cert(ready.svid().id(), leaf, &peer)?;
    let header = HeaderValue::try_from(header).map_err(|_| PeerError::Malformed)?;
    Ok(Client { peer, header, chain: chain.to_vec(), version: ready.bundles().version() })
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixTime::since_unix_epoch(since)
}
