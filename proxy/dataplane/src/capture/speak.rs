//! A connection to a workload: admitted, its protocol found, then served as HTTP or carried as bytes.
//!
//! Whoever may not send raw bytes is served as HTTP in every doubt: what an application could read as
//! a request never gets past rules about requests by looking like something else for long enough.

use std::{future::pending, sync::Arc};

use bytes::BytesMut;
use tokio::{net::TcpStream, time::Instant};

use super::{
    arrive::ready,
    captured::HostConnection,
    detect::Told,
    refuse::{self, dropped},
    tell::{Over, tell},
};
use crate::{
    accept::{Connection, Entry},
    authorize::{self, PermittedTcp},
    engine::Refused,
    forward::{Counts, Door, carry},
    record,
    serve::{Client, Decide, Drain, House, Speaks, Start, newest, serve},
    wire::{Rewound, Socket, Wire},
};

/// A client's connection so far.
pub(crate) struct Talk {
    pub(crate) wire: Wire,
    /// Read from it already.
    pub(crate) first: BytesMut,
    /// The protocol agreed on before; without one it is told from the first bytes.
    agreed: Option<Speaks>,
    /// What it drains with.
    pub(super) drain: Arc<Drain>,
    /// The application, where it was connected to already; it has been told nothing.
    pub(super) server: Option<TcpStream>,
}

impl Talk {
    pub(crate) fn new(wire: Wire, drain: Arc<Drain>) -> Self {
        Self { wire, first: BytesMut::new(), agreed: None, drain, server: None }
    }

    /// The same, in this protocol.
    pub(crate) fn agreed(self, agreed: Option<Speaks>) -> Self {
        Self { agreed, ..self }
    }

    /// The same, with the application connected to, and told nothing yet.
    pub(crate) fn with_server(self, server: Option<TcpStream>) -> Self {
        Self { server, ..self }
    }
}

/// Whether TLS of the mesh may still begin on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mesh {
    MayBegin,
    Never,
}

/// Serves a connection to a workload to its end.
pub(crate) async fn speak<D: Decide>(house: Arc<House<D>>, connection: Connection, talk: Talk) {
    // Nothing comes back where TLS of the mesh does not begin.
    converse(house, connection, talk, Mesh::Never).await;
}

/// The same where TLS of the mesh may begin: then the connection comes back, with the whole ClientHello read
/// and nothing answered.
pub(super) async fn speak_or_come_back<D: Decide>(
    house: Arc<House<D>>,
    connection: Connection,
    talk: Talk,
) -> Option<Talk> {
    converse(house, connection, talk, Mesh::MayBegin).await
}

async fn converse<D: Decide>(
    house: Arc<House<D>>,
    connection: Connection,
    mut talk: Talk,
    mesh: Mesh,
) -> Option<Talk> {
    let prober = connection.captured.as_ref().and_then(|captured| captured.prober());
    // Of the node's requests some pass whatever PeerAuthentication says; each is judged by itself.
    if prober.is_none()
        && let Err(error) = house.engine.admit(&connection)
    {
        talk.wire.abort();
        dropped(&house, &connection, error);
        return None;
    }
    let told = match talk.agreed {
        Some(_) => Ok(Told::Http),
        None => tell(&house, &connection, &mut talk, mesh).await,
    };
    let connection = match told {
        Ok(Told::Tls(asked)) if mesh == Mesh::MayBegin && asked.of_mesh => return Some(talk),
        Ok(Told::Http) => {
            Box::pin(as_http(house, connection, talk)).await;
            return None;
        }
        // Within the mesh's own TLS the server name is that one's.
        Ok(Told::Tls(asked)) if !matches!(talk.wire, Wire::Tls(_)) => {
            Connection { sni: asked.sni, ..connection }
        }
        Ok(_) => connection,
        Err(Over::Closed) => return None,
        Err(Over::Reset(why)) => {
            talk.wire.abort();
            if let Some(why) = why {
                refuse::unsecured(&house, &connection, why);
            }
            return None;
        }
    };
    match house.engine.decide_tcp(&connection) {
        Ok(permitted) => raw_bytes(&house, &connection, permitted, talk).await,
        Err(refused) => {
            talk.wire.abort();
            let Refused { story, .. } = *refused;
            tracing::debug!(reason = %story.details, "connection refused");
            house.recorder.record(*story);
        }
    }
    None
}

