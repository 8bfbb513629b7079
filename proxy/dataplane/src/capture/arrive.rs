//! A captured connection arrives: who calls, whom, and which way it goes.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::BytesMut;
use mesh::{Probe, Snapshot};
use tokio::net::TcpStream;

use super::{
    HostTraffic,
    captured::{Captured, HostConnection, Prober, Who},
    enter::enter,
    outside,
    pods::{Held, Pods},
    refuse::{self, Unserved},
    speak::{Talk, pass_host, speak},
    way::{Way, way},
};
use crate::{
    accept::{Connection, ConnectionFacts, Entry},
    authorize,
    forward::{Door, Inside, prepare},
    hbone::{self, Entrance, To},
    serve::{Decide, Drain, House, newest},
    wire::{Rewound, Socket, Wire},
};

/// Which way a connection goes at its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

/// Takes a connection from a pod's listener.
pub(super) fn take<D: Decide>(
    house: &Arc<House<D>>,
    pods: &Arc<Pods>,
    held: &Arc<Held>,
    direction: Direction,
    (socket, peer): (TcpStream, SocketAddr),
) {
    let Some(of_pod) = held.connections.enter(house.limits.connections_per_pod) else {
        return refuse::refuse(house, socket, peer, Unserved::TooManyOfPod);
    };
    let Some(permit) = house.gauges.connection(&house.limits) else {
        return refuse::refuse(house, socket, peer, Unserved::TooMany);
    };
    let (house, pods, held) = (Arc::clone(house), Arc::clone(pods), Arc::clone(held));
    house.tasks.clone().spawn(async move {
        match direction {
            Direction::In => inbound(house, &pods, &held, socket, canonical(peer)).await,
            Direction::Out => outbound(house, &pods, &held, socket, peer).await,
        }
        drop((permit, of_pod));
    });
}

async fn inbound<D: Decide>(
    house: Arc<House<D>>,
    pods: &Pods,
    held: &Arc<Held>,
    socket: TcpStream,
    peer: SocketAddr,
) {
    let called = pods.kernel.plumbing.called(&held.pod, &socket).map(canonical);
    // Our listener is on the pod's loopback, where its own processes find it; and what listens there
    // for the pod alone stays the pod's.
    let Some(called) = called.ok().filter(|called| held.pod.addresses.contains(&called.ip())) else {
        return refuse::refuse(&house, socket, peer, Unserved::NotThePods);
    };
    // The mesh's own port: no application is reached there.
    if called.port() == hbone::PORT {
        let Some(tls) = held.tls.clone() else {
            return refuse::refuse(&house, socket, peer, Unserved::NoTunnels);
        };
        let entrance = Entrance { tls, to: To::Pod(Arc::clone(held)), called, peer };
        return hbone::enter(house, entrance, socket).await;
    }
    let door = Arc::new(Door::new(inside(pods, held, peer), called));
    let is_host = pods.now().is_node(peer.ip());
    let who = match pods.settings.host {
        HostTraffic::All if is_host => {
            let host = HostConnection(called);
            return pass_host(&house, (door, &held.drain), &host, socket, peer).await;
        }
        HostTraffic::Probes if is_host => {
            let snapshot = newest(&*house.engine);
            let probes = probes(held, snapshot.as_deref(), called.port());
            Prober::new(probes).map_or(Who::Outsider, Who::Prober)
        }
        _ => Who::Outsider,
    };
    let captured = Arc::new(Captured { door, drain: Arc::clone(&held.drain), who });
    enter(house, held, Arrived { captured, peer }, socket).await;
}

/// The pod's inside, for a caller from elsewhere.
pub(super) fn inside(pods: &Pods, held: &Held, peer: SocketAddr) -> Inside {
    Inside {
        kernel: Arc::clone(&pods.kernel),
        pod: Arc::clone(&held.pod),
        from: None,
        client: Some(peer.ip()),
    }
}

/// The declared probes of a port: the settings', and those of the workload's containers.
fn probes(held: &Held, snapshot: Option<&Snapshot>, port: u16) -> Vec<Probe> {
    let workload = snapshot.and_then(|snapshot| snapshot.workload(&held.pod.name));
    let declared = workload.map(|workload| workload.probes.as_slice()).unwrap_or_default();
    held.pod.probes.iter().chain(declared).filter(|probe| probe.port == port).cloned().collect()
}

