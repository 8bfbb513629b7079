//! One connection of the generator.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use super::hbone;
use super::http1::Responses;
use super::http2;
use super::lane::{Lane, Protocol, Requests};
use super::secure::{Secured, Tls};

/// Connecting over loopback takes longer only when the peer is stuck.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Tunnels are answered later only when the peer is stuck.
const TUNNEL_LIMIT: Duration = Duration::from_secs(5);
/// For what is read while tunnels are opened.
const TUNNEL_SCRATCH: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: TcpStream,
    channel: Channel,
    wire: Wire,
    out: Out,
    /// Registered for writing, beside reading.
    pub(super) watches_writing: bool,
}

#[derive(Debug)]
enum Wire {
    One { responses: Responses, due: Option<Instant> },
    Two(http2::Connection),
    Tunnels(Box<hbone::Connection>),
}

/// What is between the socket and HTTP.
#[derive(Debug)]
enum Channel {
    Plain,
    /// TLS that begins with the request.
    Due(Arc<Tls>),
    Secure(Box<Secured>),
}

/// What waits to be written, and how much of it has been.
#[derive(Debug)]
pub(super) enum Out {
    Shared(Arc<[u8]>, usize),
    Own(Vec<u8>, usize),
}

/// A connection that is of no further use, and why.
pub(super) struct Lost(pub(super) String);

impl Client {
    pub(super) fn connect(lane: &Lane) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&lane.target, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        let channel = match &lane.tls {
            None => Channel::Plain,
            Some(tls) if tls.each => {
                // Reset at its end, so that no port waits for two minutes.
                set_socket_linger(&stream, Some(Duration::ZERO))?;
                Channel::Due(Arc::clone(tls))
            }
            Some(tls) => Channel::Secure(Box::new(Secured::handshake(tls, &mut stream)?)),
        };
        let mut out = Vec::new();
        let wire = match lane.protocol {
            Protocol::Http1 => Wire::One { responses: Responses::default(), due: None },
            Protocol::Http2 => Wire::Two(http2::Connection::new(&mut out)),
            Protocol::Hbone(port) => {
                let authority = SocketAddr::new(lane.target.ip(), port).to_string();
                Wire::Tunnels(Box::new(hbone::Connection::new(&authority, lane.streams, &mut out)))
            }
        };
        let mut client = Self { stream, channel, wire, out: Out::Own(out, 0), watches_writing: false };
        client.tunnel()?;
        client.stream.set_nonblocking(true)?;
        Ok(client)
    }

    /// Waits until tunnels are open; whoever has none waits for nothing.
    fn tunnel(&mut self) -> io::Result<()> {
        let began = Instant::now();
        let mut scratch = vec![0; TUNNEL_SCRATCH];
        self.stream.set_read_timeout(Some(TUNNEL_LIMIT))?;
        while matches!(&self.wire, Wire::Tunnels(tunnels) if !tunnels.all_open()) {
            if began.elapsed() > TUNNEL_LIMIT {
                return Err(io::Error::other("tunnels were not opened in time"));
            }
            self.flush().map_err(|Lost(why)| io::Error::other(why))?;
            self.read(&mut scratch, |_, _| {}).map_err(|Lost(why)| io::Error::other(why))?;
        }
        Ok(())
    }

    /// Requests without an answer.
    pub(super) fn under_way(&self) -> u64 {
        match &self.wire {
            Wire::One { due, .. } => u64::from(due.is_some()),
            Wire::Two(connection) => connection.open() as u64,
            Wire::Tunnels(connection) => connection.under_way(),
        }
    }

    /// Puts the next request in the way out; `false` when there is none any more.
    pub(super) fn prepare(&mut self, requests: &mut Requests, due: Instant) -> bool {
        match (&mut self.wire, requests) {
            (Wire::One { due: place, .. }, Requests::Same(bytes)) => {
                *place = Some(due);
                self.out = Out::Shared(Arc::clone(bytes), 0);
            }
            (Wire::One { due: place, .. }, Requests::Fresh(fresh)) => {
                let out = self.out.own();
                if !fresh.write(Protocol::Http1, out) {
                    return false;
                }
                *place = Some(due);
            }
            (Wire::Two(connection), Requests::Same(block)) => connection.send(block, due, self.out.own()),
            (Wire::Two(connection), Requests::Fresh(fresh)) => {
                let mut block = Vec::with_capacity(2048);
                if !fresh.write(Protocol::Http2, &mut block) {
                    return false;
                }
                connection.send(&block, due, self.out.own());
            }
            (Wire::Tunnels(connection), Requests::Same(bytes)) => {
                return connection.send(Arc::clone(bytes), due, self.out.own());
            }
            (Wire::Tunnels(connection), Requests::Fresh(fresh)) => {
                let mut message = Vec::with_capacity(2048);
                return fresh.write(Protocol::Http1, &mut message)
                    && connection.send(message.into(), due, self.out.own());
            }
        }
        true
    }

    /// Writes what can be written; whether nothing waits for room.
    pub(super) fn flush(&mut self) -> Result<bool, Lost> {
        if let Channel::Due(tls) = &self.channel {
            if self.out.left().is_empty() {
                return Ok(true);
            }
            let secured = Secured::begin(tls).map_err(|error| Lost(error.to_string()))?;
            self.channel = Channel::Secure(Box::new(secured));
        }
        let flushed = match &mut self.channel {
            Channel::Secure(secured) => secured.flush(&mut self.stream, &mut self.out),
            _ => self.out.flush(&mut self.stream),
        };
        if self.out.left().is_empty() {
            self.out.clear();
        }
        flushed.map_err(|error| Lost(error.kind().to_string()))
    }

    /// Reads what there is, once; `answered` gets status and due moment of each whole answer.
    /// Whether the connection can be used on.
    pub(super) fn read(
        &mut self,
        scratch: &mut [u8],
        mut answered: impl FnMut(u16, Instant),
    ) -> Result<bool, Lost> {
        // What TLS has in it is laid beside it.
        let half = if matches!(self.channel, Channel::Plain) { scratch.len() } else { scratch.len() / 2 };
        let (bytes, plain) = scratch.split_at_mut(half);
        let read = match self.stream.read(bytes) {
            Ok(0) => return Err(Lost("connection closed".to_owned())),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(Lost(error.kind().to_string())),
        };
        let input = bytes.get(..read).unwrap_or_default();
        let Channel::Secure(secured) = &mut self.channel else {
            return self.wire.take(input, &mut self.out, &mut answered);
        };
        let mut goes_on = true;
        secured.open(input, plain, |bytes| {
            goes_on &= self.wire.take(bytes, &mut self.out, &mut answered)?;
            Ok(())
        })?;
        Ok(goes_on && !(secured.each() && self.under_way() == 0))
    }
}

