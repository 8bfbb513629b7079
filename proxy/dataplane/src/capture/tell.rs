//! What a connection's client speaks: as its port declares it, or by its first bytes, or, where both sides
//! are silent, by whoever speaks first.

use std::{sync::Arc, time::Duration};

use mesh::Declared;

use super::{
    CaptureSettings,
    arrive::ready,
    detect::{Told, Waits, listen, listen_for_tls},
    silence::{Spoke, await_word, drained},
    speak::{Mesh, Talk, door},
};
use crate::{
    accept::{Connection, Entry},
    record,
    secure::HANDSHAKE_RECORD,
    serve::{Decide, House, newest},
};

/// Why nobody speaks any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// It has ended as connections do.
    Closed,
    /// It is to be reset; the reason, where the client is to blame for one that is news.
    Reset(Option<&'static str>),
}

/// What the client speaks. TLS of the mesh is told where it may begin, whatever the port declares.
pub(super) async fn tell<D: Decide>(
    house: &Arc<House<D>>,
    connection: &Connection,
    talk: &mut Talk,
    mesh: Mesh,
) -> Result<Told, Over> {
    let declared = declared(&*house.engine, connection);
    let waits = waits(house);
    let idle = waits.silent_for(Duration::from_millis(house.limits.idle_timeout_ms));
    let (wire, first) = (&mut talk.wire, &mut talk.first);
    let heard = match (declared, mesh) {
        (Some(Declared::Http), Mesh::Never) => return Ok(Told::Http),
        (Some(Declared::Tcp), Mesh::Never) => return Ok(Told::Bytes),
        (Some(Declared::Http), Mesh::MayBegin) => tokio::select! {
            told = listen_for_tls(wire, first, idle) => told,
            () = drained(&talk.drain) => return Err(Over::Closed),
        },
        (Some(Declared::Tcp), Mesh::MayBegin) => listen_for_tls(wire, first, waits).await,
        (Some(Declared::Tls), _) => listen(wire, first, Waits::for_tls(&house.limits)).await,
        (None, _) => listen(wire, first, waits).await,
    };
    let told = match heard {
        // Whoever is to speak first and does not has nothing to say.
        Ok(Told::Silence { .. }) if declared == Some(Declared::Http) => return Err(Over::Closed),
        Ok(Told::Silence { ended }) => silence(house, connection, talk, (waits, mesh), ended).await?,
        Ok(told) => told,
        Err(_) => return Err(broken(talk, mesh)),
    };
    match (declared, told) {
        (_, Told::BadTls) if mesh == Mesh::MayBegin => Err(Over::Reset(Some("tls_malformed"))),
        (_, Told::Tls(asked)) if mesh == Mesh::MayBegin && asked.of_mesh => Ok(Told::Tls(asked)),
        (Some(Declared::Http), _) => Ok(Told::Http),
        (Some(Declared::Tcp), Told::Http) => Ok(Told::Bytes),
        (_, told) => Ok(told),
    }
}

/// The client said nothing yet.
async fn silence<D: Decide>(
    house: &Arc<House<D>>,
    connection: &Connection,
    talk: &mut Talk,
    (waits, mesh): (Waits, Mesh),
    ended: bool,
) -> Result<Told, Over> {
    let permitted = match house.engine.decide_tcp(connection) {
        // Opened and closed: kubelet's way to probe a port, and nothing to refuse.
        Err(_) if ended => return Err(Over::Closed),
        Err(_) => return later(house, talk, (waits, mesh)).await,
        Ok(_) if ended => return Ok(Told::Bytes),
        Ok(permitted) => permitted,
    };
    // It may take long: a client that is gone is to be noticed meanwhile.
    ready(&talk.wire);
    let door = door(house, connection, &permitted);
    let (wire, first) = (&mut talk.wire, &mut talk.first);
    let at = (&permitted, door.as_deref());
    let (spoke, server) = await_word(house, at, (wire, first), waits, &talk.drain).await;
    match spoke {
        Spoke::Client(told) => {
            // Who is somebody by now is not led to what was opened for nobody.
            let known = matches!(&told, Told::Tls(asked) if mesh == Mesh::MayBegin && asked.of_mesh);
            talk.server = server.filter(|_| told != Told::Http && !known);
            Ok(told)
        }
        // Both at once: the client may be about to say who it is.
        Spoke::Server if mesh == Mesh::MayBegin && talk.first.first() == Some(&HANDSHAKE_RECORD) => {
            let told = listen_for_tls(&mut talk.wire, &mut talk.first, waits).await;
            told.map_err(|_| broken(talk, mesh))
        }
        Spoke::Server => {
            talk.server = server;
            Ok(Told::Bytes)
        }
        Spoke::Neither => Err(Over::Closed),
        Spoke::Unreached(fault) => {
            let mut story = permitted.story;
            record::unreached(&mut story, fault);
            house.recorder.record(*story);
            Err(Over::Reset(None))
        }
    }
}

/// Raw bytes are not permitted: it is a request that takes its time, or a client that is yet to say who it
/// is; else nothing.
async fn later<D: Decide>(
    house: &House<D>,
    talk: &mut Talk,
    (waits, mesh): (Waits, Mesh),
) -> Result<Told, Over> {
    let idle = Duration::from_millis(house.limits.idle_timeout_ms);
    let told = tokio::select! {
        told = listen(&mut talk.wire, &mut talk.first, waits.silent_for(idle)) => told,
        () = drained(&talk.drain) => return Err(Over::Closed),
    };
    match told {
        Ok(Told::Silence { .. }) => Err(Over::Closed),
        Ok(told) => Ok(told),
        Err(_) => Err(broken(talk, mesh)),
    }
}

/// The client's connection failed, or its ClientHello took too long.
fn broken(talk: &Talk, mesh: Mesh) -> Over {
    let slow = mesh == Mesh::MayBegin && talk.first.first() == Some(&HANDSHAKE_RECORD);
    Over::Reset(slow.then_some("handshake_timeout"))
}

/// What the called port declares.
pub(crate) fn declared<D: Decide>(engine: &D, connection: &Connection) -> Option<Declared> {
    let Entry::Workload { name, port } = &connection.entry else { return None };
    newest(engine)?.workload(name)?.protocols.get(port).copied()
}

/// How long is waited for what.
fn waits<D>(house: &House<D>) -> Waits {
    let settings = house.pods.get().map_or_else(CaptureSettings::default, |pods| pods.settings);
    Waits::new(&house.limits, settings.detect_timeout_ms)
}
