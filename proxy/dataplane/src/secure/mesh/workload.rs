//! One workload's mTLS: its certificate and the bundles of the moment, followed.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use identity::spiffe::{
    Handle, Peer, PeerError, Role, Supply, TrustBundles, forwarded_client_cert, handshake_reason, peer_of,
};
use policy::{SpiffeId, istio::MtlsMode};
use rustls::{HandshakeKind, ServerConnection};
use rustls_pki_types::CertificateDer;
use tokio::{sync::watch, time::timeout};
use tokio_rustls::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    SecureError, Snapshots, Speaking, Tally, Whose,
    config::{self, Ready},
    now,
};
use crate::{serve::Speaks, wire::Prefixed};

/// See the module. Dropped, it is followed no longer.
#[derive(Debug)]
pub struct WorkloadTls {
    whose: Whose,
    tls12: bool,
    snapshots: Snapshots,
    ready: ArcSwapOption<Ready>,
    /// Goes up whenever `ready` changes.
    pub(super) changed: watch::Sender<u64>,
    generation: AtomicU64,
    /// What numbers them, for all workloads.
    generations: Arc<AtomicU64>,
    pub(super) trust: watch::Receiver<Arc<TrustBundles>>,
    handshakes: Tally,
    calls: Tally,
    /// Its beginning.
    since: Instant,
    /// Connections ended because their peer is verified no longer.
    pub(super) ended: Tally,
    _end: DropGuard,
}

