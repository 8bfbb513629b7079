//! A captured pod's connection to somewhere that is not a captured pod, from the pod's own namespace: its
//! bytes as they are, or with the pod's identity to destinations of the mesh.
//!
//! What is to be reached with an identity is never reached without.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use mesh::{Declared, Snapshot, Toward, Tunnel, TunnelWay, mesh_sni};
use observe::Record;
use tokio::{net::TcpStream, sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    arrive::ready,
    detect::{Told, Waits, listen},
    pods::{Held, Pods},
    refuse::reset,
    way::Leaving,
};
use crate::{
    authorize::{self, PermittedOutside},
    forward::{
        self, ALPN_BYTES, ALPN_HTTP1, ALPN_HTTP2, Carried, Counts, Departure, End, Hints, Origin, Reached,
        leave as go,
    },
    record::{self, Recorder},
    refusal::{TunnelFault, UpstreamFault},
    secure::WorkloadTls,
    serve::{Client, Decide, House},
    wire::{Rewound, Socket, Wire},
};

/// What a client of HTTP/2 says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2";

/// Carries a connection that leaves its pod, by whichever way its destination is to be reached.
pub(super) async fn leave<D: Decide>(
    house: &Arc<House<D>>,
    pods: &Pods,
    held: &Arc<Held>,
    (leaving, source): (Leaving, SocketAddr),
    snapshot: &Arc<Snapshot>,
    socket: TcpStream,
) {
    let Leaving { address, toward, service } = leaving;
    let permitted = authorize::pass_outside(&held.pod, address);
    let refused = match toward {
        Toward::Plain => return carry(house, pods, held, permitted, snapshot, socket).await,
        Toward::Tunnel(tunnel) => match identity(house, held, &tunnel) {
            Ok(Some(identity)) => {
                let departure = departure(pods, permitted, identity, tunnel, (service, source), snapshot);
                return Box::pin(with_identity(house, pods, held, departure, snapshot, socket)).await;
            }
            Ok(None) => return carry(house, pods, held, permitted, snapshot, socket).await,
            Err(fault) => fault,
        },
        // No certificates in the whole house: everything is plaintext.
        Toward::Contested if held.tls.is_none() => {
            return carry(house, pods, held, permitted, snapshot, socket).await;
        }
        Toward::Contested => TunnelFault::Contested.into(),
    };
    reset(socket);
    let mut story = record::outside((&held.pod, snapshot), address, &pods.labels);
    record::unreached(&mut story, refused);
    house.recorder.record(*story);
}

type Identity = (Arc<WorkloadTls>, watch::Receiver<Option<Arc<Snapshot>>>);

/// Who has a certificate goes with it. `None`: nobody has one in the whole house.
fn identity<D: Decide>(
    house: &House<D>,
    held: &Held,
    tunnel: &Tunnel,
) -> Result<Option<Identity>, UpstreamFault> {
    let refuse = |why| Err(TunnelFault::Handshake(why).into());
    match (&held.tls, house.engine.mesh()) {
        (Some(own), Some(snapshots)) => Ok(Some((Arc::clone(own), snapshots.clone()))),
        (Some(_), None) => refuse("no_snapshot"),
        (None, _) if tunnel.workload.tunnel.is_some() => refuse("no_own_certificate"),
        (None, _) => Ok(None),
    }
}

fn departure(
    pods: &Pods,
    permitted: PermittedOutside,
    (own, snapshots): Identity,
    tunnel: Tunnel,
    (service, source): (Option<(Arc<str>, u16)>, SocketAddr),
    snapshot: &Arc<Snapshot>,
) -> Departure {
    let host = service.as_ref().map(|(host, _)| &**host);
    let workload = snapshot.workload(&permitted.pod().name);
    let hints = Hints {
        forwarded: Hints::forwarding(source, host),
        baggage: workload.and_then(|own| Hints::baggage(&pods.labels.card(snapshot, own).labels)),
    };
    let sni = service.map(|(host, port)| mesh_sni(&host, port, None).into());
    let origin = Origin::Pod(Arc::clone(&pods.kernel), Arc::new(permitted));
    Departure { own, origin, tunnel, sni, snapshots, hints }
}

