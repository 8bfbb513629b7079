//! A listener's port: TLS and plaintext share it, and one peek at the first byte tells them apart. `0x16`
//! begins every ClientHello and is TLS however slowly the rest comes; nothing else is.

use std::time::Duration;

use policy::istio::MtlsMode;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Client, HANDSHAKE_RECORD, Handshaken, SecureError, Speaking, WorkloadTls};
use crate::{
    serve::Speaks,
    wire::{Rewound, Socket, Wire},
};

/// Draining: a connection that was accepted and has said nothing yet may still bring its request.
const DRAIN_FIRST_GRACE: Duration = Duration::from_secs(1);

/// A connection whose bytes are the application's.
#[derive(Debug)]
pub(super) struct MeshSecured {
    pub(super) io: Wire,
    /// The verified client; `None` in plaintext.
    pub(super) client: Option<Client>,
    pub(super) sni: Option<String>,
    /// By ALPN; `None` where that does not say.
    pub(super) speaks: Option<Speaks>,
}

/// Limits on what a client may take its time with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience<'a> {
    /// Until the first byte.
    pub(super) first: Duration,
    /// For the handshake.
    pub(super) handshake: Duration,
    /// Draining has begun: who has said nothing yet has little time left.
    pub(super) drain: &'a CancellationToken,
}

impl WorkloadTls {
    /// Tells TLS from plaintext at a port, and shakes hands where it is TLS. What is refused is closed by a
    /// reset.
    ///
    /// # Errors
    /// [`SecureError`] with a stable name.
    pub(super) async fn secure(
        &self,
        port: u16,
        socket: TcpStream,
        patience: Patience<'_>,
    ) -> Result<MeshSecured, SecureError> {
        let Some(mode) = self.mode(port) else { return Err(reset(&socket, "no_snapshot")) };
        if mode == MtlsMode::Disable {
            return Ok(MeshSecured::plain(socket));
        }
        let first = first_byte(&socket, patience).await.map_err(|reason| reset(&socket, reason))?;
        if first != HANDSHAKE_RECORD {
            return match mode {
                MtlsMode::Strict => Err(reset(&socket, "strict_plaintext")),
                _ => Ok(MeshSecured::plain(socket)),
            };
        }
        let socket = Rewound::new(Socket::new(socket), bytes::BytesMut::new());
        let Handshaken { io, client, sni, speaks } =
            self.accept(Speaking::Sidecar, socket, patience.handshake).await?;
        Ok(MeshSecured { io: Wire::Tls(io), client: Some(client), sni, speaks })
    }
}

impl MeshSecured {
    fn plain(socket: TcpStream) -> Self {
        Self { io: Wire::tcp(socket), client: None, sni: None, speaks: None }
    }
}

/// The caller is told nothing, not even that it is heard.
fn reset(socket: &TcpStream, reason: &'static str) -> SecureError {
    let _ = socket.set_zero_linger();
    SecureError(reason)
}

/// Waits for the first byte and leaves it in the socket.
async fn first_byte(socket: &TcpStream, patience: Patience<'_>) -> Result<u8, &'static str> {
    let mut first = [0_u8; 1];
    let hurried = async {
        patience.drain.cancelled().await;
        tokio::time::sleep(DRAIN_FIRST_GRACE).await;
    };
    let peeked = tokio::select! {
        peeked = timeout(patience.first, socket.peek(&mut first)) => peeked.map_err(|_| "silent")?,
        () = hurried => return Err("silent"),
    };
    match peeked {
        Ok(0) => Err("closed"),
        Ok(_) => Ok(first[0]),
        Err(_) => Err("broken"),
    }
}