async fn outbound<D: Decide>(
    house: Arc<House<D>>,
    pods: &Pods,
    held: &Arc<Held>,
    socket: TcpStream,
    peer: SocketAddr,
) {
    let Some(called) = pods.kernel.plumbing.original(&held.pod, &socket, peer).map(canonical) else {
        return refuse::refuse(&house, socket, peer, Unserved::UnknownOrigin);
    };
    let Some(snapshot) = newest(&*house.engine) else {
        return refuse::refuse(&house, socket, peer, Unserved::NoSnapshot);
    };
    let table = pods.now();
    if table.is_listener(called) {
        return refuse::refuse(&house, socket, peer, Unserved::Loop);
    }
    let way = way(held, &table, &snapshot, called, pods.kernel.dice.throw());
    let is_own = |ip: IpAddr| table.is_of(ip, &held.pod.name, &snapshot);
    let source = source(held, called, peer, is_own);
    drop(table);
    match way {
        Way::Inside(_, address) if address.port() == hbone::PORT => {
            refuse::refuse(&house, socket, peer, Unserved::Loop);
        }
        Way::Inside(to, address) => {
            let inside = Inside {
                kernel: Arc::clone(&pods.kernel),
                pod: Arc::clone(&to.pod),
                from: Some(held.pod.id),
                client: Some(source.ip()),
            };
            let door = Arc::new(Door::new(inside, address));
            let identity = snapshot.workload(&held.pod.name).map(|workload| workload.identity.clone());
            let who = Who::Pod(held.pod.name.clone());
            let drain = Arc::new(Drain::within(&to.drain));
            let captured = Arc::new(Captured { door, drain: Arc::clone(&drain), who });
            let connection = connection(&Arrived { captured, peer: source }, identity);
            drop(snapshot);
            let wire = Wire::Tcp(Rewound::new(Socket::with_urgent(socket), BytesMut::new()));
            let talk = Talk::new(wire, Arc::clone(&drain));
            tokio::select! {
                () = speak(house, connection, talk) => {}
                never = follow(&held.drain, &drain) => match never {},
            }
        }
        Way::Own => {
            let permitted = authorize::pass_own(&held.pod, called);
            outside::carry(&house, pods, held, permitted, &snapshot, socket).await;
        }
        Way::Outside(leaving) => {
            outside::leave(&house, pods, held, (leaving, source), &snapshot, socket).await
        }
        Way::Nobody => refuse::refuse(&house, socket, peer, Unserved::NoEndpoint),
    }
}

/// A connection between two pods drains with the destination, and with the caller.
async fn follow(caller: &Drain, connection: &Drain) -> Infallible {
    caller.begun().cancelled().await;
    connection.begin();
    caller.cut().cancelled().await;
    connection.cut().cancel();
    std::future::pending().await
}

/// The calling pod's address as the destination would see it; the socket's own is of the way to us. Of
/// those in its namespace, which it may be able to change, only what may be its own; without any it is
/// nobody's address, and never the loopback's, which applications trust as themselves.
fn source(held: &Held, called: SocketAddr, peer: SocketAddr, is_own: impl Fn(IpAddr) -> bool) -> SocketAddr {
    let own = || held.pod.addresses.iter().copied().filter(|ip| is_own(*ip));
    let asked = own().find(|ip| *ip == peer.ip().to_canonical());
    let same_family = || own().find(|ip| ip.is_ipv4() == called.is_ipv4());
    let ip = asked.or_else(same_family).or_else(|| own().next());
    SocketAddr::new(ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), peer.port())
}

/// A captured connection that goes into a pod.
pub(super) struct Arrived {
    pub(super) captured: Arc<Captured>,
    pub(super) peer: SocketAddr,
}

/// The connection with the caller's identity by the kernel's word, which is as good as a certificate's:
/// nothing crosses a wire.
pub(super) fn connection(arrived: &Arrived, identity: Option<policy::SpiffeId>) -> Connection {
    let mutual_tls = identity.is_some();
    let facts = ConnectionFacts { identity, mutual_tls, ..facts(&arrived.captured, arrived.peer) };
    Connection::new(facts).inside(Arc::clone(&arrived.captured))
}

/// What is known of a caller that nobody has vouched for.
pub(super) fn facts(captured: &Captured, peer: SocketAddr) -> ConnectionFacts {
    let called = captured.door.address;
    let name = captured.door.inside.pod.name.clone();
    ConnectionFacts {
        peer,
        local: called,
        identity: None,
        mutual_tls: false,
        tls: false,
        sni: None,
        entry: Entry::Workload { name, port: called.port() },
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(IpAddr::to_canonical(&address.ip()), address.port())
}

/// Readies a client's socket for raw bytes.
pub(super) fn ready(wire: &Wire) {
    let Some(socket) = wire.socket() else { return };
    if let Err(error) = prepare(&socket2::SockRef::from(socket)) {
        tracing::debug!(%error, "a connection's options cannot be set");
    }
}