impl Wire {
    /// Whether the connection can be used on.
    fn take(
        &mut self,
        input: &[u8],
        out: &mut Out,
        mut answered: impl FnMut(u16, Instant),
    ) -> Result<bool, Lost> {
        match self {
            Self::One { responses, due } => {
                let Some(answer) = responses.feed(input).map_err(|error| Lost(error.to_string()))? else {
                    return Ok(true);
                };
                let due = due.take().ok_or_else(|| Lost("an answer that nobody asked for".to_owned()))?;
                answered(answer.status, due);
                Ok(!answer.close)
            }
            Self::Two(connection) => {
                let fed = connection.feed(input, out.own(), answered);
                fed.map(|()| true).map_err(|error| Lost(error.to_string()))
            }
            Self::Tunnels(connection) => {
                connection.feed(input, out.own(), answered).map_err(|error| Lost(error.to_string()))
            }
        }
    }
}

impl Out {
    pub(super) fn left(&self) -> &[u8] {
        let (bytes, at) = match self {
            Self::Shared(bytes, at) => (&bytes[..], at),
            Self::Own(bytes, at) => (&bytes[..], at),
        };
        bytes.get(*at..).unwrap_or_default()
    }

    pub(super) fn advance(&mut self, written: usize) {
        match self {
            Self::Shared(_, at) | Self::Own(_, at) => *at += written,
        }
    }

    fn flush(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        while !self.left().is_empty() {
            match stream.write(self.left()) {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The buffer to append to; what is shared has been written by then, as HTTP/1.1 waits for its turn.
    fn own(&mut self) -> &mut Vec<u8> {
        if let Self::Shared(bytes, at) = self {
            let left = bytes.get(*at..).unwrap_or_default().to_vec();
            *self = Self::Own(left, 0);
        }
        match self {
            Self::Own(bytes, _) => bytes,
            Self::Shared(..) => unreachable!("made our own above"),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Shared(..) => *self = Self::Own(Vec::new(), 0),
            Self::Own(bytes, at) => {
                bytes.clear();
                *at = 0;
            }
        }
    }
}