async fn as_http<D: Decide>(house: Arc<House<D>>, connection: Connection, talk: Talk) {
    let Talk { wire, first, agreed, drain, .. } = talk;
    match wire {
        // The socket itself, which costs one system call less each time it is read.
        Wire::Tcp(socket) => {
            let (socket, mut before) = socket.into_parts();
            before.unsplit(first);
            let start = Start { agreed, first: before, drain };
            serve(house, connection, socket.into_tcp(), start).await;
        }
        wire @ (Wire::Tls(_) | Wire::Tunnel(_)) => {
            serve(house, connection, wire, Start { agreed, first, drain }).await;
        }
    }
}

/// The host's own traffic, where all of it passes.
pub(super) async fn pass_host<D: Decide>(
    house: &Arc<House<D>>,
    (door, drain): (Arc<Door>, &Arc<Drain>),
    host: &HostConnection,
    socket: TcpStream,
    peer: std::net::SocketAddr,
) {
    let permitted = authorize::pass_host(host, record::from_host(peer, host.address()));
    let talk =
        Talk::new(Wire::Tcp(Rewound::new(Socket::with_urgent(socket), BytesMut::new())), Arc::clone(drain));
    let stop = cut(drain);
    through(house, Some(&door), permitted, talk, stop).await;
}

/// Carries permitted bytes for as long as policy permits them.
async fn raw_bytes<D: Decide>(
    house: &Arc<House<D>>,
    connection: &Connection,
    permitted: PermittedTcp,
    talk: Talk,
) {
    let drain = Arc::clone(&talk.drain);
    let stop = async {
        tokio::select! {
            why = cut(&drain) => why,
            why = forbidden(&*house.engine, connection) => why,
        }
    };
    let door = door(house, connection, &permitted);
    through(house, door.as_deref(), permitted, talk, stop).await;
}

/// The way into the pod, where the workload's is captured here.
pub(crate) fn door<D: Decide>(
    house: &House<D>,
    connection: &Connection,
    permitted: &PermittedTcp,
) -> Option<Arc<Door>> {
    if let Some(captured) = &connection.captured {
        return Some(Arc::clone(&captured.door));
    }
    let Entry::Workload { name, .. } = &connection.entry else { return None };
    let snapshot = newest(&*house.engine)?;
    house.pods.get()?.door(snapshot.workload(name)?, permitted.upstream())
}

async fn through<D>(
    house: &Arc<House<D>>,
    door: Option<&Door>,
    permitted: PermittedTcp,
    talk: Talk,
    stop: impl Future<Output = &'static str>,
) {
    let began = Instant::now();
    let Talk { wire, first, server, .. } = talk;
    ready(&wire);
    let server = match server {
        Some(server) => Ok(server),
        None => house.forwarder.connect(&permitted, door).await,
    };
    let mut story = permitted.story;
    match server {
        Ok(server) => {
            let (recorder, counts) = (&*house.recorder, Counts::default());
            record::opened(recorder, &mut story);
            let stop = record::meanwhile((recorder, &story), &counts, stop);
            let client = Rewound::new(wire, first);
            let carried = carry(client, Socket::with_urgent(server), &counts, stop).await;
            record::carried(&mut story, carried, &counts);
        }
        Err(fault) => {
            wire.abort();
            record::unreached(&mut story, fault);
        }
    }
    story.duration = began.elapsed();
    house.recorder.record(*story);
}

async fn cut(drain: &Drain) -> &'static str {
    drain.cut().cancelled().await;
    drain.why().unwrap_or("drain_timeout")
}

/// Ends when a newer snapshot no longer permits the connection: unlike a request, it has no next one
/// that could be judged.
async fn forbidden<D: Decide>(engine: &D, connection: &Connection) -> &'static str {
    let Some(mesh) = engine.mesh() else { return pending().await };
    let mut mesh = mesh.clone();
    mesh.mark_changed();
    loop {
        if mesh.changed().await.is_err() {
            return pending().await;
        }
        mesh.mark_unchanged();
        if engine.decide_tcp(connection).is_err() {
            return "policy_changed";
        }
    }
}
