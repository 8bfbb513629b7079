//! A connection into a captured pod from elsewhere: mTLS of the mesh or not, as PeerAuthentication has it,
//! and then what it says.
//!
//! | mode | TLS | anything else |
//! |---|---|---|
//! | STRICT | the mesh's, whatever it asks for | refused |
//! | PERMISSIVE | the mesh's where it names a protocol of Istio's, else the application's own | plaintext |
//! | DISABLE | the application's own | plaintext |
//!
//! Nothing is opened to the application before the client is known and admitted.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use policy::istio::MtlsMode;
use tokio::{net::TcpStream, time::timeout};

use super::{
    arrive::{Arrived, connection, facts, inside},
    captured::{Captured, Who},
    pods::{Held, Pods},
    refuse::{self, dropped, reset},
    silence::drained,
    speak::{Talk, speak, speak_or_come_back},
};
use crate::{
    accept::{Connection, ConnectionFacts},
    admit::AdmitError,
    forward::Door,
    secure::{HANDSHAKE_RECORD, Handshaken, Speaking, WorkloadTls},
    serve::{Decide, Drain, House},
    wire::{Prefixed, Rewound, Socket, Wire},
};

/// Serves it to its end.
pub(super) async fn enter<D: Decide>(house: Arc<House<D>>, held: &Held, arrived: Arrived, socket: TcpStream) {
    let port = arrived.captured.door.address.port();
    let mode = held.tls.as_ref().and_then(|tls| Some((tls, tls.mode(port)?)));
    match mode {
        Some((tls, MtlsMode::Strict)) => strict(house, tls, arrived, socket).await,
        Some((tls, MtlsMode::Permissive)) => {
            let talk = Talk::new(plain(socket), Arc::clone(&arrived.captured.drain));
            let anonymous = connection(&arrived, None);
            let back = speak_or_come_back(Arc::clone(&house), anonymous, talk).await;
            if let Some(Talk { wire: Wire::Tcp(socket), first, .. }) = back {
                let (socket, mut before) = socket.into_parts();
                before.unsplit(first);
                let socket = Rewound::new(Socket::new(socket.into_tcp()), before);
                mutual(house, tls, arrived, socket).await;
            }
        }
        // A workload that is not known is admitted by nobody.
        Some((_, MtlsMode::Disable)) | None => {
            let talk = Talk::new(plain(socket), Arc::clone(&arrived.captured.drain));
            speak(house, connection(&arrived, None), talk).await;
        }
    }
}

fn plain(socket: TcpStream) -> Wire {
    Wire::Tcp(Rewound::new(Socket::with_urgent(socket), BytesMut::new()))
}

/// A caller that came into the pod through a tunnel, to one of its addresses.
pub(crate) fn tunnelled(
    pods: &Pods,
    held: &Held,
    (called, peer): (SocketAddr, SocketAddr),
    drain: &Arc<Drain>,
) -> Captured {
    let door = Arc::new(Door::new(inside(pods, held, peer), called));
    Captured { door, drain: Arc::clone(drain), who: Who::Outsider }
}

/// TLS of the mesh, or nothing: but for the node's own probes.
async fn strict<D: Decide>(
    house: Arc<House<D>>,
    tls: &Arc<WorkloadTls>,
    arrived: Arrived,
    socket: TcpStream,
) {
    let limit = Duration::from_millis(house.limits.handshake_timeout_ms);
    let mut first = [0; 1];
    let peeked = tokio::select! {
        peeked = timeout(limit, socket.peek(&mut first)) => peeked,
        () = drained(&arrived.captured.drain) => return,
    };
    match peeked {
        Ok(Ok(1..)) if first == [HANDSHAKE_RECORD] => {
            let socket = Rewound::new(Socket::new(socket), BytesMut::new());
            mutual(house, tls, arrived, socket).await;
        }
        Ok(Ok(1..)) if arrived.captured.prober().is_some() => {
            let talk = Talk::new(plain(socket), Arc::clone(&arrived.captured.drain));
            speak(house, connection(&arrived, None), talk).await;
        }
        Ok(Ok(1..)) => {
            reset(socket);
            dropped(&house, &connection(&arrived, None), AdmitError::StrictPlaintext);
        }
        // Opened and closed: kubelet's way to probe a port, and nothing to refuse.
        Ok(Ok(0)) => {}
        // Whoever says nothing is no news.
        Ok(Err(_)) | Err(_) => reset(socket),
    }
}

/// With the client that its certificate names.
async fn mutual<D: Decide>(house: Arc<House<D>>, tls: &Arc<WorkloadTls>, arrived: Arrived, socket: Prefixed) {
    let limit = Duration::from_millis(house.limits.handshake_timeout_ms);
    let drain = Arc::new(Drain::within(&arrived.captured.drain));
    let handshake = tokio::select! {
        handshake = tls.accept(Speaking::Sidecar, socket, limit) => handshake,
        () = arrived.captured.drain.cut().cancelled() => return,
    };
    let Handshaken { io, client, sni, speaks } = match handshake {
        Ok(handshaken) => handshaken,
        Err(error) => return refuse::unsecured(&house, &connection(&arrived, None), error.0),
    };
    let Arrived { captured, peer } = &arrived;
    let captured =
        Captured { door: Arc::clone(&captured.door), drain: Arc::clone(&drain), who: Who::Outsider };
    let facts = ConnectionFacts {
        identity: Some(client.peer.id.clone()),
        mutual_tls: true,
        tls: true,
        sni,
        ..facts(&captured, *peer)
    };
    let connection = Connection::new(facts)
        .with_client_certificate(Some(client.header.clone()))
        .inside(Arc::new(captured));
    let talk = Talk::new(Wire::Tls(io), Arc::clone(&drain)).agreed(speaks);
    let serving = Box::pin(speak(house, connection, talk));
    tls.while_verified(&client, &drain, serving).await;
}
