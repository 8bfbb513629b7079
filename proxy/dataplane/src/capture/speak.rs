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
};
use crate::{
    accept::Connection,
    admit::AdmitError,
    authorize::{self, PermittedTcp},
    engine::Refused,
    forward::{Door, carry},
    record,
    serve::{Decide, Drain, House, Start, newest, serve},
};

/// Serves a connection to its end.
pub(super) async fn speak<D: Decide>(
    house: Arc<House<D>>,
    pods: &Pods,
    connection: Connection,
    mut socket: TcpStream,
) {
    let Some(captured) = connection.captured.clone() else { return reset(socket) };
    // Of the node's requests some pass whatever PeerAuthentication says; each is judged by itself.
    if captured.prober().is_none()
        && let Err(error) = house.engine.admit(&connection)
    {
        return refuse_connection(&house, &connection, error, socket);
    }
    let mut first = BytesMut::new();
    let told = match declared(&*house.engine, &connection) {
        Some(Declared::Http) => Ok(Told::Http),
        Some(Declared::Tcp) => Ok(Told::Bytes),
        Some(Declared::Tls) => listen(&mut socket, &mut first, Waits::for_tls(&house.limits)).await,
        None => {
            let waits = Waits::new(&house.limits, pods.settings.detect_timeout_ms);
            listen(&mut socket, &mut first, waits).await
        }
    };
    let Ok(told) = told else { return };
    let raw = match told {
        Told::Http => None,
        Told::Tls(sni) => {
            let asked = Connection { sni, ..connection.clone() };
            Some((house.engine.decide_tcp(&asked), asked))
        }
        Told::Bytes => Some((house.engine.decide_tcp(&connection), connection.clone())),
        Told::Silence { ended } => match house.engine.decide_tcp(&connection) {
            Ok(permitted) => Some((Ok(permitted), connection.clone())),
            // Opened and closed: kubelet's way to probe a port, and nothing to refuse either way.
            Err(_) if ended => return,
            Err(_) => None,
        },
    };
    match raw {
        None => {
            let start = Start { agreed: None, first, drain: Arc::clone(&captured.drain) };
            serve(house, connection, socket, start).await;
        }
        Some((Ok(permitted), connection)) => {
            raw_bytes(&house, &captured, &connection, permitted, (socket, first)).await;
        }
        Some((Err(refused), _)) => {
            reset(socket);
            let Refused { story, .. } = *refused;
            tracing::debug!(reason = %story.details, "captured connection refused");
            house.recorder.record(*story);
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
    through(house, &door, permitted, (socket, BytesMut::new()), stop).await;
}

/// Carries permitted bytes for as long as policy permits them.
async fn raw_bytes<D: Decide>(
    house: &Arc<House<D>>,
    captured: &Captured,
    connection: &Connection,
    permitted: PermittedTcp,
    client: (TcpStream, BytesMut),
) {
    let stop = async {
        tokio::select! {
            why = cut(&captured.drain) => why,
            why = forbidden(&*house.engine, connection) => why,
        }
    };
    through(house, &captured.door, permitted, client, stop).await;
}

async fn through<D>(
    house: &Arc<House<D>>,
    door: &Door,
    permitted: PermittedTcp,
    (socket, first): (TcpStream, BytesMut),
    stop: impl Future<Output = &'static str>,
) {
    let began = Instant::now();
    let mut story = permitted.story;
    ready(&socket);
    match door.connect(Duration::from_millis(house.limits.connect_timeout_ms)).await {
        Ok(server) => {
            let carried = carry(socket, &first, server, stop).await;
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
