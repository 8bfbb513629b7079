//! TLS of the generator's connections.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use rustls_pki_types::ServerName;

use super::client::{Lost, Out};

/// A handshake that is waited for takes longer only when the peer is stuck.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// How a lane's connections are secured, and what is asserted of each.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Certificates, whom to expect, resumption, and one ALPN name, which the peer must choose.
    pub config: Arc<ClientConfig>,
    /// The server's name (SNI).
    pub name: ServerName<'static>,
    /// A connection for each request: its handshake is part of the load, and it is reset after the answer.
    /// Otherwise handshakes are over before the load begins.
    pub each: bool,
    /// The only kind of handshake that is right.
    pub kind: Option<HandshakeKind>,
}

/// One connection's TLS.
#[derive(Debug)]
pub(super) struct Secured {
    connection: ClientConnection,
    tls: Arc<Tls>,
}

impl Secured {
    /// Nothing is said yet.
    pub(super) fn begin(tls: &Arc<Tls>) -> io::Result<Self> {
        let connection = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone());
        Ok(Self { connection: connection.map_err(io::Error::other)?, tls: Arc::clone(tls) })
    }

    /// Shakes hands over a socket that blocks.
    pub(super) fn handshake(tls: &Arc<Tls>, stream: &mut TcpStream) -> io::Result<Self> {
        let mut secured = Self::begin(tls)?;
        stream.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
        secured.connection.complete_io(stream)?;
        secured.verdict().map_err(io::Error::other)?;
        Ok(secured)
    }

    /// Whether the connection ends with its answer.
    pub(super) fn each(&self) -> bool {
        self.tls.each
    }

    /// Writes what can be written; whether nothing waits for room. What a handshake still keeps back goes
    /// with what is read next.
    pub(super) fn flush(&mut self, stream: &mut TcpStream, out: &mut Out) -> io::Result<bool> {
        loop {
            let taken = io::Write::write(&mut self.connection.writer(), out.left())?;
            out.advance(taken);
            while self.connection.wants_write() {
                match self.connection.write_tls(stream) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            if taken == 0 && (out.left().is_empty() || self.connection.is_handshaking()) {
                return Ok(true);
            }
        }
    }

    /// Opens what has arrived and hands on what was in it, by way of `plain`.
    pub(super) fn open(
        &mut self,
        mut input: &[u8],
        plain: &mut [u8],
        mut take: impl FnMut(&[u8]) -> Result<(), Lost>,
    ) -> Result<(), Lost> {
        let broken = |error: &dyn std::fmt::Display| Lost(format!("TLS: {error}"));
        while !input.is_empty() {
            self.connection.read_tls(&mut input).map_err(|error| broken(&error))?;
            self.connection.process_new_packets().map_err(|error| broken(&error))?;
            loop {
                match self.connection.reader().read(plain) {
                    Ok(0) => return Err(Lost("connection closed".to_owned())),
                    Ok(read) => {
                        self.verdict().map_err(Lost)?;
                        take(plain.get(..read).unwrap_or_default())?;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(broken(&error)),
                }
            }
        }
        Ok(())
    }

    /// Whether the handshake was what the lane says it is.
    fn verdict(&self) -> Result<(), String> {
        let kind = self.connection.handshake_kind();
        if self.tls.kind.is_some() && kind != self.tls.kind {
            return Err(format!("a handshake was {kind:?}"));
        }
        let chosen = self.connection.alpn_protocol();
        if chosen != self.tls.config.alpn_protocols.first().map(Vec::as_slice) {
            return Err(format!("ALPN chosen: {:?}", chosen.map(String::from_utf8_lossy)));
        }
        Ok(())
    }
}
