//! The proxy as a whole: accepts on its listeners, serves, and drains.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::BytesMut;
use observe::Record;
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Capture, Engine, Limits,
    accept::{Bound, Connection, ConnectionFacts, Entry, Place},
    capture::{Pods, manage},
    forward::Forwarder,
    hbone,
    record::{self, Recorder},
    secure::{self, Speaking, WorkloadTls},
    serve::{Decide, Gauges, House, Pace, Start, serve},
};

/// After the cut: how long tasks may take to notice.
const CUT_GRACE: Duration = Duration::from_secs(1);
/// How often idle upstream connections are looked after.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// All listeners, one engine.
pub struct Proxy<D = Engine>(pub(crate) Arc<House<D>>);

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections open when it began.
    pub connections: usize,
    /// Connections, streams and tunnels cut at its end. 0: every request ended by itself.
    pub cut: usize,
    /// How long it took.
    pub took: Duration,
}

impl<D: Decide> Proxy<D> {
    /// A proxy that decides by `engine` and tells `recorder`.
    #[must_use]
    pub fn new(engine: Arc<D>, recorder: Arc<dyn Recorder>, limits: Arc<Limits>) -> Self {
        Self(Arc::new(House {
            engine,
            recorder,
            forwarder: Forwarder::new(Arc::clone(&limits)),
            gauges: Gauges::new(&limits),
            pace: Pace::new(&limits),
            limits,
            drain: Arc::default(),
            pods: OnceLock::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Serves until `stop`, then drains: no new connections, those in the kernel's queue included in
    /// what is served; every request under way ends by itself within the limits' `drainTimeoutMs`,
    /// after which the rest is cut.
    ///
    /// With `capture`, the pods that its changes name are served beside the listeners.
    pub async fn run(
        self,
        listeners: Vec<Bound>,
        capture: Option<Capture>,
        stop: CancellationToken,
    ) -> DrainReport {
        let house = self.0;
        let housekeeping = keep_house(Arc::clone(&house), &listeners);
        house.forwarder.set_own(listeners.iter().map(Bound::local_addr).collect());
        let accepting = TaskTracker::new();
        for listener in listeners {
            accepting.spawn(accept(Arc::clone(&house), listener, stop.clone()));
        }
        if let Some(Capture { plumbing, changes, settings, certificates }) = capture {
            let pods = Arc::new(Pods::new(plumbing, settings, certificates));
            let pods = Arc::clone(house.pods.get_or_init(|| pods));
            let (house, tasks) = (Arc::clone(&house), accepting.clone());
            accepting.spawn(manage(house, pods, changes, tasks, stop.clone()));
        }
        accepting.close();
        let served = async {
            stop.cancelled().await;
            let began = tokio::time::Instant::now();
            let connections = house.gauges.connections();
            tracing::info!(connections, "draining");
            house.drain.begin();
            accepting.wait().await;
            let cut = drain(&house).await;
            DrainReport { connections, cut, took: began.elapsed() }
        };
        tokio::select! {
            report = served => report,
            never = housekeeping => match never {},
        }
    }
}

/// Waits for what is under way; gives how much had to be cut.
async fn drain<D>(house: &House<D>) -> usize {
    house.tasks.close();
    let limit = Duration::from_millis(house.limits.drain_timeout_ms);
    if tokio::time::timeout(limit, house.tasks.wait()).await.is_ok() {
        return 0;
    }
    let cut = house.tasks.len();
    tracing::warn!(cut, "the drain took too long; what is left is cut");
    house.drain.cut().cancel();
    let _ = tokio::time::timeout(CUT_GRACE, house.tasks.wait()).await;
    cut
}

/// Certificates and idle upstream connections, each second.
fn keep_house<D: Decide>(
    house: Arc<House<D>>,
    listeners: &[Bound],
) -> impl Future<Output = Infallible> + use<D> {
    let tls: Vec<_> = listeners.iter().filter_map(|listener| listener.tls().cloned()).collect();
    let certificates = async move {
        loop {
            tokio::time::sleep(secure::LOOK_EVERY).await;
            let tls = tls.clone();
            let look = move || tls.iter().for_each(|tls| tls.look());
            let _ = tokio::task::spawn_blocking(look).await;
        }
    };
    let upstreams = async move {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            house.forwarder.sweep();
        }
    };
    async move {
        tokio::select! {
            never = certificates => never,
            never = upstreams => never,
        }
    }
}

async fn accept<D: Decide>(house: Arc<House<D>>, listener: Bound, stop: CancellationToken) {
    let Bound { place, queue } = listener;
    queue.serve(&stop, |socket, peer| take(&house, &place, (socket, peer))).await;
}

fn take<D: Decide>(house: &Arc<House<D>>, place: &Arc<Place>, (socket, peer): (TcpStream, SocketAddr)) {
    let Some(permit) = house.gauges.connection(&house.limits) else {
        refuse_connection(house, place, peer);
        return;
    };
    let (house, place) = (Arc::clone(house), Arc::clone(place));
    house.tasks.clone().spawn(async move {
        connection(house, &place, socket, peer).await;
        drop(permit);
    });
}

/// A connection: secured, admitted, served.
async fn connection<D: Decide>(house: Arc<House<D>>, place: &Place, socket: TcpStream, peer: SocketAddr) {
    let local = socket.local_addr().unwrap_or(place.local);
    let mut facts = ConnectionFacts {
        peer,
        local,
        identity: None,
        mutual_tls: false,
        tls: place.tls.is_some(),
        sni: None,
        entry: place.entry.clone(),
    };
    if let (Some(own), Some(speaking)) = (&place.own, place.speaking) {
        return meshed(house, (own, speaking), socket, facts).await;
    }
    let drain = Arc::clone(&house.drain);
    let own = place.own.clone();
    let Some(tls) = &place.tls else {
        if let Some(connection) = admit(&house, facts) {
            let start = Start { agreed: None, first: BytesMut::new(), drain };
            serve(house, connection.of(own), socket, start).await;
        }
        return;
    };
    let limit = Duration::from_millis(house.limits.handshake_timeout_ms);
    let Some(secured) = tls.accept(socket, limit).await else { return };
    facts.sni = secured.sni;
    if let Some(connection) = admit(&house, facts) {
        let start = Start { agreed: Some(secured.speaks), first: BytesMut::new(), drain };
        serve(house, connection.of(own), secured.io, start).await;
    }
}

/// A connection at an entry that speaks mTLS of the mesh.
async fn meshed<D: Decide>(
    house: Arc<House<D>>,
    (own, speaking): (&Arc<WorkloadTls>, Speaking),
    socket: TcpStream,
    facts: ConnectionFacts,
) {
    match (speaking, &facts.entry) {
        (Speaking::Sidecar, Entry::Workload { port, .. }) => {
            let port = *port;
            secure::mesh_connection(house, (own, port), socket, facts).await;
        }
        (Speaking::Hbone, Entry::Workload { name, port }) => {
            let to = hbone::To::Workload { name: name.clone(), port: *port };
            let (called, peer) = (facts.local, facts.peer);
            let entrance = hbone::Entrance { tls: Arc::clone(own), to, called, peer };
            hbone::enter(house, entrance, socket).await;
        }
        // Nobody else is called so.
        (Speaking::Sidecar | Speaking::Hbone, _) => {
            let _ = socket.set_zero_linger();
        }
    }
}

pub(crate) fn admit<D: Decide>(house: &House<D>, facts: ConnectionFacts) -> Option<Connection> {
    let connection = Connection::new(facts);
    match house.engine.admit(&connection) {
        Ok(()) => Some(connection),
        Err(error) => {
            tracing::debug!(%error, "connection dropped");
            let refusal = crate::Refusal::Dropped(error);
            let mut story = record::begin(&connection, http::Version::HTTP_11);
            record::refused(&mut story, &refusal);
            house.recorder.record(*story);
            None
        }
    }
}

/// Too many connections: this one is closed at once, and told.
fn refuse_connection<D>(house: &House<D>, place: &Place, peer: SocketAddr) {
    let record = Record {
        source: observe::record::Party { address: Some(peer), ..Default::default() },
        flags: "UO",
        details: "connections".to_owned(),
        refused: Some("connections"),
        token: "none",
        http_version: "",
        ..Default::default()
    };
    tracing::debug!(listener = place.name, "too many connections");
    house.recorder.record(record);
}
