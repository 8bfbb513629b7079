//! The way to a destination with the caller's identity: by HBONE, or by mTLS as Istio's sidecars speak it.
//! It is that way or none: what is to be spoken to so is never spoken to in plaintext.

#[cfg(test)]
mod tests;

use std::{fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Uri, header};
use identity::spiffe::peer_of;
use mesh::{Snapshot, Toward, Tunnel, TunnelWay};
use policy::SpiffeId;
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};
use tokio_rustls::TlsStream;
use uuid::Uuid;

use super::{
    inside::{Kernel, prepare},
    pool::{Pool, Reach},
};
use crate::{
    Limits,
    authorize::PermittedOutside,
    capture::PodId,
    hbone::{Between, Ended, From, Lane, Lanes, Lost, Patience, Until},
    refusal::{TunnelFault, UpstreamFault},
    secure::{Connected, Outgoing, Speaking, WorkloadTls},
    wire::{Prefixed, Wire},
};

type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;
type Tls = Box<TlsStream<Prefixed>>;

/// What sidecars say of HTTP/1.1, of HTTP/2, and of bytes (istiod's ALPN filter).
pub(crate) const ALPN_HTTP1: &[&[u8]] = &[b"istio-http/1.1", b"istio", b"http/1.1"];
pub(crate) const ALPN_HTTP2: &[&[u8]] = &[b"istio-h2", b"istio", b"h2"];
pub(crate) const ALPN_BYTES: &[&[u8]] = &[b"istio"];
const ALPN_HBONE: &[&[u8]] = &[b"h2"];

/// Somebody on his way to a destination of the mesh.
#[derive(Debug, Clone)]
pub(crate) struct Departure {
    /// Whose certificate is shown.
    pub(crate) own: Arc<WorkloadTls>,
    pub(crate) origin: Origin,
    pub(crate) tunnel: Tunnel,
    /// The server name by which sidecars are asked.
    pub(crate) sni: Option<Arc<str>>,
    /// The destination is judged anew by each.
    pub(crate) snapshots: Snapshots,
    pub(crate) hints: Hints,
}

/// Where sockets come from.
#[derive(Clone)]
pub(crate) enum Origin {
    /// The proxy's own place: for a gateway, or a listener.
    Proxy,
    /// A captured pod's network namespace.
    Pod(Arc<Kernel>, Arc<PermittedOutside>),
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy => f.write_str("Proxy"),
            Self::Pod(_, permitted) => f.debug_tuple("Pod").field(&permitted.pod().id).finish(),
        }
    }
}

/// What a destination is told beside the tunnel itself: for its log, it proves nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hints {
    /// RFC 7239.
    pub(crate) forwarded: Option<HeaderValue>,
    /// W3C Baggage: the caller's workload.
    pub(crate) baggage: Option<HeaderValue>,
}

/// A way that stands.
pub(crate) struct Reached {
    pub(crate) wire: Wire,
    pub(crate) verified: Verified,
    /// Nothing new begins on it later.
    pub(super) until: Until,
}

/// For as long as a destination is verified.
pub(crate) enum Verified {
    Tunnel(Arc<Ended>),
    Tls(Lost),
}

impl Verified {
    /// Until it is no longer.
    pub(crate) async fn lost(&mut self) -> &'static str {
        match self {
            Self::Tunnel(ended) => ended.wait().await,
            Self::Tls(lost) => lost.await,
        }
    }

    /// Why it is no longer, where a broken tunnel was told first.
    pub(crate) fn why(&self) -> Option<&'static str> {
        match self {
            Self::Tunnel(ended) => ended.why(),
            Self::Tls(_) => None,
        }
    }
}

/// What is kept of ways out, for all callers.
#[derive(Debug)]
pub(crate) struct Outwards {
    lanes: Arc<Lanes<Lane>>,
    pools: Lanes<Pool>,
    limits: Arc<Limits>,
}

