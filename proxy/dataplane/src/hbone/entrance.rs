//! Where HBONE comes in: a captured pod's port 15008, or a listener for a workload. A client without a
//! certificate does not, whatever PeerAuthentication says.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use observe::{
    Record,
    record::{Party, Protocol},
};
use policy::WorkloadName;
use tokio::{net::TcpStream, time::timeout};

use super::{connect::Bad, server};
use crate::{
    accept::{Connection, ConnectionFacts, Entry},
    capture::{Held, tunnelled},
    secure::{self, HANDSHAKE_RECORD, SecureError, Speaking, WorkloadTls},
    serve::{Decide, Drain, House, newest},
    wire::{Rewound, Socket},
};

/// Where every workload of the mesh takes tunnels.
pub(crate) const PORT: u16 = 15008;
/// The other ports of the mesh's own inside a pod: ours, and where sidecars and ztunnel take plaintext.
const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;

/// Who was called, and by whom.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) tls: Arc<WorkloadTls>,
    pub(crate) to: To,
    /// The address called: the pod's at [`PORT`], or the listener's.
    pub(crate) called: SocketAddr,
    pub(crate) peer: SocketAddr,
}

/// Where its tunnels lead.
#[derive(Debug)]
pub(crate) enum To {
    /// Into a captured pod, to any port that its application has.
    Pod(Arc<Held>),
    /// To one port of a workload.
    Workload { name: WorkloadName, port: u16 },
}

/// Takes a connection and serves its tunnels, to its end.
pub(crate) async fn enter<D: Decide>(house: Arc<House<D>>, entrance: Entrance, socket: TcpStream) {
    let limit = Duration::from_millis(house.limits.handshake_timeout_ms);
    let shaken = match first_byte(&socket, limit).await {
        Ok(()) => {
            let socket = Rewound::new(Socket::new(socket), BytesMut::new());
            entrance.tls.accept(Speaking::Hbone, socket, limit).await
        }
        Err(reason) => {
            // The caller is told nothing, not even that it is heard.
            let _ = socket.set_zero_linger();
            Err(SecureError(reason))
        }
    };
    match shaken {
        Ok(secure::Handshaken { io, client, .. }) => server::serve(house, entrance, io, client).await,
        Err(error) => refused(&house, &entrance, error.0),
    }
}

/// TLS begins with it; it is left in the socket.
async fn first_byte(socket: &TcpStream, limit: Duration) -> Result<(), &'static str> {
    let mut first = [0_u8; 1];
    match timeout(limit, socket.peek(&mut first)).await {
        Ok(Ok(0)) => Err("closed"),
        Ok(Ok(_)) if first[0] == HANDSHAKE_RECORD => Ok(()),
        Ok(Ok(_)) => Err("hbone_plaintext"),
        Ok(Err(_)) => Err("broken"),
        Err(_) => Err("silent"),
    }
}

/// Clients that open connections and say nothing are no news.
fn refused<D>(house: &House<D>, entrance: &Entrance, reason: &'static str) {
    if matches!(reason, "closed" | "silent" | "broken") {
        return;
    }
    tracing::debug!(peer = %entrance.peer, reason, "HBONE connection refused");
    house.recorder.record(Record {
        source: Party { address: Some(entrance.peer), ..Party::default() },
        destination: Party { address: Some(entrance.called), ..Party::default() },
        protocol: Protocol::Tcp,
        flags: "-",
        details: reason.to_owned(),
        refused: Some(reason),
        token: "none",
        ..Record::default()
    });
}

impl Entrance {
    /// What its connections drain with.
    pub(super) fn drain<D>(&self, house: &House<D>) -> Arc<Drain> {
        match &self.to {
            To::Pod(held) => Arc::clone(&held.drain),
            To::Workload { .. } => Arc::clone(&house.drain),
        }
    }

    /// Whether a tunnel may lead to an address at all.
    pub(super) fn check<D: Decide>(&self, house: &House<D>, address: SocketAddr) -> Result<(), Bad> {
        if matches!(address.port(), PORT | OUTBOUND_PORT | INBOUND_PORT) {
            return Err(Bad::OwnPort);
        }
        match &self.to {
            // The address that was called, and no other of the pod's: as ztunnel has it.
            To::Pod(_) if address.ip() != self.called.ip() => Err(Bad::NotTheWorkloads),
            To::Pod(_) => {
                let is_ours = house.pods.get().is_none_or(|pods| pods.now().is_listener(address));
                if is_ours { Err(Bad::OwnPort) } else { Ok(()) }
            }
            To::Workload { name, port } => {
                let snapshot = newest(&*house.engine);
                let workload = snapshot.as_ref().and_then(|snapshot| snapshot.workload(name));
                let is_its = address.ip() == self.called.ip()
                    || workload.is_some_and(|workload| workload.ip == address.ip());
                if is_its && address.port() == *port { Ok(()) } else { Err(Bad::NotTheWorkloads) }
            }
        }
    }

    /// The connection that a tunnel is to the workload: the client's identity, verified, and the
    /// application's own bytes.
    pub(super) fn connection<D>(
        &self,
        house: &House<D>,
        client: &secure::Client,
        (address, drain): (SocketAddr, &Arc<Drain>),
    ) -> Option<Connection> {
        let (name, port) = match &self.to {
            To::Pod(held) => (held.pod.name.clone(), address.port()),
            To::Workload { name, port } => (name.clone(), *port),
        };
        let facts = ConnectionFacts {
            peer: self.peer,
            local: address,
            identity: Some(client.peer.id.clone()),
            mutual_tls: true,
            // The tunnel's, not the application's: that one's client spoke without.
            tls: false,
            sni: None,
            entry: Entry::Workload { name, port },
        };
        let connection = Connection::new(facts)
            .with_client_certificate(Some(client.header.clone()))
            .of(Some(Arc::clone(&self.tls)));
        match &self.to {
            To::Pod(held) => {
                let captured = tunnelled(house.pods.get()?, held, (address, self.peer), drain);
                Some(connection.inside(Arc::new(captured)))
            }
            To::Workload { .. } => Some(connection),
        }
    }
}