/// How a workload's mTLS stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadTlsStatus {
    /// Whose it is, in words ([`Whose`]).
    pub whose: String,
    /// Its identity, where it has a certificate that holds now.
    pub identity: Option<SpiffeId>,
    /// For how long it has been without a certificate, where it is known and has had none yet.
    pub waits: Option<Duration>,
    /// Handshakes in which we were called, by outcome: `full`, `resumed`, or why one failed.
    pub handshakes: Vec<(&'static str, u64)>,
    /// Handshakes in which we called, likewise.
    pub calls: Vec<(&'static str, u64)>,
    /// Connections ended because their peer was verified no longer, by why.
    pub ended: Vec<(&'static str, u64)>,
}

/// A connection on which we were called and the client is known.
#[derive(Debug)]
pub(crate) struct Handshaken {
    pub(crate) io: Box<TlsStream<Prefixed>>,
    pub(crate) client: Client,
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
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Of the bundles that it was verified by.
    pub(super) version: u64,
}

impl WorkloadTls {
    /// The mTLS of one workload, which follows its identity, its certificate and the bundles until `stop`.
    pub(super) fn start(
        whose: Whose,
        supply: Arc<Supply>,
        snapshots: Snapshots,
        generations: Arc<AtomicU64>,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let end = stop.child_token();
        let tls = Arc::new(Self {
            whose,
            tls12: supply.allows_tls12(),
            snapshots: snapshots.clone(),
            ready: ArcSwapOption::empty(),
            changed: watch::Sender::new(0),
            generation: AtomicU64::new(0),
            generations,
            trust: supply.trust(),
            handshakes: Tally::default(),
            calls: Tally::default(),
            since: Instant::now(),
            ended: Tally::default(),
            _end: end.clone().drop_guard(),
        });
        let following = follow(Arc::downgrade(&tls), supply, snapshots);
        tokio::spawn(end.run_until_cancelled_owned(following));
        tls
    }

    /// Takes what is newest into service.
    fn take(&self, handle: Option<&Arc<Handle>>, bundles: Arc<TrustBundles>) {
        let newest = handle.and_then(|handle| handle.svid().borrow().clone());
        let current = self.ready.load_full();
        let next = match (newest, &current) {
            (None, None) => return,
            (Some(svid), Some(ready)) if ready.is_of(&svid, &bundles) => return,
            (Some(svid), _) => {
                let number = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
                self.generation.store(number, Ordering::Relaxed);
                Ready::new(svid, bundles, self.tls12)
                    .map(Arc::new)
                    .inspect_err(|error| tracing::error!(%error, "mTLS cannot be set up: a bug of ours"))
                    .ok()
            }
            (None, Some(_)) => None,
        };
        self.ready.store(next);
        self.changed.send_modify(|count| *count += 1);
    }

    /// What there is to shake hands with.
    pub(super) fn ready(&self) -> Option<Arc<Ready>> {
        self.ready.load_full()
    }

    /// What there is to shake hands with, or for so long will be: a workload's first certificate may be on
    /// its way.
    pub(super) async fn ready_within(&self, limit: Duration) -> Option<Arc<Ready>> {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            loop {
                changed.mark_unchanged();
                if let Some(ready) = self.ready() {
                    return Some(ready);
                }
                changed.changed().await.ok()?;
            }
        };
        timeout(limit, waiting).await.ok().flatten()
    }

    /// The identity that the certificate in service says, or for so long will say.
    pub(crate) async fn identity_within(&self, limit: Duration) -> Option<SpiffeId> {
        self.ready_within(limit).await.map(|ready| ready.svid().id().clone())
    }

    /// The identity that the certificate in service says.
    pub(crate) fn identity(&self) -> Option<SpiffeId> {
        self.ready.load().as_ref().map(|ready| ready.svid().id().clone())
    }

    /// Whose certificate and which bundles are in service: it goes up when one of them changes, and no two
    /// workloads have the same but 0, which says that none were yet.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// What PeerAuthentication says of a port now; `None`: the workload is not known, or a gateway's.
    pub(crate) fn mode(&self, port: u16) -> Option<MtlsMode> {
        let Whose::Workload(name) = &self.whose else { return None };
        let snapshot = self.snapshots.borrow().clone()?;
        Some(snapshot.workload(name)?.policy.mtls_mode(port))
    }

    /// How it stands now.
    #[must_use]
    pub fn status(&self) -> WorkloadTlsStatus {
        let now = now().as_secs();
        let ready = self.ready.load_full();
        let is_known = || self.snapshots.borrow().as_ref().is_some_and(|s| self.whose.identity(s).is_some());
        let holds = |ready: &Arc<Ready>| {
            u64::try_from(ready.svid().not_after()).is_ok_and(|not_after| not_after >= now)
        };
        WorkloadTlsStatus {
            whose: self.whose.to_string(),
            waits: (ready.is_none() && is_known()).then(|| self.since.elapsed()),
            identity: ready.filter(holds).map(|ready| ready.svid().id().clone()),
            handshakes: self.handshakes.all(),
            calls: self.calls.all(),
            ended: self.ended.all(),
        }
    }

    /// Counts how a handshake went in which we called.
    pub(super) fn count_out(&self, outcome: &'static str) {
        self.calls.count(outcome);
    }

    /// Shakes hands with a client that called: it must show a certificate that is trusted now. Whatever
    /// comes of it is counted. A failed handshake has told the client by an alert; what else is refused is
    /// closed by a reset.
    ///
    /// # Errors
    /// [`SecureError`]
    pub(crate) async fn accept(
        &self,
        kind: Speaking,
        io: Prefixed,
        limit: Duration,
    ) -> Result<Handshaken, SecureError> {
        let outcome = match self.ready_within(limit).await {
            Some(ready) => shake_hands(&ready, kind, io, limit).await,
            None => {
                io.get_ref().abort();
                Err(SecureError("no_own_certificate"))
            }
        };
        self.handshakes.count(outcome.as_ref().map_or_else(|error| error.0, |(_, kind)| kind));
        outcome.map(|(handshaken, _)| handshaken)
    }
}

/// Follows for as long as the workload's mTLS is in use.
async fn follow(tls: Weak<WorkloadTls>, supply: Arc<Supply>, mut snapshots: Snapshots) {
    let mut trust = supply.trust();
    let mut handle: Option<Arc<Handle>> = None;
    loop {
        let mut svid = {
            let Some(tls) = tls.upgrade() else { return };
            let id = snapshots.borrow_and_update().as_ref().and_then(|snapshot| tls.whose.identity(snapshot));
            if handle.as_ref().map(|handle| handle.id()) != id.as_ref() {
                handle = id.as_ref().map(|id| supply.workload(id));
            }
            // Seen before it is taken: what comes in between is a change.
            let mut svid = handle.as_ref().map(|handle| handle.svid());
            if let Some(svid) = &mut svid {
                svid.mark_unchanged();
            }
            tls.take(handle.as_ref(), Arc::clone(&trust.borrow_and_update()));
            svid
        };
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

async fn shake_hands(
    ready: &Ready,
    kind: Speaking,
    io: Prefixed,
    limit: Duration,
) -> Result<(Handshaken, &'static str), SecureError> {
    let mut shaking = ready.acceptor(kind).accept(io);
    let mut io = match timeout(limit, &mut shaking).await {
        Ok(Ok(io)) => io,
        Ok(Err(error)) => return Err(SecureError(handshake_reason(&error))),
        Err(_) => {
            if let Some(io) = shaking.get_ref() {
                io.get_ref().abort();
            }
            return Err(SecureError("handshake_timeout"));
        }
    };
    let (socket, session) = io.get_ref();
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let client = match client(ready, session, resumed) {
        Ok(client) => client,
        Err(error) => {
            socket.get_ref().abort();
            return Err(SecureError(error.name()));
        }
    };
    if kind == Speaking::Hbone && session.alpn_protocol() != Some(b"h2") {
        socket.get_ref().abort();
        return Err(SecureError("no_common_alpn"));
    }
    let sni = session.server_name().map(str::to_owned);
    let speaks = config::speaks(session.alpn_protocol());
    io.get_mut().1.set_buffer_limit(Some(config::OUTGOING));
    let handshaken = Handshaken { io: Box::new(TlsStream::Server(io)), client, sni, speaks };
    Ok((handshaken, if resumed { "resumed" } else { "full" }))
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
