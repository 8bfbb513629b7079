//! A connection into a captured pod: admitted, its protocol found, then served as HTTP or carried as
//! bytes.
//!
//! Whoever may not send raw bytes is served as HTTP in every doubt: what an application could read as
//! a request never gets past rules about requests by looking like something else for long enough.

use std::{future::pending, sync::Arc, time::Duration};

use bytes::BytesMut;
use mesh::Declared;
use tokio::{net::TcpStream, time::Instant};

use super::{
    arrive::ready,
    captured::{Captured, HostConnection},
    detect::{Told, Waits, listen},
    pods::Pods,
    refuse::reset,
    silence::{Spoke, await_word},
};
use crate::{
    accept::Connection,
    admit::AdmitError,
    authorize::{self, PermittedTcp},
    engine::Refused,
    forward::{Door, carry},
    record,
    serve::{Decide, Drain, House, Start, newest, serve},
    wire::{Rewound, Socket},
};

/// Serves a connection to its end.
pub(super) async fn speak<D: Decide>(
    house: Arc<House<D>>,
    pods: &Pods,
    connection: Connection,
    socket: TcpStream,
) {
    let Some(captured) = connection.captured.clone() else { return reset(socket) };
    // Of the node's requests some pass whatever PeerAuthentication says; each is judged by itself.
    if captured.prober().is_none()
        && let Err(error) = house.engine.admit(&connection)
    {
        return refuse_connection(&house, &connection, error, socket);
    }
    let waits = Waits::new(&house.limits, pods.settings.detect_timeout_ms);
    let mut talk = Talk { socket, first: BytesMut::new(), server: None };
    let told = match declared(&*house.engine, &connection) {
        Some(Declared::Http) => Ok(Told::Http),
        Some(Declared::Tcp) => Ok(Told::Bytes),
        Some(Declared::Tls) => listen(&talk.socket, &mut talk.first, Waits::for_tls(&house.limits)).await,
        None => listen(&talk.socket, &mut talk.first, waits).await,
    };
    let told = match told {
        Ok(Told::Silence { ended }) => {
            let Some(told) = silence(&house, &connection, &mut talk, waits, ended).await else {
                return;
            };
            told
        }
        Ok(told) => told,
        Err(_) => return reset(talk.socket),
    };
    let connection = match told {
        Told::Http => {
            let start = Start { agreed: None, first: talk.first, drain: Arc::clone(&captured.drain) };
            return serve(house, connection, talk.socket, start).await;
        }
        Told::Tls(sni) => Connection { sni, ..connection },
        Told::Bytes | Told::Silence { .. } => connection,
    };
    match house.engine.decide_tcp(&connection) {
        Ok(permitted) => raw_bytes(&house, &captured, &connection, permitted, talk).await,
        Err(refused) => {
            reset(talk.socket);
            let Refused { story, .. } = *refused;
            tracing::debug!(reason = %story.details, "captured connection refused");
            house.recorder.record(*story);
        }
    }
}

/// A client's connection so far.
struct Talk {
    socket: TcpStream,
    /// Read from it already.
    first: BytesMut,
    /// The application, where it was connected to already; it has been told nothing.
    server: Option<TcpStream>,
}

/// The client said nothing yet. `None`: the connection has ended.
async fn silence<D: Decide>(
    house: &Arc<House<D>>,
    connection: &Connection,
    talk: &mut Talk,
    waits: Waits,
    ended: bool,
) -> Option<Told> {
    match house.engine.decide_tcp(connection) {
        // Opened and closed: kubelet's way to probe a port, and nothing to refuse.
        Err(_) if ended => return None,
        Err(_) => return Some(Told::Http),
        Ok(_) if ended => return Some(Told::Bytes),
        // It may take long: a client that is gone is to be noticed meanwhile.
        Ok(_) => ready(&talk.socket),
    }
    let (spoke, server) = await_word(house, connection, (&talk.socket, &mut talk.first), waits).await;
    match spoke {
        Spoke::Client(told) => {
            talk.server = server.filter(|_| told != Told::Http);
            Some(told)
        }
        Spoke::Server => {
            talk.server = server;
            Some(Told::Bytes)
        }
        Spoke::Neither => None,
        Spoke::Unreached(fault) => {
            let _ = talk.socket.set_zero_linger();
            let mut story = house.engine.decide_tcp(connection).ok()?.story;
            record::unreached(&mut story, fault);
            house.recorder.record(*story);
            None
        }
    }
}

fn declared<D: Decide>(engine: &D, connection: &Connection) -> Option<Declared> {
    let captured = connection.captured.as_ref()?;
    let snapshot = newest(engine)?;
    let workload = snapshot.workload(&captured.door.inside.pod.name)?;
    workload.protocols.get(&connection.local.port()).copied()
}

fn refuse_connection<D>(house: &House<D>, connection: &Connection, error: AdmitError, socket: TcpStream) {
    reset(socket);
    tracing::debug!(%error, "captured connection dropped");
    let mut story = record::begin(connection, http::Version::HTTP_11);
    record::refused(&mut story, &crate::Refusal::Dropped(error));
    house.recorder.record(*story);
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
    let stop = cut(drain);
    let talk = Talk { socket, first: BytesMut::new(), server: None };
    through(house, &door, permitted, talk, stop).await;
}

/// Carries permitted bytes for as long as policy permits them.
async fn raw_bytes<D: Decide>(
    house: &Arc<House<D>>,
    captured: &Captured,
    connection: &Connection,
    permitted: PermittedTcp,
    talk: Talk,
) {
    let stop = async {
        tokio::select! {
            why = cut(&captured.drain) => why,
            why = forbidden(&*house.engine, connection) => why,
        }
    };
    through(house, &captured.door, permitted, talk, stop).await;
}

async fn through<D>(
    house: &Arc<House<D>>,
    door: &Door,
    permitted: PermittedTcp,
    Talk { socket, first, server }: Talk,
    stop: impl Future<Output = &'static str>,
) {
    let began = Instant::now();
    let mut story = permitted.story;
    ready(&socket);
    let server = match server {
        Some(server) => Ok(server),
        None => door.connect(Duration::from_millis(house.limits.connect_timeout_ms)).await,
    };
    match server {
        Ok(server) => {
            let client = Rewound::new(Socket::with_urgent(socket), first);
            let carried = carry(client, Socket::with_urgent(server), stop).await;
            record::carried(&mut story, carried);
        }
        Err(fault) => {
            reset(socket);
            record::unreached(&mut story, fault);
        }
    }
    story.duration = began.elapsed();
    house.recorder.record(*story);
}

async fn cut(drain: &Drain) -> &'static str {
    drain.cut().cancelled().await;
    "drain_timeout"
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