impl Outwards {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self { lanes: Arc::new(Lanes::new()), pools: Lanes::new(), limits }
    }

    /// The pool of requests from this caller to this destination.
    pub(super) async fn pool(&self, departure: &Departure) -> Result<Arc<Pool>, UpstreamFault> {
        let own = departure.identity(&self.limits).await?;
        let from = departure.from(departure.tunnel.to);
        Ok(self.pools.lane(from, departure.between(&own), || {
            let reach = Reach::Outward(Box::new(departure.clone()), Arc::clone(&self.lanes));
            Pool::new(departure.tunnel.to, reach, Arc::clone(&self.limits))
        }))
    }

    /// Goes there, for one connection. `alpn` is for sidecars.
    ///
    /// # Errors
    /// [`UpstreamFault`]
    pub(crate) async fn reach(
        &self,
        departure: &Departure,
        alpn: &[&[u8]],
    ) -> Result<Reached, UpstreamFault> {
        reach(departure, &self.lanes, alpn, &self.limits).await
    }

    pub(super) fn forget(&self, pod: PodId) {
        self.lanes.forget(pod);
        self.pools.forget(pod);
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.pools.sweep(|pool| pool.sweep(now));
        self.lanes.sweep(|lane| lane.sweep(now));
    }
}

pub(super) async fn reach(
    departure: &Departure,
    lanes: &Lanes<Lane>,
    alpn: &[&[u8]],
    limits: &Limits,
) -> Result<Reached, UpstreamFault> {
    let own = departure.identity(limits).await?;
    match departure.tunnel.way {
        TunnelWay::Sidecar => {
            let (tls, (lost, until)) =
                departure.secure(Speaking::Sidecar, (alpn, departure.sni.as_deref()), limits).await?;
            Ok(Reached { wire: Wire::Tls(tls), verified: Verified::Tls(lost), until })
        }
        TunnelWay::Hbone(at) => {
            let between = Between { own: &own, expected: departure.tunnel.expected(), sni: None };
            let make = || Lane::new(limits.pending_per_upstream, Patience::of(limits));
            let lane = lanes.lane(departure.from(at), between, make);
            let open = || departure.secure(Speaking::Hbone, (ALPN_HBONE, None), limits);
            let (stream, ended) = lane.tunnel(|| departure.request(), open).await?;
            let until = ended.until();
            Ok(Reached { wire: Wire::Tunnel(Box::new(stream)), verified: Verified::Tunnel(ended), until })
        }
    }
}

impl Departure {
    /// Who calls. A workload's first certificate may be on its way: it is waited for, not for long.
    async fn identity(&self, limits: &Limits) -> Result<SpiffeId, UpstreamFault> {
        if let Some(own) = self.own.identity() {
            return Ok(own);
        }
        let limit = Duration::from_millis(limits.connect_timeout_ms);
        let own = self.own.identity_within(limit).await;
        own.ok_or(TunnelFault::Handshake("no_own_certificate").into())
    }

    fn from(&self, to: SocketAddr) -> From {
        let pod = match &self.origin {
            Origin::Proxy => None,
            Origin::Pod(_, permitted) => Some(permitted.pod().id),
        };
        From { pod, generation: self.own.generation(), way: self.tunnel.way, to }
    }

    fn between<'a>(&'a self, own: &'a SpiffeId) -> Between<'a> {
        Between { own, expected: self.tunnel.expected(), sni: self.sni.as_deref() }
    }

    /// Where it connects to.
    pub(crate) fn at(&self) -> SocketAddr {
        match self.tunnel.way {
            TunnelWay::Hbone(at) => at,
            TunnelWay::Sidecar => self.tunnel.to,
        }
    }

