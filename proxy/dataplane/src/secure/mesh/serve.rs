//! A connection at a port of the mesh: secured, admitted, served; or refused without an answer.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use observe::Record;
use tokio::net::TcpStream;

use super::{Io, MeshTls, Patience};
use crate::{
    accept::ConnectionFacts,
    proxy::admit,
    serve::{Decide, House, Start, serve},
};

/// Serves a connection at a port of the mesh, to its end.
pub(crate) async fn mesh_connection<D: Decide>(
    house: Arc<House<D>>,
    mesh: &MeshTls,
    socket: TcpStream,
    facts: ConnectionFacts,
) {
    let drain = Arc::clone(&house.drain);
    let patience = Patience {
        first: Duration::from_millis(house.limits.idle_timeout_ms),
        handshake: Duration::from_millis(house.limits.handshake_timeout_ms),
        drain: drain.begun(),
    };
    let secured = match mesh.secure(socket, patience).await {
        Ok(secured) => secured,
        Err(error) => return refused(&house, &facts, error.0),
    };
    let verified = secured.identity.is_some();
    let facts = ConnectionFacts {
        identity: secured.identity,
        mutual_tls: verified,
        tls: matches!(secured.io, Io::Tls(_)),
        sni: secured.sni,
        ..facts
    };
    let Some(connection) = admit(&house, facts) else { return };
    let connection = connection.with_client_certificate(secured.client_certificate);
    let start = Start { agreed: secured.speaks, first: BytesMut::new(), drain: Arc::clone(&drain) };
    match secured.io {
        Io::Plain(io) => serve(house, connection, io, start).await,
        Io::Tls(io) => serve(house, connection, *io, start).await,
    }
}

/// Who is refused gets no answer; the operator gets a reason. Clients that open connections and say
/// nothing are no news.
fn refused<D>(house: &House<D>, facts: &ConnectionFacts, reason: &'static str) {
    if matches!(reason, "closed" | "silent" | "broken") {
        return;
    }
    tracing::debug!(peer = %facts.peer, reason, "connection refused");
    house.recorder.record(Record {
        source: observe::record::Party { address: Some(facts.peer), ..Default::default() },
        flags: "-",
        details: reason.to_owned(),
        refused: Some(reason),
        token: "none",
        http_version: "",
        ..Default::default()
    });
}
