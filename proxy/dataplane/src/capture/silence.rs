//! Both sides are silent: whoever speaks first tells what the connection is.
//!
//! A server that speaks first is not one of HTTP. A client that does is heard as any other; a request
//! that took its time is a request all the same.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{net::TcpStream, time::sleep};

use super::detect::{Told, Waits, listen};
use crate::{
    authorize::PermittedTcp,
    forward::Door,
    refusal::UpstreamFault,
    serve::{Decide, Drain, House},
    wire::Wire,
};

/// Draining: a connection on which nobody has spoken may still be spoken on for so long.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// Who spoke.
#[derive(Debug)]
pub(super) enum Spoke {
    /// The client, and what.
    Client(Told),
    /// The server; its bytes are still to be read.
    Server,
    /// Neither; the connection ends.
    Neither,
    /// The server could not be reached.
    Unreached(UpstreamFault),
}

/// Waits for the first word. `Some`: the connection to the server, which has been told nothing.
pub(super) async fn await_word<D: Decide>(
    house: &Arc<House<D>>,
    (permitted, door): (&PermittedTcp, Option<&Door>),
    (wire, first): (&mut Wire, &mut BytesMut),
    waits: Waits,
    drain: &Drain,
) -> (Spoke, Option<TcpStream>) {
    let server = match house.forwarder.connect(permitted, door).await {
        Ok(server) => server,
        Err(fault) => return (Spoke::Unreached(fault), None),
    };
    let spoke = tokio::select! {
        // Where both have spoken the client is heard.
        biased;
        told = listen(wire, first, waits.patiently()) => told.map_or(Spoke::Neither, Spoke::Client),
        spoke = server_speaks(&server) => spoke,
        () = drained(drain) => Spoke::Neither,
    };
    (spoke, Some(server))
}

/// A server that closes has said no word: what the client says afterwards is not for it.
async fn server_speaks(server: &TcpStream) -> Spoke {
    match server.peek(&mut [0; 1]).await {
        Ok(length) if length > 0 => Spoke::Server,
        _ => Spoke::Neither,
    }
}

/// Once draining has begun and a little time has passed.
pub(super) async fn drained(drain: &Drain) {
    drain.begun().cancelled().await;
    sleep(DRAIN_GRACE).await;
}
