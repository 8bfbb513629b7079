//! A connection at a port of the mesh: secured, admitted, served; or refused without an answer.

use std::{sync::Arc, time::Duration};

use observe::Record;
use tokio::net::TcpStream;

use super::{
    WorkloadTls,
    port::{MeshSecured, Patience},
};
use crate::{
    accept::{Connection, ConnectionFacts},
    capture::{Talk, speak},
    serve::{Decide, Drain, House},
    wire::Wire,
};

/// Serves a connection at a port of the mesh, to its end.
pub(crate) async fn mesh_connection<D: Decide>(
    house: Arc<House<D>>,
    (tls, port): (&Arc<WorkloadTls>, u16),
    socket: TcpStream,
    facts: ConnectionFacts,
) {
    let drain = Arc::clone(&house.drain);
    let patience = Patience {
        first: Duration::from_millis(house.limits.idle_timeout_ms),
        handshake: Duration::from_millis(house.limits.handshake_timeout_ms),
        drain: drain.begun(),
    };
    let secured = match tls.secure(port, socket, patience).await {
        Ok(secured) => secured,
        Err(error) => return refused(&house, &facts, error.0),
    };
    let MeshSecured { io, client, sni, speaks } = secured;
    let facts = ConnectionFacts {
        identity: client.as_ref().map(|client| client.peer.id.clone()),
        mutual_tls: client.is_some(),
        tls: matches!(io, Wire::Tls(_)),
        sni,
        ..facts
    };
    let connection = Connection::new(facts).of(Some(Arc::clone(tls)));
    let Some(client) = client else {
        return Box::pin(speak(house, connection, Talk::new(io, drain))).await;
    };
    let connection = connection.with_client_certificate(Some(client.header.clone()));
    let drain = Arc::new(Drain::within(&drain));
    let talk = Talk::new(io, Arc::clone(&drain)).agreed(speaks);
    let serving = Box::pin(speak(house, connection, talk));
    tls.while_verified(&client, &drain, serving).await;
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