    /// Connects, and shakes hands with the destination that is expected there, and no other.
    async fn secure(
        &self,
        kind: Speaking,
        (alpn, sni): (&[&[u8]], Option<&str>),
        limits: &Limits,
    ) -> Result<(Tls, (Lost, Until)), UpstreamFault> {
        let limit = Duration::from_millis(limits.connect_timeout_ms);
        let socket = timeout(limit, self.connect()).await.map_err(|_| UpstreamFault::ConnectTimeout)?;
        let socket = socket.map_err(|error| {
            tracing::debug!(%error, at = %self.at(), "cannot connect");
            UpstreamFault::ConnectFailed
        })?;
        let outgoing = Outgoing { kind, expected: self.tunnel.expected(), alpn, sni };
        let limit = Duration::from_millis(limits.handshake_timeout_ms);
        let Connected { io, server, .. } =
            self.own.connect(outgoing, socket, limit).await.map_err(|error| {
                tracing::debug!(%error, at = %self.at(), "a destination is not believed");
                TunnelFault::Handshake(error.0)
            })?;
        let leaf = io.get_ref().1.peer_certificates().and_then(|chain| peer_of(chain.first()?).ok());
        let until = Until(leaf.map_or(0, |peer| peer.not_after));
        let (own, moved) = (Arc::clone(&self.own), self.moved());
        let lost = async move {
            tokio::select! {
                why = own.server_lost(&server) => why,
                why = moved => why,
            }
        };
        Ok((io, (Box::pin(lost), until)))
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let at = self.at();
        let socket = match &self.origin {
            Origin::Proxy => TcpStream::connect(at).await?,
            Origin::Pod(kernel, permitted) => {
                let socket = kernel.plumbing.socket(permitted.pod(), permitted.what(), at.is_ipv6()).await?;
                socket.connect(at).await?
            }
        };
        prepare(&SockRef::from(&socket))?;
        Ok(socket)
    }

    /// Until the snapshot says that somebody else is there, or that it is to be reached otherwise.
    fn moved(&self) -> impl Future<Output = &'static str> + Send + use<> {
        let mut snapshots = self.snapshots.clone();
        let (name, expected) = (self.tunnel.workload.name.clone(), self.tunnel.expected().clone());
        let (to, way) = (self.tunnel.to, self.tunnel.way);
        async move {
            loop {
                let stays = snapshots.borrow_and_update().as_ref().is_some_and(|snapshot| {
                    let toward = snapshot.toward(to, snapshot.workload(&name));
                    matches!(&toward, Toward::Tunnel(now) if *now.expected() == expected && now.way == way)
                });
                if !stays {
                    return "destination_changed";
                }
                if snapshots.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        }
    }

    /// CONNECT to the destination (RFC 9113 §8.5), with what ztunnel says beside.
    fn request(&self) -> Option<Request<()>> {
        let uri = Uri::try_from(self.tunnel.to.to_string()).ok()?;
        let mut request = Request::builder().method(http::Method::CONNECT).uri(uri);
        let headers = request.headers_mut()?;
        // W3C Trace Context, version 00: not sampled.
        let (trace, parent) = (Uuid::new_v4().simple(), Uuid::new_v4().as_u64_pair().0);
        let traceparent = HeaderValue::try_from(format!("00-{trace}-{parent:016x}-00")).ok()?;
        headers.insert("traceparent", traceparent);
        if let Some(forwarded) = &self.hints.forwarded {
            headers.insert(header::FORWARDED, forwarded.clone());
        }
        if let Some(baggage) = &self.hints.baggage {
            headers.insert("baggage", baggage.clone());
        }
        request.body(()).ok()
    }
}

impl Hints {
    /// The caller's address, and the Service that it called (ztunnel's `for="…";host=…`).
    pub(crate) fn forwarding(source: SocketAddr, host: Option<&str>) -> Option<HeaderValue> {
        let host = host.filter(|host| host.bytes().all(is_plain));
        let text = match host {
            Some(host) => format!("for=\"{source}\";host={host}"),
            None => format!("for=\"{source}\""),
        };
        HeaderValue::try_from(text).ok()
    }

    /// The caller's workload, in ztunnel's keys. What is no plain name is left out: it could say more
    /// than one thing.
    pub(crate) fn baggage(workload: &observe::record::WorkloadLabels) -> Option<HeaderValue> {
        let pairs = [
            ("k8s.namespace.name", &workload.namespace),
            ("k8s.deployment.name", &workload.workload),
            ("service.name", &workload.canonical_service),
            ("service.version", &workload.canonical_revision),
        ];
        let plain = pairs.iter().filter(|(_, value)| !value.is_empty() && value.bytes().all(is_plain));
        let text: Vec<String> = plain.map(|(key, value)| format!("{key}={value}")).collect();
        HeaderValue::try_from(text.join(",")).ok().filter(|value| !value.is_empty())
    }
}

/// Of the names that Kubernetes gives.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}