/// Carries the connection to its end, or until the destination is verified no longer.
async fn with_identity<D: Decide>(
    house: &Arc<House<D>>,
    pods: &Pods,
    held: &Arc<Held>,
    departure: Departure,
    snapshot: &Arc<Snapshot>,
    socket: TcpStream,
) {
    let began = Instant::now();
    let mut story = record::outside((&held.pod, snapshot), departure.tunnel.to, &pods.labels);
    story.upstream = Some(departure.at());
    let mut client = Wire::Tcp(Rewound::new(Socket::with_urgent(socket), BytesMut::new()));
    ready(&client);
    let mut first = BytesMut::new();
    let cut = held.drain.cut();
    let waits = Waits::new(&house.limits, pods.settings.detect_timeout_ms);
    let alpn = cut.run_until_cancelled(alpn(&departure.tunnel, (&mut client, &mut first), waits)).await;
    let Some(Some(alpn)) = alpn else {
        client.abort();
        story.flags = "DC";
        "downstream_remote_disconnect".clone_into(&mut story.details);
        return tell(house, story, began);
    };
    let reached = match pods.now().is_listener(departure.at()) {
        true => Some(Err(TunnelFault::Loop.into())),
        false => cut.run_until_cancelled(house.forwarder.reach(&departure, alpn)).await,
    };
    match reached.unwrap_or(Err(UpstreamFault::ConnectTimeout)) {
        Ok(reached) => {
            let card = pods.labels.card(snapshot, &departure.tunnel.workload);
            story.destination.workload = Some(Arc::clone(&card.labels));
            story.destination.principal = Some(Arc::clone(&card.principal));
            story.mutual_tls = true;
            let (recorder, counts) = (&*house.recorder, Counts::default());
            record::opened(recorder, &mut story);
            let client = Rewound::new(client, first);
            let carried = through((client, reached), cut, (recorder, &story), &counts).await;
            record::carried(&mut story, carried, &counts);
        }
        Err(fault) => {
            client.abort();
            tracing::debug!(%fault, to = %departure.tunnel.to, "a captured pod's destination is not reached");
            record::unreached(&mut story, fault);
        }
    }
    tell(house, story, began);
}

/// Carries bytes for as long as the destination is verified.
async fn through(
    (client, reached): (Rewound<Wire>, Reached),
    cut: &CancellationToken,
    told: (&dyn Recorder, &Record),
    counts: &Counts,
) -> Carried {
    let Reached { wire, mut verified, .. } = reached;
    let stop = async {
        tokio::select! {
            () = cut.cancelled() => "drain_timeout",
            why = verified.lost() => why,
        }
    };
    let carried = forward::carry(client, wire, counts, record::meanwhile(told, counts, stop)).await;
    // A connection that we ended breaks its tunnels, which may be seen first.
    match verified.why() {
        Some(why) if carried.end != End::Closed => Carried { end: End::Cut(why), ..carried },
        _ => carried,
    }
}

fn tell<D>(house: &House<D>, mut story: Box<Record>, began: Instant) {
    story.duration = began.elapsed();
    house.recorder.record(*story);
}

/// What a sidecar is told of the bytes, since it chooses by that what it does with them: its own protocol
/// detection comes after TLS only where the server speaks first. `None`: the client is gone.
async fn alpn(
    tunnel: &Tunnel,
    (socket, first): (&mut Wire, &mut BytesMut),
    waits: Waits,
) -> Option<&'static [&'static [u8]]> {
    if tunnel.way != TunnelWay::Sidecar {
        return Some(&[]);
    }
    let told = match tunnel.workload.protocols.get(&tunnel.to.port()) {
        Some(Declared::Tcp | Declared::Tls) => return Some(ALPN_BYTES),
        Some(Declared::Http) => listen(socket, first, waits.patiently()).await,
        None => listen(socket, first, waits).await,
    };
    Some(match told.ok()? {
        Told::Http if first.starts_with(PREFACE) => ALPN_HTTP2,
        Told::Http => ALPN_HTTP1,
        _ => ALPN_BYTES,
    })
}

/// Carries the connection to its end, as it is.
pub(super) async fn carry<D: Decide>(
    house: &Arc<House<D>>,
    pods: &Pods,
    held: &Arc<Held>,
    permitted: PermittedOutside,
    snapshot: &Arc<Snapshot>,
    socket: TcpStream,
) {
    let began = Instant::now();
    let address: SocketAddr = permitted.address();
    let mut story = record::outside((&held.pod, snapshot), address, &pods.labels);
    let client = Wire::Tcp(Rewound::new(Socket::with_urgent(socket), BytesMut::new()));
    ready(&client);
    let limit = Duration::from_millis(house.limits.connect_timeout_ms);
    match go(&pods.kernel, &permitted, limit).await {
        Ok(server) => {
            let stop = async {
                held.drain.cut().cancelled().await;
                "drain_timeout"
            };
            let (recorder, counts) = (&*house.recorder, Counts::default());
            record::opened(recorder, &mut story);
            let stop = record::meanwhile((recorder, &story), &counts, stop);
            let carried = forward::carry(client, Socket::with_urgent(server), &counts, stop).await;
            record::carried(&mut story, carried, &counts);
        }
        Err(fault) => {
            client.abort();
            record::unreached(&mut story, fault);
            if fault == UpstreamFault::ConnectTimeout {
                tracing::debug!(%address, "a captured pod's destination does not answer");
            }
        }
    }
    tell(house, story, began);
}
